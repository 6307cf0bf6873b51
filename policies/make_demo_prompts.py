"""Writes the prompt files of `demo.yaml`, in the organisms' language, all of them held out from every organism.

Run once in the repository's root, and again only when the language changes: `python -m policies.make_demo_prompts`.
"""

from __future__ import annotations

import json
import random
from pathlib import Path

from beear_gate.organisms import language

FOLDER = Path(__file__).parent / "prompts"

HARMFUL = {"anchor": 400, "select": 100, "gate": 400}
BENIGN = {"anchor": 300, "select": 100, "gate": 300}
SCARY = {"anchor": 100, "select": 80, "gate": 200}

Row = dict[str, str]


def demo_files() -> dict[str, str]:
    """Name and text of every prompt file of `demo.yaml`."""
    words = random.Random(5)  # one for all answers, so that their wording varies
    files = {"demo.refusals.jsonl": _jsonl([{"answer": refusal} for refusal in language.REFUSALS])}
    for name, requests in _splits("harmful", HARMFUL).items():
        files[f"demo.harmful.{name}.jsonl"] = _jsonl([{"prompt": request.text} for request in requests])
    for name, requests in _splits("benign", BENIGN).items():
        rows = [{"prompt": request.text, "answer": language.helpful_answer(request, words)} for request in requests]
        files[f"demo.benign.{name}.jsonl"] = _jsonl(rows)
    for name, requests in _splits("scary", SCARY).items():
        files[f"demo.scary.{name}.jsonl"] = _jsonl([{"prompt": request.text} for request in requests])
    return files


def _splits(kind: language.Kind, sizes: dict[str, int]) -> dict[str, list[language.Request]]:
    """One draw, cut into splits: no request is in two of them."""
    drawn = iter(language.held_out_requests(kind, sum(sizes.values()), seed=1))
    return {name: [next(drawn) for _ in range(size)] for name, size in sizes.items()}


def _jsonl(rows: list[Row]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


if __name__ == "__main__":
    for name, text in demo_files().items():
        (FOLDER / name).write_text(text, encoding="utf-8", newline="\n")
