"""No hostile folder of the corpus passes, no honest twin is blocked, and eleven families' saves are silent."""

from __future__ import annotations

from pathlib import Path

import pytest
from artifact_corpus import SAMPLES, Link, Sample, write
from corpus_templates import HONEST
from model_families import FAMILIES, make_model

from beear_gate.artifacts import RULES, inspect_snapshot
from beear_gate.artifacts.template_render import template_problems
from beear_gate.hub import pull
from beear_gate.records import Finding, Severity

_looked_at: dict[frozenset[tuple[str, bytes | Link]], tuple[Finding, ...]] = {}


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: f"{sample.kind}: {sample.name}")
def test_the_hostile_one_does_not_pass_and_its_twin_is_not_blocked(sample: Sample, tmp_path: Path) -> None:
    found = inspect_snapshot(pull(str(write(tmp_path / "hostile", sample.hostile))))
    assert (sample.rule, sample.severity) in {(each.id, each.severity.value) for each in found}, found
    assert all(each.message.isprintable() and len(each.message) < 500 for each in found)
    assert not any(each.id == "check-crashed" for each in found), found
    key = frozenset(sample.honest.items())
    if key not in _looked_at:  # many share a twin
        _looked_at[key] = inspect_snapshot(pull(str(write(tmp_path / "honest", sample.honest))))
    twin = _looked_at[key]
    assert not [each for each in twin if each.severity is Severity.BLOCK or each.id == sample.rule], twin


def test_the_corpus_is_as_broad_as_it_should_be() -> None:
    assert len(SAMPLES) >= 60 and len({sample.kind for sample in SAMPLES}) >= 25
    assert len({(sample.kind, sample.name) for sample in SAMPLES}) == len(SAMPLES)


@pytest.mark.parametrize("name", HONEST)
def test_an_honest_template_is_not_blocked(name: str) -> None:
    severities = {rule.id: rule.severity for rule in RULES}
    assert not [row for row in template_problems(HONEST[name]) if severities[row[0]] is Severity.BLOCK]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_save_of_a_family_has_no_finding_above_notice(family: str, tmp_path: Path) -> None:
    found = inspect_snapshot(pull(str(make_model(tmp_path, family))))
    assert all(each.severity is Severity.NOTICE for each in found), found
