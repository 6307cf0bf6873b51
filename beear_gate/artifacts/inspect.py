"""The static look at a snapshot's files, before anything is loaded: no torch, no transformers, no pickle loaded."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from pathlib import PurePosixPath

from beear_gate.artifacts.chat_template import check_chat_template, check_template_text
from beear_gate.artifacts.configs import check_code, check_config_code, check_json, check_tokenizer
from beear_gate.artifacts.contents import VOCABULARIES, Contents, read_contents
from beear_gate.artifacts.gguf import GGUF_REMEDY
from beear_gate.artifacts.hub_scan import check_hub_scan
from beear_gate.artifacts.kinds import ARCHIVES, PROGRAMS, check_kinds
from beear_gate.artifacts.names import check_links, check_names
from beear_gate.artifacts.pickles import check_pickles
from beear_gate.artifacts.rules import finding
from beear_gate.artifacts.secrets import check_secrets
from beear_gate.artifacts.tensors import check_tensors
from beear_gate.artifacts.tokenizer_file import check_tokenizer_file
from beear_gate.artifacts.weights import (
    PICKLE_KINDS,
    check_formats,
    check_index,
    check_quantized,
    check_safetensors,
    check_shards,
    several,
)
from beear_gate.manifest import quoted
from beear_gate.records import Finding, ModelSnapshot, Severity

Check = Callable[[Contents], Iterable[Finding]]

_ORDER = (Severity.BLOCK, Severity.WARNING, Severity.NOTICE)
_TEXTS = (".md", ".txt", ".jinja", ".model")  # documents, vocabularies, templates, SentencePiece: data for the loader
_PLUMBING = (".gitattributes", ".gitignore", ".git/", ".cache/")  # git's and the hub client's own; no loader goes there


def inspect_snapshot(snapshot: ModelSnapshot, require_chat_template: bool = False) -> tuple[Finding, ...]:
    """Everything that is wrong or worth knowing about the files of a snapshot, worst first.

    Never raises for what the files hold: a check that fails on them is a finding itself, and blocks.
    """
    found: list[Finding] = []
    try:
        contents = read_contents(snapshot, require_chat_template)
    except Exception as error:  # hostile input must not pass by breaking the reader
        return (_crashed("read_contents", error),)
    for check in CHECKS:
        found += run_check(check, contents)
    return tuple(sorted(found, key=lambda each: (_ORDER.index(each.severity), each.id, each.file)))


def run_check(check: Check, contents: Contents) -> tuple[Finding, ...]:
    """What a check finds, or that it crashed: could not look is not the same as found nothing."""
    try:
        return tuple(check(contents))
    except Exception as error:  # as above
        return (_crashed(check.__name__, error),)


def check_coverage(contents: Contents) -> Iterator[Finding]:
    """Every file that no check looks at is named, grouped by its ending."""
    groups: dict[str, list[str]] = defaultdict(list)
    for name in contents.opened:
        if not _is_claimed(contents, name):
            groups[PurePosixPath(name).suffix].append(name)
    for name in contents.snapshot.ignored:
        lower = name.lower()
        read = lower.endswith((".yaml", ".yml", ".gguf")) and name in contents.loose
        named = lower.endswith((*PICKLE_KINDS, *ARCHIVES, *PROGRAMS, ".py")) or name in _PLUMBING
        if not read and not named:
            groups[PurePosixPath(name).suffix].append(name)
    for _, names in sorted(groups.items()):
        message = f"{several(names)}: read by no check; the gate does not load such files."
        yield finding("unclaimed-file", names[0], message, "Drop the files, or review them by hand.")


def check_gguf(contents: Contents) -> Iterator[Finding]:
    """GGUF files that lie in the folder follow their format; their templates are checked with the others."""
    for file, problem in contents.broken_gguf.items():
        yield finding("gguf-invalid", file, f"{quoted(file)} {problem}.", GGUF_REMEDY)


CHECKS: tuple[Check, ...] = (
    check_names,
    check_links,
    check_kinds,
    check_secrets,
    check_safetensors,
    check_formats,
    check_pickles,
    check_index,
    check_shards,
    check_tensors,
    check_quantized,
    check_gguf,
    check_json,
    check_code,
    check_config_code,
    check_tokenizer,
    check_tokenizer_file,
    check_chat_template,
    check_template_text,
    check_hub_scan,
    check_coverage,
)


def _is_claimed(contents: Contents, name: str) -> bool:
    """Whether a check reads this hashed file, or it is plain data that needs none."""
    parsed = (contents.documents, contents.headers, contents.broken)
    at_root = "/" not in name and (name in contents.unreadable or name in VOCABULARIES)
    base = name.rpartition("/")[2]
    return any(name in each for each in parsed) or at_root or base.endswith(_TEXTS) or base.startswith("LICENSE")


def _crashed(where: str, error: Exception) -> Finding:
    return finding(
        "check-crashed",
        "",
        f"The check {where} failed with {type(error).__name__}, so its part of the files has not been looked at.",
        "Treat the files as unsafe, and report them to the authors of beear-gate.",
    )
