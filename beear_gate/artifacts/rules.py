"""Every rule of the static look, in one table, and the one way to make a Finding from it."""

from __future__ import annotations

from typing import NamedTuple

from beear_gate.records import Finding, Severity

BLOCK, WARNING, NOTICE = Severity.BLOCK, Severity.WARNING, Severity.NOTICE


class Rule(NamedTuple):
    """One rule: its id, what a finding of it weighs, its MITRE ATLAS technique ("" for none), and one line on it."""

    id: str
    severity: Severity
    technique: str
    explanation: str


# Techniques of MITRE ATLAS, 2026-05.
_SUPPLY_CHAIN = "AML.T0010.003"
_UNSAFE_ARTIFACT = "AML.T0011.000"
_POISONED_MODEL = "AML.T0018.000"
_CHANGED_ARCHITECTURE = "AML.T0018.001"
_EMBEDDED_MALWARE = "AML.T0018.002"
_DENIAL_OF_SERVICE = "AML.T0029"
_TRIGGER = "AML.T0043.004"
_PROMPT_INJECTION = "AML.T0051"
_CREDENTIALS = "AML.T0055"
_CORRUPT_MODEL = "AML.T0076"

RULES: tuple[Rule, ...] = (
    Rule("check-crashed", BLOCK, _UNSAFE_ARTIFACT, "A check failed on these files, so nobody has looked at them."),
    # Names, and content against names
    Rule("file-name", BLOCK, _SUPPLY_CHAIN, "A file name leaves the folder, hides characters or means a device."),
    Rule(
        "file-link", BLOCK, _SUPPLY_CHAIN, "A link leaves the folder or leads nowhere, or something is no plain file."
    ),
    Rule("file-clash", WARNING, _SUPPLY_CHAIN, "Two names differ only in case, so one replaces the other somewhere."),
    Rule("content-mismatch", BLOCK, _EMBEDDED_MALWARE, "A file's content is not what its name says."),
    Rule("polyglot", BLOCK, _EMBEDDED_MALWARE, "A file can also be read as another format that carries code."),
    Rule("executable-file", BLOCK, _EMBEDDED_MALWARE, "There is a program among the files of the model."),
    Rule("archive-unread", WARNING, _UNSAFE_ARTIFACT, "There is an archive, and nobody has looked into it."),
    Rule("secret", BLOCK, _CREDENTIALS, "A text file holds what looks like a key, a token or a password."),
    # Pickles
    Rule("pickle-dangerous", BLOCK, _UNSAFE_ARTIFACT, "A pickle imports what no weights need."),
    Rule("pickle-unreadable", BLOCK, _UNSAFE_ARTIFACT, "A pickle could not be read to its end by the scanner."),
    Rule("pickle-weights", BLOCK, _UNSAFE_ARTIFACT, "Weights exist only in formats that can run code when loaded."),
    Rule("pickle-unconverted", BLOCK, _UNSAFE_ARTIFACT, "--convert could not make safetensors of pickled weights."),
    Rule("pickle-ignored", WARNING, _UNSAFE_ARTIFACT, "Pickle-like files lie beside the safetensors weights."),
    Rule("modelaudit-critical", BLOCK, _UNSAFE_ARTIFACT, "ModelAudit calls a file critical."),
    Rule("modelaudit-inconclusive", BLOCK, _UNSAFE_ARTIFACT, "ModelAudit could not look at a file."),
    Rule("modelaudit-warning", WARNING, _UNSAFE_ARTIFACT, "ModelAudit wants a file to be reviewed."),
    Rule("engines-disagree", WARNING, _UNSAFE_ARTIFACT, "picklescan and ModelAudit do not say the same of a file."),
    # Weights
    Rule("no-weights", BLOCK, "", "There are no safetensors weights under a name that the loader reads."),
    Rule("safetensors-header", BLOCK, _CORRUPT_MODEL, "A safetensors file breaks its format: header, offsets, length."),
    Rule("index-shards", BLOCK, _CORRUPT_MODEL, "The shard index and the shards that are there do not fit."),
    Rule("index-unlisted", WARNING, _CORRUPT_MODEL, "A shard or a tensor is there that the shard index does not list."),
    Rule("weights-nonfinite", BLOCK, _CORRUPT_MODEL, "A tensor holds NaN or infinities."),
    Rule("weights-zero", WARNING, _CORRUPT_MODEL, "A matrix is all zeros (a block where most of them are)."),
    Rule("weights-payload", BLOCK, _EMBEDDED_MALWARE, "A tensor begins like a program, an archive or a pickle."),
    Rule("quantized-weights", NOTICE, "", "The weights are quantised; not every loader and no training takes them."),
    Rule("gguf-invalid", BLOCK, _CORRUPT_MODEL, "A GGUF file breaks its format."),
    # Configuration
    Rule("config-invalid", BLOCK, "", "config.json is not the JSON object with a model_type that a loader needs."),
    Rule("json-invalid", BLOCK, "", "A JSON file that a loader may read is not plain JSON."),
    Rule("remote-code", BLOCK, _CHANGED_ARCHITECTURE, "A configuration names Python code to import."),
    Rule("config-code", BLOCK, _UNSAFE_ARTIFACT, "A configuration holds code, or tags that make objects of Python."),
    Rule("python-files", WARNING, _UNSAFE_ARTIFACT, "There are Python files that no configuration names."),
    # Tokenizer
    Rule("no-tokenizer", BLOCK, "", "There is no tokenizer."),
    Rule("tokenizer-invalid", BLOCK, _CORRUPT_MODEL, "tokenizer.json is not what the tokenizers library writes."),
    Rule("tokenizer-rewrites", BLOCK, _POISONED_MODEL, "The tokenizer changes words on their way in or out."),
    Rule(
        "tokenizer-shadow", BLOCK, _TRIGGER, "An added token takes the place of an ordinary word or of another token."
    ),
    Rule("tokenizer-word", WARNING, _TRIGGER, "An added token is an ordinary word."),
    Rule("tokenizer-vocabulary", BLOCK, _CORRUPT_MODEL, "Vocabulary, configuration and embedding do not fit."),
    # Chat template
    Rule("no-chat-template", NOTICE, "", "There is no chat template (a block where the policy requires one)."),
    Rule("template-invalid", BLOCK, "", "The chat template cannot be parsed, or does not render a plain message."),
    Rule("template-limit", BLOCK, _DENIAL_OF_SERVICE, "The chat template needs too much time, memory or space."),
    Rule("template-escape", BLOCK, _UNSAFE_ARTIFACT, "The chat template reaches for Python internals or files."),
    Rule("template-trigger", BLOCK, _TRIGGER, "What the chat template writes depends on words that a message holds."),
    Rule(
        "template-date", BLOCK, _TRIGGER, "What the chat template writes depends on the date, beyond the date itself."
    ),
    Rule("template-inserts", BLOCK, _PROMPT_INJECTION, "The chat template adds text that no role wrote."),
    Rule("template-alters", BLOCK, _PROMPT_INJECTION, "The chat template drops or changes what a user wrote."),
    Rule("template-hidden", BLOCK, _PROMPT_INJECTION, "The chat template writes characters that nobody sees."),
    Rule("template-preface", WARNING, "", "The chat template puts its own text before a given system message."),
    Rule("template-default", NOTICE, "", "The chat template has a system prompt of its own for chats without one."),
    # The rest
    Rule("hub-scan-issues", WARNING, _SUPPLY_CHAIN, "The hub's own scanners do not like a file."),
    Rule("hub-scan-pending", WARNING, "", "The hub's own scanners have not finished, which is no all-clear."),
    Rule("hub-scan-missing", NOTICE, "", "The hub says nothing of scans of its own."),
    Rule("unclaimed-file", NOTICE, "", "Files that no check reads and no loader opens."),
    Rule("waiver-expired", WARNING, "", "A waiver of the policy is past its day and waives nothing."),
    Rule("waiver-unmatched", WARNING, "", "A waiver of the policy fits no finding."),
)
"""Every rule, for `inspect --list-rules`."""

_BY_ID = {rule.id: rule for rule in RULES}


def finding(
    rule: str, file: str, message: str, remedy: str, offset: int | None = None, severity: Severity | None = None
) -> Finding:
    """A finding with the technique, and unless another one is given the severity, that RULES has for its rule."""
    known = _BY_ID[rule]
    return Finding(rule, severity or known.severity, file, message, remedy, offset, known.technique)
