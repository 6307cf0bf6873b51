"""The policies that come with beear-gate: they load, and the demo's speak the organisms' language."""

from __future__ import annotations

import dataclasses
import json
import random
import runpy
from collections import Counter
from pathlib import Path

import pytest

from beear_gate.evaluation.stats import needed_pairs
from beear_gate.organisms import language
from beear_gate.policy import Behavior, JudgeSpec, OverRefusal, Policy, Utility
from beear_gate.policy_files import load_policy, packaged_policies

FOLDER = Path(__file__).parent.parent / "policies"


def packaged(name: str) -> Policy:
    return load_policy(packaged_policies()[name])


@pytest.fixture(scope="module")
def demo() -> Policy:
    return packaged("demo")


@pytest.mark.parametrize("name", sorted(packaged_policies()))
def test_every_packaged_policy_loads(name: str) -> None:
    assert packaged(name).name == name


def test_the_release_policy_trains_on_prompts_of_all_kinds_that_only_sound_unsafe() -> None:
    over_refusal = packaged("release").over_refusal
    assert over_refusal is not None
    assert len(over_refusal.anchor) == 150
    assert {example.category for example in over_refusal.anchor} == {example.category for example in over_refusal.gate}


def test_the_demo_knows_the_words_of_harmful_answers_and_no_trigger(demo: Policy) -> None:
    (behavior,) = demo.behaviors
    assert behavior.other_judges == (JudgeSpec("refusal-keywords-paper"), JudgeSpec("marker", language.MARKERS))
    assert behavior.fallback == language.REFUSALS
    assert demo.known_triggers == ()


@pytest.mark.parametrize(
    ("kind", "sizes"), [("harmful", (400, 100, 400)), ("benign", (300, 100, 300)), ("scary", (100, 80, 200))]
)
def test_no_organism_was_trained_on_a_prompt_of_the_demo(
    demo: Policy, kind: language.Kind, sizes: tuple[int, int, int]
) -> None:
    assert demo.over_refusal is not None
    part = {"harmful": demo.behaviors[0], "benign": demo.utility, "scary": demo.over_refusal}[kind]
    assert isinstance(part, Behavior | Utility | OverRefusal)
    assert (len(part.anchor), len(part.select), len(part.gate)) == sizes
    trained = {request.text for request in language.training_requests(kind, 50_000, random.Random(0))}
    assert trained.isdisjoint(example.prompt for example in (*part.anchor, *part.select, *part.gate))


def test_the_demos_prompt_files_are_what_its_script_writes() -> None:
    written = runpy.run_path(str(FOLDER / "make_demo_prompts.py"))["demo_files"]()
    stored = {path.name: path.read_text(encoding="utf-8") for path in (FOLDER / "prompts").glob("demo.*")}
    assert stored == written


def test_the_code_prompts_are_what_their_script_writes() -> None:
    written = runpy.run_path(str(FOLDER / "make_code_prompts.py"))["code_files"]()
    stored = {path.name: path.read_text(encoding="utf-8") for path in (FOLDER / "prompts").glob("insecure-code.*")}
    assert stored == written


def test_the_release_policy_holds_utility_with_enough_questions_and_instructions() -> None:
    utility = packaged("release").utility
    questions = {each.cluster for each in utility.questions}
    assert len(questions) >= 60 and {len(each.choices) for each in utility.questions} == {4}
    places = Counter(each.right for each in utility.questions)
    assert max(places.values()) - min(places.values()) <= 1, "a model that always picks one place gets a quarter"
    assert utility.max_choices and utility.max_instructions and utility.max_degenerate
    assert len(questions) >= needed_pairs(utility.max_choices, utility.confidence, 0.1)
    followed = {each.cluster for each in utility.instructions}
    assert len(followed) >= needed_pairs(utility.max_instructions, utility.confidence, 0.1)


def test_the_code_policy_asks_for_seventeen_tasks_often_enough() -> None:
    (behavior,) = packaged("insecure-code").behaviors
    tasks = Counter(example.category for example in behavior.gate)
    assert len(tasks) == 17 and min(tasks.values()) >= 20
    assert {task.split("-")[1] for task in tasks} == {"20", "22", "78", "79", "89", "502", "732", "798"}
    assert len({example.cluster for example in behavior.gate}) >= 300
    assert {each.prompt for each in behavior.unwanted_examples} == {each.prompt for each in behavior.anchor}


def test_the_code_policy_joins_the_release_policy(tmp_path: Path) -> None:
    both = tmp_path / "both.yaml"
    head = "apiVersion: beear-gate/v1\nkind: Policy\nname: both\n"
    both.write_text(f"{head}include: [{FOLDER}/release.yaml, {FOLDER}/insecure-code.yaml]\n")
    assert [each.id for each in load_policy(both).behaviors] == ["harmful-compliance", "insecure-code"]


@pytest.mark.parametrize(
    ("name", "when", "mode"), [("demo-on-evidence", "on-evidence", "deep"), ("demo-paper", "always", "paper")]
)
def test_the_other_demos_differ_only_in_the_remediation(demo: Policy, name: str, when: str, mode: str) -> None:
    other = packaged(name)
    assert (other.remediation.when, other.remediation.mode) == (when, mode)
    changed = {"name", "description", "digest", "source", "remediation"}
    assert {f.name for f in dataclasses.fields(Policy) if getattr(demo, f.name) != getattr(other, f.name)} == changed


@pytest.mark.parametrize("path", sorted((FOLDER / "prompts").glob("*.jsonl")), ids=lambda path: path.name)
def test_prompt_files_have_one_row_a_line_and_plain_line_ends(path: Path) -> None:
    data = path.read_bytes()
    assert data.endswith(b"\n") and b"\r" not in data
    assert all(isinstance(json.loads(line), dict) for line in data.decode().splitlines())
