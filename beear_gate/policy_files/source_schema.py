"""What may stand in a policy file where it names prompts: a file beside it, or one of a data set on a hub."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, Field, PlainValidator, model_validator

from beear_gate.policy_files.fields import Part, Text, or_name


def _rows(value: object) -> tuple[tuple[int, int], ...]:
    """Text such as "401-403, 405" as ((401, 403), (405, 405))."""
    parts = [part.strip() for part in str(value).split(",")]
    ranges: list[tuple[int, int]] = []
    for part in parts:
        found = re.fullmatch(r"(\d{1,9})(?:\s*-\s*(\d{1,9}))?", part)
        first, last = (int(found[1]), int(found[2] or found[1])) if found else (0, 0)
        if first <= (ranges[-1][1] if ranges else 0) or last < first:
            raise ValueError('must be rising numbers of rows, counted from 1, such as "1-400" or "401-403, 405"')
        ranges.append((first, last))
    return tuple(ranges)


def _dataset(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", name, re.ASCII):
        raise ValueError("must be the name of a data set, such as org/name")
    return name


def _commit(revision: str) -> str:
    if not re.fullmatch(r"[0-9a-f]{40}", revision):
        raise ValueError("must be a whole commit of 40 hexadecimal digits, because branches and tags can move")
    return revision


def _sha256(digest: str) -> str:
    if not re.fullmatch(r"[0-9a-f]{64}", digest):
        raise ValueError("must be a sha256 of 64 hexadecimal digits: `sha256sum FILE` prints it")
    return digest


def _inside(file: str) -> str:
    if file.startswith("/") or "\\" in file or not all(part not in ("", ".", "..") for part in file.split("/")):
        raise ValueError("must be the path of a file inside the data set, such as data/test.csv")
    return file


class HubPart(Part):
    dataset: Annotated[Text, AfterValidator(_dataset), Field(max_length=200)]
    """org/name on the hub."""
    revision: Annotated[str, AfterValidator(_commit)]
    """The commit, in 40 hexadecimal digits."""
    file: Annotated[Text, AfterValidator(_inside), Field(max_length=400)]
    """Path of a .jsonl or .csv file in the data set."""
    sha256: Annotated[str, AfterValidator(_sha256)]
    """Checksum of the file's bytes: a hub, a proxy or a cache cannot give other prompts."""


class SourcePart(Part):
    file: Text | None = None
    """Path of a .jsonl or .csv file, relative to this one; $BEEAR_GATE_DATA/ names a folder of your own."""
    hub: HubPart | None = None
    """A file of a data set on a hub, in place of `file`."""
    column: Text | None = None
    """Column (CSV) or key (JSONL) of the prompts; JSONL without it has the keys prompt, answer and category alone."""
    answer_column: Text | None = None
    """Column or key of the answers."""
    rows: Annotated[tuple[tuple[int, int], ...] | None, PlainValidator(_rows, json_schema_input_type=str | int)] = None
    """Rows that count, from 1 and without a header, such as "1-400, 405"."""

    @model_validator(mode="after")
    def _one_of_both(self) -> SourcePart:
        if (self.file is None) == (self.hub is None):
            raise ValueError('must have either "file" (a path) or "hub" (a file of a data set)')
        if self.answer_column and not self.column:
            raise ValueError("has answer_column without column: name the column of the prompts too")
        return self


PromptSource = Annotated[SourcePart, or_name("file", SourcePart | Text)]
