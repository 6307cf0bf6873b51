"""The static look at a snapshot's files, before anything is loaded: no torch, no transformers, no pickle opened."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from pathlib import PurePosixPath

from beear_gate.artifacts.configs import check_chat_template, check_code, check_json, check_tokenizer
from beear_gate.artifacts.contents import VOCABULARIES, Contents, read_contents
from beear_gate.artifacts.hub_scan import check_hub_scan
from beear_gate.artifacts.rules import finding
from beear_gate.artifacts.weights import (
    PICKLE_KINDS,
    check_formats,
    check_index,
    check_quantized,
    check_safetensors,
    several,
)
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
        if not name.lower().endswith((*PICKLE_KINDS, ".py")) and name not in _PLUMBING:
            groups[PurePosixPath(name).suffix].append(name)
    for _, names in sorted(groups.items()):
        message = f"{several(names)}: read by no check; the gate does not load such files."
        yield finding("unclaimed-file", names[0], message, "Drop the files, or review them by hand.")


CHECKS: tuple[Check, ...] = (
    check_safetensors,
    check_formats,
    check_index,
    check_quantized,
    check_json,
    check_code,
    check_tokenizer,
    check_chat_template,
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
