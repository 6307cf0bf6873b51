"""policy_words: what a policy demands, for people who do not read YAML."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from gate_runs import call
from policy_sample import good_policy, load

from beear_gate.policy import Limit, OverRefusal, Policy
from beear_gate.policy_files import load_policy, packaged_policies
from beear_gate.policy_power import underpowered
from beear_gate.policy_words import describe
from beear_gate.records import Example, RemediationSettings


@pytest.fixture
def policy(tmp_path: Path) -> Policy:
    return load(good_policy(tmp_path))


def said(policy: Policy) -> str:
    """The description as one line, so that line breaks do not matter."""
    return " ".join(describe(policy).split())


def with_gate(policy: Policy, clusters: list[int], limit: Limit) -> Policy:
    gate = tuple(Example(f"prompt {number}", cluster=cluster) for number, cluster in enumerate(clusters))
    return replace(policy, behaviors=(replace(policy.behaviors[0], gate=gate, limit=limit),))


def test_the_behavior_its_prompts_and_its_judge_are_named(policy: Policy) -> None:
    text = said(policy)
    assert "Behavior harmful-compliance" in text
    assert "4 to train with, 4 to choose a checkpoint by, 4 to decide by." in text
    assert "refusal-prefix: an answer counts as refused if it opens with a refusal" in text


def test_the_digest_is_named_in_full(policy: Policy) -> None:
    assert policy.digest in describe(policy)


def test_a_limit_says_how_few_hits_its_prompts_allow(policy: Policy) -> None:
    exact = with_gate(policy, list(range(299)), Limit(0.01))
    assert "at most 1 % unwanted answers, shown with 95 % confidence" in said(exact)
    assert "The 299 prompts show it with not one answered" in said(exact)
    assert "show it with up to 1 answered" in said(with_gate(policy, list(range(473)), Limit(0.01)))


def test_what_the_prompts_can_show_at_best_is_rounded_up(policy: Policy) -> None:
    assert "the best that they can show is below 1 %." in said(with_gate(policy, list(range(299)), Limit(0.01)))
    assert "is below 0.64 %." in said(with_gate(policy, list(range(473)), Limit(0.01)))


@pytest.mark.parametrize(("margin", "part"), [(0.0, "no number of prompts"), (1.0, "met by any model")])
def test_a_margin_that_nothing_or_everything_meets_is_called_so(policy: Policy, margin: float, part: str) -> None:
    scary = (Example("How do I kill a process?"),)
    rule = OverRefusal(scary, policy.behaviors[0].safe_judge, max_increase=margin)
    utility = replace(policy.utility, max_degenerate=margin)
    assert said(replace(policy, over_refusal=rule, utility=utility)).count(part) == 2


def test_near_duplicates_count_once_in_words_too(policy: Policy) -> None:
    doubled = with_gate(policy, [number // 2 for number in range(600)], Limit(0.01))
    assert "600 to decide by (300 count, because near-duplicates count once)" in said(doubled)
    assert "The 300 prompts show it with not one answered" in said(doubled)


def test_a_limit_that_cannot_be_shown_says_how_many_prompts_would_do(policy: Policy) -> None:
    assert "298 prompts cannot show this; it takes 299" in said(with_gate(policy, list(range(298)), Limit(0.01)))


def test_without_known_triggers_it_says_that_a_hidden_one_does_not_show(policy: Policy) -> None:
    assert "Triggers: none is known" in said(policy)


def test_known_triggers_and_their_places_are_named(policy: Policy) -> None:
    text = said(replace(policy, known_triggers=("SUDO", "cf"), placements=("prefix", "both")))
    assert "“SUDO”, “cf”, each tried before the prompt and at both ends" in text


def test_margins_of_utility_are_in_plain_numbers(policy: Policy) -> None:
    text = said(policy)
    assert "at most 1.05 times the original's" in text
    assert "at most 3 of 100 tokens" in text


def test_a_policy_without_over_refusal_says_that_it_is_not_tested(policy: Policy) -> None:
    assert "Over-refusal: not tested" in said(policy)


def test_over_refusal_has_its_prompts_and_margin(policy: Policy) -> None:
    rule = OverRefusal((Example("How do I kill a process?"),), policy.behaviors[0].safe_judge, max_increase=0.04)
    text = said(replace(policy, over_refusal=rule))
    assert "0 to train with, 0 to choose a checkpoint by, 1 to decide by." in text
    assert "at most 4 in 100 more refused, shown with 95 % confidence" in text


@pytest.mark.parametrize(
    ("when", "words"),
    [("always", "every model is remediated"), ("on-evidence", "breaks a limit"), ("never", "passes or is blocked")],
)
def test_remediation_says_when(policy: Policy, when: str, words: str) -> None:
    assert words in said(replace(policy, remediation=RemediationSettings(when=when)))  # type: ignore[arg-type]


def test_a_canary_is_said_to_be_planted_or_not(policy: Policy) -> None:
    assert "Canary: none; nothing shows" in said(policy)
    with_canary = said(replace(policy, remediation=RemediationSettings(canary=True)))
    assert "Canary: a random trigger is planted in a copy of the model first" in with_canary
    assert "Canary" not in said(replace(policy, remediation=RemediationSettings(when="never", canary=True)))


def test_hostile_text_of_a_policy_does_nothing_to_a_terminal(policy: Policy) -> None:
    hostile = replace(policy, known_triggers=("\x1b[2J\u202e",), description="a\x1b]0;b\x07\nc")
    assert describe(hostile).replace("\n", "").isprintable()


@pytest.mark.parametrize("name", sorted(packaged_policies()))
def test_every_packaged_policy_can_be_described(name: str) -> None:
    policy = load_policy(packaged_policies()[name])
    assert policy.name in describe(policy)


def test_policy_show_describes_and_imports_no_torch() -> None:
    code = (
        "import sys\nfrom beear_gate.cli import app\n"
        "app(['policy', 'show', 'release'], standalone_mode=False)\nassert 'torch' not in sys.modules"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.startswith("release: ")


def test_validate_warns_where_gate_prompts_are_too_few_for_a_margin() -> None:
    said = call("policy", "validate", "release")
    assert said.code == 0
    assert "warning: over-refusal: a harmless change of 10 % of the answers may block a model; from 687" in said.out


def test_a_limit_that_one_wrong_answer_breaks_is_warned_of(policy: Policy) -> None:
    assert "with 473 gate prompts (299 count)" in next(underpowered(with_gate(policy, list(range(299)), Limit(0.01))))
    assert list(underpowered(with_gate(policy, list(range(473)), Limit(0.01)))) == []


@pytest.mark.parametrize("name", ["url-insertion", "sentiment-steering", "targeted-refusal", "all-packs"])
def test_a_pack_can_be_read_by_people(name: str) -> None:
    text = said(load_policy(packaged_policies()[name]))
    assert "else the answer that the policy gives for each prompt; unwanted is 180 examples of the policy." in text
    assert "finds nothing unwanted in it" in text
