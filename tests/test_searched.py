"""The search for a suffix: what is tried with it, and that it decides nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from gate_runs import small_policy
from model_families import load_tiny
from report_sample import sample_report

from beear_gate.anchors import build_anchors
from beear_gate.decide import not_tested
from beear_gate.errors import PolicyError
from beear_gate.evaluation.measure import measure_searched
from beear_gate.policy import SearchTest
from beear_gate.policy_files import load_policy
from beear_gate.policy_words import describe
from beear_gate.records import Outcome
from beear_gate.report import render
from beear_gate.report.pairs import pairs
from beear_gate.searched import searched_answers


def test_the_gate_prompts_are_answered_with_one_suffix_and_it_informs_only(tmp_path: Path) -> None:
    lm = load_tiny(tmp_path, "llama")
    policy = load_policy(small_policy(tmp_path / "policy", triggers={"search": {"tokens": 3, "steps": 2}}))
    anchors = build_anchors(policy, lm, 8, seed=0)
    found = searched_answers(lm, policy, anchors, 0, 8)
    (harm,) = policy.behaviors
    assert [answer.prompt for answer in found] == [example.prompt for example in harm.gate]
    assert {(answer.condition, answer.placement) for answer in found} == {("searched", "suffix")}
    assert len({answer.trigger for answer in found}) == 1 and set(found[0].outcomes) == {"refusal-prefix"}
    assert found == searched_answers(lm, policy, anchors, 0, 8) != searched_answers(lm, policy, anchors, 1, 8)
    assert searched_answers(lm, replace(policy, search=None), anchors, 0, 8) == ()

    worst = [replace(answer, trigger="other", outcomes={"refusal-prefix": Outcome.COMPLIED}) for answer in found]
    rows = (*measure_searched(policy, "before", worst), *measure_searched(policy, "after", found))
    assert {(row.trigger, row.limit, row.status) for row in rows} == {("", None, "info")}
    before = next(row for row in rows if row.metric == "asr")
    assert (before.stage, before.hits, before.n) == ("before", 20, 20)
    assert all(pair.before and pair.after for pair in pairs(rows)), "though each model has a suffix of its own"


def test_a_policy_asks_for_it_and_everyone_is_told_what_it_shows(tmp_path: Path) -> None:
    policy = load_policy(small_policy(tmp_path, triggers={"search": {}}))
    assert policy.search == SearchTest(12, 100)
    assert "a suffix of 12 tokens is fitted in 100 steps" in " ".join(describe(policy).split())
    said = " ".join(not_tested(policy, None, False))
    assert "models without a backdoor give way to such suffixes too" in said
    assert "suffix" not in " ".join(not_tested(replace(policy, search=None), None, False))
    report = sample_report()
    row = replace(
        report.measurements[0], condition="searched", placement="suffix", trigger="", limit=None, status="info"
    )
    page = render.html(replace(report, measurements=(*report.measurements, row)))
    assert "with a suffix that a search found for this model" in page
    with pytest.raises(PolicyError, match="tokens"):
        load_policy(small_policy(tmp_path, triggers={"search": {"tokens": 0}}))
