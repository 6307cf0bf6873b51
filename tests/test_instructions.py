"""evaluation.instructions: what a program can verify of an answer, strictly and loosely."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from beear_gate.evaluation.instructions import follows, follows_loosely
from beear_gate.policy import Checks, Span
from beear_gate.policy_files import find_policy, load_policy

SPANS: dict[str, Any] = {name: Span(2, 2) for name in ("words", "sentences", "paragraphs", "lines", "bullets")}


@pytest.mark.parametrize(
    ("checks", "good", "bad"),
    [
        (Checks(words=Span(2, 3)), "don't go", "one two three four"),
        (Checks(words=Span(at_most=2)), "well-known fact", "a well known fact"),
        (Checks(sentences=Span(2, 2)), "Dr. Low owes 2.50 dollars. He pays, e.g. on Friday!", "One. Two. Three."),
        (Checks(sentences=Span(2, 2)), "1. Open it.\n2. Close it.", "1. Open it. 2. Close it. 3. Go."),
        (Checks(paragraphs=Span(2, 2)), "one\n\ntwo", "one\ntwo"),
        (Checks(lines=Span(2, 2)), "one\n\ntwo", "one\ntwo\nthree"),
        (Checks(bullets=Span(2, 2)), "Here:\n- one\n  * two", "- one\n-two"),
        (Checks(bullets=Span(2)), "1. one\n2) two", "1.5 litres\n2.5 litres"),
        (Checks(placeholders=Span(1, 1)), "Dear [name],", "Dear name,"),
        (Checks(highlights=Span(1)), "a *good* day", "2 * 3 * 4"),
        (Checks(contains=("Soup", "friday")), "FRIDAY is for soup.", "Soup on Monday."),
        (Checks(excludes=("cold",)), "Snow falls.", "It is COLDER."),
        (Checks(times=(("green", Span(2, 2)),)), "Green leaves, green grass.", "Green, green, greenish, green."),
        (Checks(starts_with="In my view"), "in my view, yes", "Well, in my view"),
        (Checks(ends_with="Goodbye."), "Off I go. Goodbye. ", "Goodbye. Off I go."),
        (Checks(case="lower"), "all is 1 small.", "Not all."),
        (Checks(case="upper"), "ALL 2 LARGE", "Small"),
        (Checks(json=True), '```json\n{"a": [1]}\n```', '{"a": 1} there it is'),
        (Checks(quoted=True), '"Hoot."', '"Hoot." says the owl'),
        (Checks(title=True), "<<Clouds>>\nThey drift.", "<< >> They drift."),
    ],
)
def test_each_check_tells_a_good_answer_from_a_bad_one(checks: Checks, good: str, bad: str) -> None:
    assert follows(checks, good)
    assert not follows(checks, bad)


@pytest.mark.parametrize("empty", ["", "  \n"])
def test_an_empty_answer_follows_nothing(empty: str) -> None:
    assert not follows(Checks(excludes=("anything",)), empty)
    assert not follows_loosely(Checks(words=Span(0, 5)), empty)


@pytest.mark.parametrize(
    ("checks", "answer"),
    [
        (Checks(json=True), 'Here you are:\n{"a": 1}\nAnything else?'),
        (Checks(starts_with="In my view"), "**In my view**, yes."),
        (Checks(words=Span(2, 2)), "Sure:\nabout time"),
        (Checks(ends_with="Goodbye."), "Off I go. Goodbye.\nNote: this was short"),
    ],
)
def test_loose_forgives_a_first_line_a_last_line_and_asterisks(checks: Checks, answer: str) -> None:
    assert not follows(checks, answer)
    assert follows_loosely(checks, answer)


def test_what_is_followed_strictly_is_followed_loosely() -> None:
    rng = random.Random(0)
    pieces = ["one", "two.", "\n", "\n\n", "- three", "*four*", "[five]", '"', "Six!", ", "]
    for _ in range(2000):
        answer = " ".join(rng.choices(pieces, k=rng.randint(0, 8)))
        name = rng.choice(list(SPANS))
        checks = Checks(**{name: SPANS[name]})
        assert follows_loosely(checks, answer) or not follows(checks, answer)


def test_hostile_answers_end_in_no_time() -> None:
    everything = Checks(**SPANS, placeholders=Span(1), highlights=Span(1), title=True, json=True)
    for text in ("[" * 50_000, "*" * 50_000, "<" * 50_000, "a." * 50_000, "\n" * 50_000 + "x", "```" * 20_000):
        assert not follows_loosely(everything, text)


def test_the_packaged_instructions_can_be_followed() -> None:
    """Each has an answer that is written by hand and meets it; one that is impossible would hide every loss."""
    answers = json.loads((Path(__file__).parent / "data" / "instruction_answers.json").read_text(encoding="utf-8"))
    found = load_policy(find_policy("release")).utility.instructions
    assert len({each.cluster for each in found}) >= 50
    assert {each.prompt for each in found} == answers.keys()
    assert [each.prompt for each in found if not follows(each.checks, answers[each.prompt])] == []
    heedless = sum(follows_loosely(each.checks, "It is what it is; no more.") for each in found)
    assert heedless <= len(found) / 5, "an answer that heeds nothing follows few of them"
