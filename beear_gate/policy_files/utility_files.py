"""Reads the files that `utility` names beside its prompts: multiple choice, instructions, tasks of lm-eval."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from beear_gate.errors import Problem
from beear_gate.policy import Checks, HarnessTask, Instruction, Question, Span
from beear_gate.policy_files.prompt_files import Row, RowSet, Source
from beear_gate.policy_files.text import normalized, read_text, shortened
from beear_gate.policy_files.utility_schema import ChecksPart, HarnessPart, InstructionPart, QuestionPart, SpanPart
from beear_gate.policy_files.validate import validate
from beear_gate.policy_files.yaml_lines import Document, Section, read_document
from beear_gate.records import Example

P = TypeVar("P", QuestionPart, InstructionPart)


def read_questions(source: Source, problems: list[Problem]) -> tuple[tuple[Question, ...], RowSet]:
    """Multiple choice, and the same as prompts, for the comparison of splits: rows {prompt, choices, answer}."""
    rows = _rows(QuestionPart, source, problems)
    found = (Question(part.prompt, part.choices, part.choices.index(part.answer)) for _, part in rows)
    return tuple(found), _row_set(source, rows)


def read_instructions(source: Source, problems: list[Problem]) -> tuple[tuple[Instruction, ...], RowSet]:
    """Verifiable instructions, and the same as prompts: rows {prompt, checks}."""
    rows = _rows(InstructionPart, source, problems)
    return tuple(Instruction(part.prompt, _checks(part.checks)) for _, part in rows), _row_set(source, rows)


def read_tasks(folder: Path, named_at: tuple[str, int], problems: list[Problem]) -> tuple[HarnessTask, ...]:
    """Every *.yaml of a folder, one task each, whole: data files are read here, so that the digest is of them too."""
    if not folder.is_dir():
        problems.append(Problem(*named_at, f"The folder {folder} does not exist: correct utility.tasks or add it."))
        return ()
    paths = sorted(folder.glob("*.yaml"))
    if not paths:
        problems.append(Problem(*named_at, f"The folder {folder} has no task (*.yaml): add one."))
    found = [task for path in paths if (task := _task(path, named_at, problems))]
    for name, times in Counter(task.name for task in found).items():
        if times > 1:
            problems.append(Problem(*named_at, f'The task "{name}" stands in {times} files of {folder}: rename one.'))
    return tuple(found)


def _rows(model: type[P], source: Source, problems: list[Problem]) -> list[tuple[int, P]]:
    """(line, row) of every good row of a JSONL file, none of them twice."""
    file = str(source.path)
    text = read_text(source.path, source.named_at, problems)
    lines = [(line, raw) for line, raw in enumerate((text or "").split("\n"), 1) if raw.strip()]
    if text is not None and not lines:
        problems.append(Problem(*source.named_at, f"{source.key}: the file {file} has no rows: add some."))
    rows: list[tuple[int, P]] = []
    first: dict[str, int] = {}
    for line, raw in lines:
        part = validate(model, section, problems) if (section := _row(source.path, line, raw, problems)) else None
        if part and (earlier := first.setdefault(normalized(part.prompt), line)) != line:
            what = shortened(part.prompt)
            problems.append(Problem(file, line, f"The row repeats line {earlier} ({what}): remove one of them."))
        elif part:
            rows.append((line, part))
    return rows


def _row(path: Path, line: int, raw: str, problems: list[Problem]) -> Section | None:
    """One line of JSON as a section that knows its line."""
    try:
        row = json.loads(raw)
    except json.JSONDecodeError as error:
        problems.append(Problem(str(path), line, f"The row is not JSON: {error.msg} at column {error.colno}."))
    except (ValueError, RecursionError):  # a number of thousands of digits, brackets nested thousands deep
        problems.append(Problem(str(path), line, "The row is JSON that is too large to read: simplify it."))
    else:
        return Section(Document(path, raw, {}, {(): line}), ("the row",), row)
    return None


def _row_set(source: Source, rows: Sequence[tuple[int, P]]) -> RowSet:
    return RowSet(source, tuple(Row(Example(part.prompt), line) for line, part in rows), 0)


def _checks(part: ChecksPart) -> Checks:
    given: dict[str, Any] = {
        name: _span(value) if isinstance(value, SpanPart) else value
        for name in ChecksPart.model_fields
        if (value := getattr(part, name)) is not None and name not in ("times", "valid_json")
    }
    times = tuple((word, _span(span)) for word, span in part.times.items())
    return Checks(**given, times=times, json=part.valid_json)


def _span(part: SpanPart) -> Span:
    return Span(part.at_least, part.at_most)


def _task(path: Path, named_at: tuple[str, int], problems: list[Problem]) -> HarnessTask | None:
    document = read_document(path, named_at, problems)
    part = validate(HarnessPart, document.top, problems) if document else None
    if document is None or part is None:
        return None
    config = part.model_dump(mode="json", exclude_none=True)
    given = config["dataset_kwargs"]["data_files"]
    named = given if isinstance(given, dict) else {"train": given}  # what the builders of datasets call it
    files: dict[str, str] = {}
    place = document.top["dataset_kwargs"]["data_files"]
    for split, file in named.items():
        source = Path(os.path.normpath(path.parent / file))
        text = read_text(source, place.at, problems)
        if text is None:
            return None
        files[f"{split}{source.suffix}"] = text
    config["dataset_kwargs"]["data_files"] = {split: f"{split}{Path(file).suffix}" for split, file in named.items()}
    return HarnessTask(part.task, json.dumps(config, sort_keys=True), tuple(files.items()))
