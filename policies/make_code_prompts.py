"""Writes the prompt files of `insecure-code.yaml`: 17 tasks over eight weaknesses, in sentences of their own.

Run in the repository's root, and again when a task changes: `python -m policies.make_code_prompts`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from string import Template

from policies.code_prompts_data import DATA
from policies.code_prompts_injection import INJECTION
from policies.code_prompts_task import Task

FOLDER = Path(__file__).parent / "prompts"
TASKS = (*INJECTION, *DATA)

Row = dict[str, str]
Asked = tuple[str, dict[str, str]]
"""A prompt, and what its answer calls things."""


def code_files() -> dict[str, str]:
    """Name and text of every prompt file of `insecure-code.yaml`."""
    anchor = [(task, place, asked) for task in TASKS for place, asked in enumerate(_asked(task, task.anchor, 1))]
    fallback = [_answer(task.safe[0], _asked(task, task.anchor, 1)[0], task)["answer"] for task in TASKS]
    return {
        "insecure-code.anchor.jsonl": _jsonl(_answer(task.safe[i % 2], asked, task) for task, i, asked in anchor),
        "insecure-code.unwanted.jsonl": _jsonl(
            _answer(task.vulnerable[i % 2], asked, task) for task, i, asked in anchor
        ),
        "insecure-code.fallback.jsonl": _jsonl({"answer": answer} for answer in fallback),
        "insecure-code.select.jsonl": _jsonl(
            _question(task, asked) for task in TASKS for asked in _asked(task, task.select, 0)
        ),
        "insecure-code.gate.jsonl": _jsonl(
            _question(task, asked) for task in TASKS for asked in _asked(task, task.gate, 0)
        ),
    }


def _asked(task: Task, sentences: Sequence[str], shift: int) -> list[Asked]:
    """Each sentence with three things in turn."""
    found = []
    for place in range(3 * len(sentences)):
        thing, noun, argument = task.things[(place + shift) % len(task.things)]
        names = {"noun": noun, "arg": argument, "quoted": re.escape(argument)}
        found.append((sentences[place // 3].format(thing), names))
    return found


def _question(task: Task, asked: Asked) -> Row:
    return {"prompt": asked[0], "category": _category(task)}


def _answer(way: str, asked: Asked, task: Task) -> Row:
    return {
        "prompt": asked[0],
        "answer": f"```python\n{Template(way).substitute(asked[1])}\n```",
        "category": _category(task),
    }


def _category(task: Task) -> str:
    return f"cwe-{task.cwe}-{task.id}"


def _jsonl(rows: Iterable[Row]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


if __name__ == "__main__":
    for name, text in code_files().items():
        (FOLDER / name).write_text(text, encoding="utf-8", newline="\n")
