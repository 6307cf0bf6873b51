"""Every rule of the static look, in one table, and the one way to make a Finding from it."""

from __future__ import annotations

from beear_gate.records import Finding, Severity

RULES: tuple[tuple[str, Severity, str], ...] = (
    ("check-crashed", Severity.BLOCK, "A check failed on these files, so nobody has looked at them."),
    ("safetensors-header", Severity.BLOCK, "A safetensors file breaks its format: header, offsets, sizes or length."),
    ("pickle-weights", Severity.BLOCK, "Weights exist only in formats that can run code when loaded."),
    ("no-weights", Severity.BLOCK, "There are no safetensors weights under a name that the loader reads."),
    ("index-shards", Severity.BLOCK, "The shard index names shards or tensors that are not there."),
    ("index-unlisted", Severity.WARNING, "A shard holds tensors that the shard index does not list."),
    ("remote-code", Severity.BLOCK, "A configuration names Python code to import."),
    ("python-files", Severity.WARNING, "There are Python files that no configuration names."),
    ("config-invalid", Severity.BLOCK, "config.json is not the JSON object with a model_type that a loader needs."),
    ("json-invalid", Severity.BLOCK, "A JSON file that a loader may read is not plain JSON."),
    ("no-tokenizer", Severity.BLOCK, "There is no tokenizer."),
    ("pickle-ignored", Severity.WARNING, "Pickle-like files lie beside the safetensors weights and are never opened."),
    ("no-chat-template", Severity.NOTICE, "There is no chat template (a block where the policy requires one)."),
    ("quantized-weights", Severity.NOTICE, "The weights are quantised; not every loader and no training takes them."),
    ("hub-scan-issues", Severity.WARNING, "The hub's own scanners do not like a file."),
    ("hub-scan-pending", Severity.WARNING, "The hub's own scanners have not finished, which is no all-clear."),
    ("hub-scan-missing", Severity.NOTICE, "The hub says nothing of scans of its own."),
    ("unclaimed-file", Severity.NOTICE, "Files that no check reads and no loader opens."),
)
"""(id, severity, one line) of each rule, for `inspect --list-rules`."""

_SEVERITY = {rule: severity for rule, severity, _ in RULES}


def finding(rule: str, file: str, message: str, remedy: str) -> Finding:
    """A finding with the severity that RULES gives its rule."""
    return Finding(rule, _SEVERITY[rule], file, message, remedy)
