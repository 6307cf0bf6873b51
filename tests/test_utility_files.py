"""policy_files.utility_files: questions and instructions of a policy, and what is wrong with them, line by line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from policy_sample import append, good_policy, jsonl, load, only_problem, problems

from beear_gate.policy import Checks, Span
from beear_gate.policy_words import describe

QUESTION: dict[str, Any] = {"prompt": "Which is largest?", "choices": ["ant", "elephant"], "answer": "elephant"}
INSTRUCTION: dict[str, Any] = {"prompt": "Name two rivers.", "checks": {"bullets": 2}}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return good_policy(tmp_path)


def name_file(folder: Path, key: str, *rows: dict[str, Any], margins: str = "") -> None:
    (folder / f"{key}.jsonl").write_text(jsonl(*rows), encoding="utf-8")
    append(folder, f"  {key}: {key}.jsonl\n" + (f"  margins: {{{margins}}}\n" if margins else ""))


def test_a_question_has_the_index_of_its_right_choice(folder: Path) -> None:
    name_file(folder, "choices", QUESTION, margins="choices: 0.1")
    utility = load(folder).utility
    assert [(each.choices, each.right) for each in utility.questions] == [(("ant", "elephant"), 1)]
    assert utility.max_choices == 0.1


def test_a_number_means_exactly_and_every_check_is_read(folder: Path) -> None:
    checks: dict[str, Any] = {
        "bullets": 2, "words": {"at_most": 9}, "times": {"tea": {"at_least": 3}}, "json": True, "case": "lower",
        "contains": ["a"], "ends_with": ".",
    }  # fmt: skip
    name_file(folder, "instructions", INSTRUCTION | {"checks": checks})
    (found,) = load(folder).utility.instructions
    assert found.checks == Checks(
        bullets=Span(2, 2), words=Span(0, 9), times=(("tea", Span(3)),), json=True, case="lower",
        contains=("a",), ends_with=".",
    )  # fmt: skip


def test_near_duplicates_share_a_cluster(folder: Path) -> None:
    longer = QUESTION | {"prompt": "Which is largest here?"}
    name_file(folder, "choices", QUESTION, longer, QUESTION | {"prompt": "Who barks?"})
    assert [each.cluster for each in load(folder).utility.questions] == [0, 0, 1]


@pytest.mark.parametrize(
    ("row", "part"),
    [
        (QUESTION | {"answer": "whale"}, "'whale', which is none of its choices"),
        (QUESTION | {"choices": ["elephant"]}, "choices is empty"),
        (QUESTION | {"choices": ["ant", "Ant"], "answer": "ant"}, "differ in case or spaces alone"),
        (QUESTION | {"choices": ["ant", "ant"], "answer": "ant"}, "twice"),
        (QUESTION | {"prompt": ""}, "prompt is empty"),
        (QUESTION | {"anwser": "ant"}, 'did you mean "answer"'),
        ({key: QUESTION[key] for key in ("prompt", "choices")}, "answer is missing"),
    ],
)
def test_a_bad_question_is_shown_at_its_line(folder: Path, row: dict[str, Any], part: str) -> None:
    name_file(folder, "choices", QUESTION | {"prompt": "Who barks?"}, row)
    file, line, message = only_problem(folder)
    assert (file, line) == ("choices.jsonl", 2) and part in message


@pytest.mark.parametrize(
    ("checks", "part"),
    [
        ({}, "must ask for something"),
        ({"wrods": 3}, 'did you mean "words"'),
        ({"words": {"at_least": 5, "at_most": 3}}, "at_most below at_least"),
        ({"words": "three"}, "must be a mapping"),
        ({"case": "title"}, "must be 'lower' or 'upper'"),
    ],
)
def test_a_bad_check_is_shown_at_its_line(folder: Path, checks: dict[str, Any], part: str) -> None:
    name_file(folder, "instructions", INSTRUCTION, INSTRUCTION | {"prompt": "Other words.", "checks": checks})
    file, line, message = only_problem(folder)
    assert (file, line) == ("instructions.jsonl", 2) and part in message


@pytest.mark.parametrize(
    ("text", "part"),
    [("", "has no rows"), ("{\n", "not JSON"), ("[]\n", "mapping"), ('{"prompt": ' + "[" * 100_000, "too large")],
)
def test_a_file_that_is_no_jsonl_is_a_problem(folder: Path, text: str, part: str) -> None:
    name_file(folder, "choices", QUESTION)
    (folder / "choices.jsonl").write_text(text, encoding="utf-8")
    assert part in only_problem(folder)[2]


def test_a_repeated_question_is_a_problem(folder: Path) -> None:
    name_file(folder, "choices", QUESTION, QUESTION | {"prompt": "which IS  largest?"})
    assert only_problem(folder)[:2] == ("choices.jsonl", 2)


def test_a_question_that_trains_is_a_problem(folder: Path) -> None:
    name_file(folder, "choices", QUESTION | {"prompt": "goodant goodants"})
    assert "choices.jsonl:1 in the gate split" in only_problem(folder)[2]


@pytest.mark.parametrize("key", ["choices", "instructions", "tasks"])
def test_a_margin_without_something_to_hold_is_a_problem(folder: Path, key: str) -> None:
    append(folder, f"  margins: {{{key}: 0.1}}\n")
    assert f"has a margin for {key} but names no {key}" in only_problem(folder)[2]


def test_a_missing_file_is_shown_where_it_is_named(folder: Path) -> None:
    append(folder, "  choices: none.jsonl\n  instructions: none-either.jsonl\n")
    assert [(file, line) for file, line, _ in problems(folder)] == [("policy.yaml", 13), ("policy.yaml", 14)]


def test_the_policy_in_words_says_what_is_held_and_what_it_takes(folder: Path) -> None:
    name_file(folder, "choices", QUESTION, margins="choices: 0.1, degenerate: 0.05")
    text = " ".join(describe(load(folder)).split())
    assert "Multiple choice: 1 question, the likeliest answer counts; at most 10 in 100 fewer answered right." in text
    assert "at most 5 in 100 more" in text
    assert "62 if 10 % of the answers change; there is 1 that count, so a harmless change may be blocked." in text
