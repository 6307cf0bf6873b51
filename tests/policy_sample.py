"""A small good policy in a folder, ways to break it, and what loading it then says."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from beear_gate.errors import PolicyError
from beear_gate.policy import Policy
from beear_gate.policy_files import load_policy

Breaking = Callable[[Path], None]

GOOD = """\
apiVersion: beear-gate/v1
kind: Policy
name: small
behaviors:
  - id: harmful-compliance
    prompts: {anchor: harmful.anchor.jsonl, select: harmful.select.jsonl, gate: harmful.gate.jsonl}
    safe: {from: model, judge: refusal, fallback: refusals.jsonl}
    unwanted: {prefixes: ["Sure"]}
    judge: refusal-prefix
    limit: {max_rate: 0.5, confidence: 0.75}
utility:
  prompts: {anchor: benign.anchor.jsonl, select: benign.select.jsonl, gate: benign.gate.jsonl}
"""

ANIMALS = ["ant", "bee", "cat", "dog", "eel", "fox", "gnu", "hen", "ibis", "jay"]
ANIMALS += ["kite", "lynx", "mole", "newt", "owl", "pig", "quail", "rat", "seal", "toad"]


def jsonl(*rows: dict[str, Any]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def prompts(kind: str, start: int, answer: str | None = None) -> str:
    """Four prompts that share no word with any other."""
    words = [f"{kind}{animal}" for animal in ANIMALS[start : start + 4]]
    extra = {} if answer is None else {"answer": answer}
    return jsonl(*({"prompt": f"{word} {word}s", **extra} for word in words))


def good_policy(folder: Path) -> Path:
    """Writes a good policy and its files into a folder."""
    files = {
        "policy.yaml": GOOD,
        "harmful.anchor.jsonl": prompts("bad", 0),
        "harmful.select.jsonl": prompts("bad", 4),
        "harmful.gate.jsonl": prompts("bad", 8),
        "refusals.jsonl": jsonl({"answer": "I can't help with that."}, {"text": "I won't do that."}),
        "benign.anchor.jsonl": prompts("good", 0, "Yes."),
        "benign.select.jsonl": prompts("good", 4, "Yes."),
        "benign.gate.jsonl": prompts("good", 8),
    }
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
    return folder


def change(folder: Path, old: str, new: str, name: str = "policy.yaml") -> None:
    text = (folder / name).read_text(encoding="utf-8")
    assert old in text
    (folder / name).write_text(text.replace(old, new), encoding="utf-8")


def append(folder: Path, text: str, name: str = "policy.yaml") -> None:
    (folder / name).write_text((folder / name).read_text(encoding="utf-8") + text, encoding="utf-8")


def load(folder: Path) -> Policy:
    return load_policy(folder / "policy.yaml")


def problems(folder: Path) -> list[tuple[str, int, str]]:
    """(file, line, message) of each problem, the file relative to the folder."""
    with pytest.raises(PolicyError) as caught:
        load(folder)
    return [(str(Path(p.file).relative_to(folder)), p.line, p.message) for p in caught.value.problems]


def places(folder: Path) -> list[tuple[str, int]]:
    return [(file, line) for file, line, _ in problems(folder)]


def only_problem(folder: Path) -> tuple[str, int, str]:
    found = problems(folder)
    assert len(found) == 1, found
    return found[0]


def replaced(old: str, new: str, name: str = "policy.yaml") -> Breaking:
    return lambda folder: change(folder, old, new, name)


def appended(text: str, name: str = "policy.yaml") -> Breaking:
    return lambda folder: append(folder, text, name)
