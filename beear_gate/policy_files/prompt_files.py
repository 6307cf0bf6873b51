"""Reads the prompts and refusals that a policy names: JSONL or CSV, every bad row reported with its line."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from beear_gate.errors import Problem
from beear_gate.policy_files.text import nearest, normalized, read_text, shortened, text_problem, unknown_key
from beear_gate.records import Example

EXAMPLE_KEYS = ("prompt", "answer", "category")
REFUSAL_KEYS = ("answer", "text")

Cells = dict[str, str]


@dataclass(frozen=True)
class Source:
    """One file of prompts or refusals, as a policy names it.

    Attributes:
        key: the policy's key for it, such as `utility.prompts.gate`.
        named_at: policy file and line of that key.
        column, answer_column: columns of a CSV file, or keys of a JSONL file that are not ours.
        rows: first and last of each range of rows that count, from 1, a header not counted; None for all.
    """

    path: Path
    key: str
    named_at: tuple[str, int]
    column: str | None = None
    answer_column: str | None = None
    rows: tuple[tuple[int, int], ...] | None = None


@dataclass(frozen=True)
class Row:
    """A good row and the line on which it starts."""

    example: Example
    line: int


@dataclass(frozen=True)
class RowSet:
    """What could be read of one file.

    Attributes:
        rows: the good rows, none of them twice.
        broken: how many rows are left out because something is wrong with them.
    """

    source: Source
    rows: tuple[Row, ...]
    broken: int

    @property
    def examples(self) -> tuple[Example, ...]:
        """The rows without their lines."""
        return tuple(row.example for row in self.rows)


def read_examples(source: Source, problems: list[Problem], answers: bool = False) -> RowSet | None:
    """The rows {prompt, answer?, category?}; None where the file as a whole cannot be read.

    Args:
        problems: takes everything that is wrong.
        answers: whether every row must have an answer.
    """
    found = _raw_rows(source, EXAMPLE_KEYS, problems)
    if found is None:
        return None
    rows: list[Row] = []
    broken = 0
    for line, cells in found:
        wrong = _example_problems(cells) if cells is not None else []
        if cells is None or wrong:
            broken += 1
        else:
            answer = cells.get("answer", "")
            example = Example(cells["prompt"], answer if answer.strip() else "", cells.get("category", ""))
            rows.append(Row(example, line))
            if answers and not example.answer:  # the prompt is still good enough to be compared with others
                wrong = [f"The row has no answer, which {source.key} needs: write one or remove the row."]
        problems.extend(Problem(str(source.path), line, message) for message in wrong)
    return _without_duplicates(RowSet(source, tuple(rows), broken), problems)


def read_refusals(source: Source, problems: list[Problem]) -> tuple[str, ...]:
    """The refusals of a file with rows {answer} or {text}."""
    rows: list[Row] = []
    broken = 0
    for line, cells in _raw_rows(source, REFUSAL_KEYS, problems) or ():
        wrong = _refusal_problems(cells) if cells is not None else []
        problems.extend(Problem(str(source.path), line, message) for message in wrong)
        if cells is None or wrong:
            broken += 1
        else:
            rows.append(Row(Example(next(iter(cells.values()))), line))
    found = _without_duplicates(RowSet(source, tuple(rows), broken), problems)
    return tuple(example.prompt for example in found.examples)


def _example_problems(cells: Cells) -> list[str]:
    wrong = []
    if not cells.get("prompt", "").strip():
        state = "an empty prompt" if "prompt" in cells else "no prompt"
        wrong.append(f"The row has {state}: write one or remove the row.")
    return wrong + _text_problems(cells)


def _refusal_problems(cells: Cells) -> list[str]:
    if len(cells) != 1:
        return ['The row must have either "answer" or "text", the refusal.']
    if not "".join(cells.values()).strip():
        return ["The row has an empty refusal: write one or remove the row."]
    return _text_problems(cells)


def _text_problems(cells: Cells) -> list[str]:
    return [f"The {key} {wrong}." for key, text in cells.items() if (wrong := text_problem(text))]


def _without_duplicates(found: RowSet, problems: list[Problem]) -> RowSet:
    file = str(found.source.path)
    first: dict[str, Row] = {}
    for row in found.rows:
        kept = first.setdefault(normalized(row.example.prompt), row)
        if kept is not row:
            text = shortened(row.example.prompt)
            problems.append(Problem(file, row.line, f"The row repeats line {kept.line} ({text}): remove one of them."))
    return RowSet(found.source, tuple(first.values()), found.broken)


def _raw_rows(source: Source, keys: tuple[str, ...], problems: list[Problem]) -> list[tuple[int, Cells | None]] | None:
    """(line, cells) of every row, None for cells that cannot be told apart; None where there are no rows at all."""
    kind = source.path.suffix.lower()
    wrong = ""
    if kind not in (".jsonl", ".csv"):
        wrong = f"{source.path.name} is neither .jsonl nor .csv: convert it to one of them"
    elif kind == ".csv" and source.column is None:
        wrong = f"a CSV file needs its column named: write {{file: {source.path.name}, column: prompt}}"
    if wrong:
        problems.append(Problem(*source.named_at, f"{source.key}: {wrong}."))
    text = read_text(source.path, source.named_at, problems)
    if text is None or wrong:
        return None
    before = len(problems)
    read = _jsonl_rows if kind == ".jsonl" else _csv_rows
    rows = list(read(source, text, keys, problems))
    if not rows and len(problems) == before:
        problems.append(Problem(*source.named_at, f"{source.key}: the file {source.path} has no rows: add some."))
    if rows and source.rows:
        rows = _chosen(source, rows, source.rows, problems)
    return rows or None


def _chosen(
    source: Source, rows: list[tuple[int, Cells | None]], ranges: Sequence[tuple[int, int]], problems: list[Problem]
) -> list[tuple[int, Cells | None]]:
    """The rows that the policy names; a file that ends before them is another file than the policy means."""
    last = ranges[-1][1]
    if last > len(rows):
        wrong = f"row {last} is named, but {source.path} has {len(rows)} rows: correct rows or the file"
        problems.append(Problem(*source.named_at, f"{source.key}: {wrong}."))
    return [row for first, end in ranges for row in rows[first - 1 : end]]


def _jsonl_rows(
    source: Source, text: str, keys: tuple[str, ...], problems: list[Problem]
) -> Iterator[tuple[int, Cells | None]]:
    # Not splitlines(): JSON strings may hold U+2028 and its like as they are.
    for line, raw in enumerate(text.split("\n"), 1):
        if raw.strip():
            cells, wrong = _json_cells(raw, keys, _names(source, keys))
            problems.extend(Problem(str(source.path), line, message) for message in wrong)
            yield line, None if wrong else cells


def _names(source: Source, keys: tuple[str, ...]) -> Cells:
    """What the columns that the policy names are to us, such as {"prompt": "instruction"}; {} where it names none."""
    wanted = ((keys[0], source.column), ("answer", source.answer_column))
    return {key: name for key, name in wanted if name is not None}


def _json_cells(raw: str, keys: tuple[str, ...], names: Cells) -> tuple[Cells, list[str]]:
    """The cells of a row under our keys, and what is wrong with it; with `names`, its other keys do not matter."""
    repeated: list[str] = []

    def unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
        repeated.extend(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
        return dict(pairs)

    try:
        row = json.loads(raw, object_pairs_hook=unique)
    except json.JSONDecodeError as error:
        return {}, [f"The row is not JSON: {error.msg} at column {error.colno}."]
    except (ValueError, RecursionError):  # a number of thousands of digits, brackets nested thousands deep
        return {}, ["The row is JSON that is too large to read: simplify it."]
    if not isinstance(row, dict):
        return {}, [
            f'The row must be an object such as {{"{names.get(keys[0], keys[0])}": "…"}}, not {shortened(row)}.'
        ]
    wrong = [f'The row has the key "{name[:60]}" twice: remove one.' for name in dict.fromkeys(repeated)]
    if names:
        missing = [name for name in names.values() if name not in row]
        wrong += [f'The row has no key "{name[:60]}": correct column or the row.' for name in missing]
        row = {key: row[name] for key, name in names.items() if name in row}
    wrong += [unknown_key(name, keys) for name in row if name not in (*keys, "id")]
    mistyped = [name for name in keys if name in row and not isinstance(row[name], str)]
    wrong += [f'"{names.get(name, name)}" must be text, not {shortened(row[name])}.' for name in mistyped]
    return {name: row[name] for name in keys if name in row and name not in mistyped}, wrong


def _csv_rows(
    source: Source, text: str, keys: tuple[str, ...], problems: list[Problem]
) -> Iterator[tuple[int, Cells | None]]:
    file = str(source.path)
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    line = 1
    try:
        header = next(reader, [])
        places = _csv_columns(source, header, keys, problems)
        line = reader.line_num + 1  # where the next row starts; line_num is where the last one ended
        for row in reader:
            if row and places and len(row) != len(header):
                message = f"The row has {len(row)} cells and the header {len(header)}: quote cells that hold commas."
                problems.append(Problem(file, line, message))
                yield line, None
            elif row and places:
                yield line, {key: row[place] for key, place in places.items()}
            line = reader.line_num + 1
    except csv.Error as error:
        problems.append(Problem(file, line, f"The row is not CSV: {error}."))
        yield line, None


def _csv_columns(source: Source, header: list[str], keys: tuple[str, ...], problems: list[Problem]) -> dict[str, int]:
    """Where the columns are; {} and a problem for each that is missing or there twice."""
    names = _names(source, keys)
    missing = [name for name in names.values() if header.count(name) != 1]
    for name in missing:
        meant = nearest(name, header)
        hint = f'did you mean "{meant}"?' if meant else f"it has: {', '.join(header)[:200]}."
        fault = f'no column "{name}"; {hint}' if name not in header else f'the column "{name}" twice: rename one.'
        message = f"The header has {fault}"
        problems.append(Problem(str(source.path), 1, message))
    return {} if missing else {key: header.index(name) for key, name in names.items()}
