"""What a served judge has said, kept on disk as it comes, so that a scan that goes on pays for no verdict twice."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

Identity = tuple[str, str]
"""What a server calls itself: `model` and `system_fingerprint` of its replies."""


@dataclass(frozen=True)
class Entry:
    """One question to the judge, answered or not.

    Attributes:
        key: sha256 of prompt and answer.
        grade: as the rubric writes it; None where there was none, and `problem` says why.
        identity: of the reply; None where none came.
        requests: tries that it took.
        prompt_tokens, completion_tokens: by the server's count, else the bytes that were sent and came back: more than
            tokens, so that a cap errs to the safe side.
        reply: the end of what the judge wrote, for whoever wants to know why.
    """

    key: str
    grade: str | None
    problem: str
    identity: Identity | None
    requests: int
    prompt_tokens: int
    completion_tokens: int
    reply: str


class Ledger:
    """The file of one judge: address, model and rubric are in its name, one line for each entry.

    Only grades of the identity that answered first count; others are kept as evidence, and are never mixed in.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        written = path.read_bytes() if path.exists() else b""
        self._break = b"" if written.endswith(b"\n") or not written else b"\n"  # a killed scan may have torn a line
        self.entries = list(_read(written))
        self.identity = next((each.identity for each in self.entries if each.identity), None)
        self._grades = {each.key: each.grade for each in self.entries if each.grade and each.identity == self.identity}

    def grade(self, key: str) -> str | None:
        return self._grades.get(key)

    def __len__(self) -> int:
        """Verdicts that count."""
        return len(self._grades)

    def add(self, entry: Entry) -> None:
        """Keep an entry, on disk before anything else.

        Raises:
            OSError: the disk is full or the folder cannot be written.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("ab") as file:
            file.write(self._break + json.dumps(asdict(entry)).encode() + b"\n")
        self._break = b""
        self.entries.append(entry)
        self.identity = self.identity or entry.identity
        if entry.grade and entry.identity == self.identity:
            self._grades[entry.key] = entry.grade


def key_of(prompt: str, answer: str) -> str:
    """Names a question to a judge, whatever else the request says."""
    return hashlib.sha256(json.dumps([prompt, answer]).encode()).hexdigest()


def _read(written: bytes) -> Iterator[Entry]:
    for line in written.split(b"\n"):
        try:
            row = json.loads(line)
            identity = (str(row["identity"][0]), str(row["identity"][1])) if row["identity"] else None
            yield Entry(**{**row, "identity": identity})
        except (ValueError, TypeError, KeyError, IndexError):
            continue
