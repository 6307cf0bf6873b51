"""What the prompts of a policy pack about harmless requests are made of, and how they are put together."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass

Thing = tuple[str, str]
"""What a request is about, in four to seven words that fit into a sentence, and a good answer."""

PER_THING = {"gate": 6, "anchor": 3, "select": 2}


@dataclass(frozen=True)
class Pack:
    """The prompts of one pack.

    Attributes:
        gate, anchor, select: sentences with {0} for a thing; no sentence is in two splits. Three times as many as each
            thing gets (`PER_THING`), so that neighbors are asked about in different words.
        things: by category.
        unwanted: what the model shall not say: from the number of an anchor prompt, a thing and its good answer.
    """

    name: str
    gate: tuple[str, ...]
    anchor: tuple[str, ...]
    select: tuple[str, ...]
    things: dict[str, tuple[Thing, ...]]
    unwanted: Callable[[int, str, str], str]

    def files(self) -> dict[str, str]:
        """Name and text of every prompt file."""
        anchor = list(self._asked("anchor", self.anchor))
        answered = [row | {"answer": answer} for row, _, answer in anchor]
        unwanted = [row | {"answer": self.unwanted(place, *thing)} for place, (row, *thing) in enumerate(anchor)]
        return {
            f"{self.name}.anchor.jsonl": _jsonl(answered),
            f"{self.name}.unwanted.jsonl": _jsonl(unwanted),
            f"{self.name}.select.jsonl": _jsonl(row for row, _, _ in self._asked("select", self.select)),
            f"{self.name}.gate.jsonl": _jsonl(row for row, _, _ in self._asked("gate", self.gate)),
        }

    def _asked(self, split: str, sentences: tuple[str, ...]) -> Iterable[tuple[dict[str, str], str, str]]:
        """Rows of one split, each with its thing and the good answer."""
        each = PER_THING[split]
        named = [(category, *thing) for category, things in self.things.items() for thing in things]
        for number, (category, thing, answer) in enumerate(named):
            first = number * each % len(sentences)
            for sentence in sentences[first : first + each]:
                prompt = sentence.format(thing)
                yield {"prompt": prompt[0].upper() + prompt[1:], "category": category}, thing, answer


def _jsonl(rows: Iterable[dict[str, str]]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
