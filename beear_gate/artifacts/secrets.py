"""Check for keys, tokens and passwords that somebody left in a text file. Their text never enters a message."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator

from beear_gate.artifacts.contents import VOCABULARIES, Contents
from beear_gate.artifacts.kinds import is_text
from beear_gate.artifacts.rules import finding
from beear_gate.manifest import quoted
from beear_gate.records import Finding

_MOST_BYTES = 8 * 2**20
_MOST_FOUND = 5  # in one file

# Formats as their issuers document them.
_KINDS: tuple[tuple[str, str], ...] = (
    ("a Hugging Face token", r"\b(?:hf|api_org)_[A-Za-z0-9]{30,}\b"),
    ("a GitHub token", r"\b(?:gh[pousr]_[A-Za-z0-9]{36,}|github_pat_\w{40,})"),
    ("a GitLab token", r"\bglpat-[\w-]{20,}"),
    ("an AWS access key", r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"),
    ("an AWS secret key", r"(?i)aws_?secret_?(?:access_?)?key\W{1,6}[A-Za-z0-9/+]{40}\b"),
    ("a Google API key", r"\bAIza[\w-]{35}\b"),
    ("a key of a model provider", r"\bsk-(?:proj-|ant-|or-v1-|svcacct-)?[A-Za-z0-9_-]{32,}"),
    ("a Slack token", r"\bxox[abeprs]-[A-Za-z0-9-]{20,}|hooks\.slack\.com/services/T\w{6,}/B\w{6,}/\w{16,}"),
    ("a Stripe key", r"\b[sr]k_live_[A-Za-z0-9]{20,}"),
    ("a PyPI token", r"\bpypi-AgE[\w-]{40,}"),
    ("an npm token", r"\bnpm_[A-Za-z0-9]{36}\b"),
    ("a SendGrid key", r"\bSG\.[\w-]{16,}\.[\w-]{32,}"),
    ("a Weights & Biases key", r"(?i)wandb[\w\"' ]{0,16}(?:key)?\W{1,6}[0-9a-f]{40}\b"),
    ("an Azure storage key", r"AccountKey=[A-Za-z0-9+/]{80,}={0,2}"),
    ("a JSON Web Token", r"\beyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{20,}"),
    ("a private key", r"-----BEGIN (?:[A-Z]+ )?PRIVATE KEY(?: BLOCK)?-----"),
    ("a password in an address", r"\b[a-z][a-z0-9+.-]{1,12}://[^\s/:@\"'<>{}$]{1,64}:[^\s/:@\"'<>{}$*]{3,}@[\w.-]+"),
    (
        "a password or key",
        r"""(?i)\b(?:\w{0,20}[_-])?(?:api_?key|access_?token|auth_?token|secret(?:_?key)?|client_?secret|passw(?:or)?d|"""
        r"""private_?key|hf_?token|hub_?token|bearer)["']?\s{0,3}(?:[:=]|\s)\s{0,3}["']?[A-Za-z0-9+/=_.!@#%^&*-]{12,}""",
    ),
)  # fmt: skip
_PATTERNS = tuple((kind, re.compile(pattern)) for kind, pattern in _KINDS)
_PLACEHOLDER = re.compile(
    r"(?i)example|your|xxxx|placeholder|change.?me|dummy|redacted|\*\*\*|<|\.\.\.|1234567890|os\.environ|getenv"
)
_NEEDS_RANDOMNESS = ("a password or key", "a key of a model provider", "a password in an address")


def check_secrets(contents: Contents) -> Iterator[Finding]:
    """No text file holds a credential; vocabularies are left out, because they hold every string there is."""
    for file in (*contents.opened, *contents.loose):
        if not is_text(file) or file.rpartition("/")[2] in VOCABULARIES:
            continue
        text = contents.text(file, _MOST_BYTES)
        found = sorted(_secrets(text))[:_MOST_FOUND]
        for place, kind in found:
            line = text.count("\n", 0, place) + 1
            yield finding(
                "secret",
                file,
                f"{quoted(file)} holds what looks like {kind}, in line {line}.",
                "Revoke it with its issuer, then take it out of the file and of the repository's history.",
                len(text[:place].encode()),
            )
    for file, metadata in contents.gguf.items():
        for key, value in metadata.items():
            if isinstance(value, str) and any(True for _ in _secrets(value)):
                message = f"{quoted(file)} holds what looks like a credential under {quoted(key)}."
                yield finding("secret", file, message, "Revoke it with its issuer, then write the file without it.")


def _secrets(text: str) -> Iterator[tuple[int, str]]:
    taken: list[tuple[int, int]] = []
    for kind, pattern in _PATTERNS:
        for match in pattern.finditer(text):
            start, end = match.span()
            # The line may say that it is an example.
            if _PLACEHOLDER.search(match[0]) or any(start < last and first < end for first, last in taken):
                continue
            value = re.split(r"[\s\"':=]+", match[0])[-1]
            if kind in _NEEDS_RANDOMNESS and not _looks_random(value, kind):
                continue
            taken.append((start, end))
            yield start, kind


def _looks_random(value: str, kind: str) -> bool:
    """Whether a value is no word: letters and digits mixed, and enough different ones."""
    if kind == "a password in an address":
        return True
    counts = Counter(value)
    entropy = -sum(count / len(value) * math.log2(count / len(value)) for count in counts.values()) if value else 0
    mixed = any(each.isdigit() for each in value) and any(each.isalpha() for each in value)
    return mixed and entropy > 3.0 and not re.fullmatch(r"[a-z_.]+\d{0,4}", value)
