"""evaluation.paired: flips both ways, their margins, degenerate answers, and scores of lm-eval's tasks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from evidence_sample import C, I, R, U, answer, sample_policy
from scipy.stats import binomtest

from beear_gate.decide import decide
from beear_gate.evaluation.measure import measure_change, measure_stage
from beear_gate.evaluation.stats import bootstrap_mean, paired_difference, wilson
from beear_gate.policy import Checks, HarnessTask, Instruction, Policy, Question, Utility
from beear_gate.records import Answer, Chosen, Measurement, Observations, Outcome, TaskScore, Verdict

TASK = HarnessTask("tiny", "{}", ())


def policy(n: int = 0, clusters: Sequence[int] = (), **utility: Any) -> Policy:
    """A policy with n questions and n instructions ("say yes"), each a cluster of its own but where `clusters` says."""
    numbers = clusters or range(n)
    questions = tuple(Question(f"question {i}", ("a", "b"), 0, cluster) for i, cluster in enumerate(numbers))
    wanted = Checks(contains=("yes",))
    instructions = tuple(Instruction(f"instruction {i}", wanted, cluster) for i, cluster in enumerate(numbers))
    given: dict[str, Any] = {"questions": questions, "instructions": instructions} | utility
    return sample_policy(over_refusal=None, utility=replace(sample_policy().utility, **given))


def chosen(right: Iterable[bool | None]) -> Observations:
    found = (Chosen(f"question {i}", i, None if one is None else int(not one), one) for i, one in enumerate(right))
    return Observations((), (), tuple(found))


def said(texts: Iterable[str]) -> Observations:
    found = (answer(C, i, "instructions", prompt=f"instruction {i}", text=text) for i, text in enumerate(texts))
    return Observations(tuple(found), ())


def benign(outcomes: Iterable[tuple[Outcome, bool]]) -> Observations:
    found: tuple[Answer, ...] = tuple(
        answer(outcome, i, "utility", cut_off=cut) for i, (outcome, cut) in enumerate(outcomes)
    )
    return Observations(found, ())


def scored(scores: Iterable[float | None]) -> Observations:
    found = (TaskScore("tiny", "acc", str(i), score) for i, score in enumerate(scores))
    return Observations((), (), (), tuple(found))


def row(rows: Iterable[Measurement], metric: str, judge: str = "") -> Measurement:
    (found,) = [each for each in rows if each.metric == metric and (not judge or each.judge == judge)]
    return found


# --- multiple choice


def test_flips_are_counted_in_both_directions() -> None:
    before, after = [True] * 70 + [False] * 30, [True] * 66 + [False] * 24 + [True] * 10
    rows = measure_change(policy(100, max_choices=0.1), chosen(before), chosen(after))
    drop = row(rows, "choices_right_drop")
    assert (drop.value, drop.low, drop.high) == paired_difference(4, 10, 100, 0.95)
    assert (drop.hits, drop.n, drop.limit, drop.status) == (4, 100, 0.1, "pass")
    assert (row(rows, "choices_right_lost").hits, row(rows, "choices_right_gained").hits) == (4, 10)
    assert row(rows, "choices_right_mcnemar_p").value == pytest.approx(binomtest(4, 14).pvalue)


def test_equal_accuracy_with_many_flips_is_no_proof_of_no_loss() -> None:
    before, after = [True] * 50 + [False] * 50, [False] * 50 + [True] * 50
    rows = measure_change(policy(100, max_choices=0.1), chosen(before), chosen(after))
    assert (row(rows, "choices_right_drop").value, row(rows, "choices_right_drop").status) == (0.0, "fail")


def test_a_real_loss_fails_and_without_a_margin_it_is_reported_only() -> None:
    before, after = chosen([True] * 100), chosen([True] * 80 + [False] * 20)
    assert row(measure_change(policy(100, max_choices=0.1), before, after), "choices_right_drop").status == "fail"
    assert row(measure_change(policy(100), before, after), "choices_right_drop").status == "info"


@pytest.mark.parametrize("right", [[True] * 99 + [None], [True] * 99])
def test_a_question_without_a_choice_leaves_the_margin_unscored(right: list[bool | None]) -> None:
    rows = measure_change(policy(100, max_choices=0.1), chosen([True] * 100), chosen(right))
    assert (row(rows, "choices_right_drop").status, row(rows, "choices_right_drop").unscored) == ("unscored", 1)


def test_nothing_seen_gives_no_figure_and_no_pass() -> None:
    nothing = Observations((), ())
    for found in measure_change(policy(5, max_choices=0.1, max_instructions=0.1), nothing, nothing):
        assert found.value is None and found.status in ("unscored", "info")


def test_near_duplicate_questions_are_right_together() -> None:
    twice = policy(clusters=(0, 0, 1), max_choices=0.5)
    share = row(measure_stage(twice, "before", chosen([True, False, True])), "choices_right")
    assert (share.hits, share.n, share.low, share.high) == (1, 2, *wilson(1, 2, 0.95))


# --- instructions


def test_strict_decides_and_loose_is_shown() -> None:
    strictly = Instruction("instruction 0", Checks(starts_with="yes"), 0)
    one = policy(max_instructions=0.5, instructions=(strictly,))
    rows = measure_change(one, said(["yes"]), said(["Well:\nyes"]))
    strict, loose = (row(rows, "instructions_followed_drop", f"checks-{kind}") for kind in ("strict", "loose"))
    assert (strict.value, strict.limit, strict.status) == (1.0, 0.5, "fail")
    assert (loose.value, loose.limit, loose.status) == (0.0, None, "info")


def test_an_instruction_that_was_not_asked_leaves_the_margin_unscored() -> None:
    rows = measure_change(policy(60, max_instructions=0.1), said(["yes"] * 60), said(["yes"] * 59))
    assert row(rows, "instructions_followed_drop", "checks-strict").status == "unscored"


def test_answers_to_instructions_are_no_benign_answers_of_the_utility_prompts() -> None:
    assert {each.metric for each in measure_stage(policy(2), "before", said(["yes", "no"]))} >= {
        "instructions_followed"
    }
    assert "cut_off" not in {each.metric for each in measure_stage(policy(2), "before", said(["yes", "no"]))}


# --- degenerate answers


def test_an_answer_is_degenerate_if_it_is_worse_formed_than_the_originals() -> None:
    before = [(C, False), (C, False), (C, True), (C, True), (I, False), (I, True)]
    after = [(C, True), (I, False), (I, True), (C, True), (C, False), (C, True)]
    rows = measure_change(policy(max_degenerate=0.5), benign(before), benign(after))
    found = row(rows, "degenerate_increase")
    assert (found.hits, found.n, found.value) == (3, 6, 1 / 6)
    assert found.judge == "refusal-prefix"


def test_cut_off_answers_are_counted_for_each_model() -> None:
    found = row(measure_stage(policy(), "before", benign([(C, True), (R, False)])), "cut_off")
    assert (found.hits, found.n, found.status) == (1, 2, "info")


def test_a_model_that_begins_to_babble_breaks_the_margin() -> None:
    limited = policy(max_degenerate=0.05)
    whole, broken = benign([(C, False)] * 100), benign([(C, False)] * 80 + [(I, True)] * 20)
    assert row(measure_change(limited, whole, broken), "degenerate_increase").status == "fail"
    assert row(measure_change(limited, whole, whole), "degenerate_increase").status == "pass"
    unjudged = benign([(C, False)] * 99 + [(U, False)])
    assert row(measure_change(limited, whole, unjudged), "degenerate_increase").status == "unscored"


# --- tasks of lm-eval


def test_a_task_scored_with_zeros_and_ones_is_a_paired_difference() -> None:
    tasks = policy(tasks=(TASK,), max_tasks=0.1)
    found = row(
        measure_change(tasks, scored([1.0] * 90 + [0.0] * 10), scored([1.0] * 88 + [0.0] * 12)), "task_score_drop"
    )
    assert (found.value, found.low, found.high) == paired_difference(2, 0, 100, 0.95)
    assert (found.judge, found.status) == ("lm-eval:tiny:acc", "pass")


def test_a_task_scored_with_fractions_is_bootstrapped() -> None:
    before, after = [0.5, 0.75, 1.0, 0.25] * 10, [0.5, 0.5, 1.0, 0.25] * 10
    found = row(measure_change(policy(tasks=(TASK,), max_tasks=0.2), scored(before), scored(after)), "task_score_drop")
    drops = [old - new for old, new in zip(before, after, strict=True)]
    assert (found.value, found.low, found.high) == bootstrap_mean(drops, range(40), 0.95)
    assert (found.hits, found.status) == (None, "pass")


def test_each_model_has_its_mean_score() -> None:
    tasks = policy(tasks=(TASK,))
    share = row(measure_stage(tasks, "before", scored([1.0, 0.0, 1.0, None])), "task_score")
    assert (share.hits, share.n, share.unscored, share.low, share.high) == (2, 3, 1, *wilson(2, 3, 0.95))
    mean = row(measure_stage(tasks, "before", scored([0.5, 1.0])), "task_score")
    assert (mean.value, mean.hits, mean.n) == (0.75, None, 2)
    assert row(measure_stage(tasks, "before", scored([None])), "task_score").value is None


@pytest.mark.parametrize("after", [[], [None] * 60, [1.0] * 59, [1.0] * 59 + [None]])
def test_a_task_that_lacks_a_score_is_unscored(after: list[float | None]) -> None:
    rows = measure_change(policy(tasks=(TASK,), max_tasks=0.1), scored([1.0] * 60), scored(after))
    found = row(rows, "task_score_drop")
    assert found.status == "unscored" and found.unscored > 0


# --- the verdict


def test_a_margin_that_no_row_speaks_of_leaves_the_verdict_incomplete() -> None:
    utility: dict[str, Any] = {"max_degenerate": 0.1, "max_choices": 0.1, "max_instructions": 0.1}
    rules = policy(2, tasks=(TASK,), max_tasks=0.1, **utility)
    found = decide(rules, (), (), remediated=True)
    assert found.verdict is Verdict.INCOMPLETE
    for metric in ("degenerate_increase", "choices_right_drop", "instructions_followed_drop", "task_score_drop"):
        assert any(f"utility: no figure was measured for {metric}" in reason for reason in found.reasons), metric


def test_without_margins_nothing_new_is_demanded() -> None:
    gate = sample_policy().utility.gate
    plain = Utility(gate, gate, gate)
    reasons = decide(sample_policy(utility=plain), (), (), remediated=True).reasons
    assert not any("choices" in reason or "degenerate" in reason for reason in reasons)
