"""The curve ASR against norm: what is fitted, what is counted, and where it is shown."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from conftest import Scan
from gate_runs import only_run, read_evidence, small_policy
from model_families import load_tiny
from report_sample import sample_report

from beear_gate.anchors import build_anchors
from beear_gate.errors import PolicyError
from beear_gate.evaluation.stats import wilson
from beear_gate.latent import latent_curves
from beear_gate.lm import LM
from beear_gate.policy import LatentTest, Policy
from beear_gate.policy_files import load_policy
from beear_gate.records import AnchorSets
from beear_gate.report import figures, render, runs
from beear_gate.report.drawing import png
from beear_gate.report.words import half_norm, halves

WANTED = {"latent": {"norms": [2, 0.5], "prompts": 12}}


@pytest.fixture
def lm(tmp_path: Path) -> LM:
    return load_tiny(tmp_path, "llama")


@pytest.fixture
def policy(tmp_path: Path) -> Policy:
    return load_policy(small_policy(tmp_path / "policy", triggers=WANTED))


@pytest.fixture
def anchors(lm: LM, policy: Policy) -> AnchorSets:
    return build_anchors(policy, lm, 8)


def test_every_place_and_norm_is_a_point_counted_over_the_gate_prompts(
    lm: LM, policy: Policy, anchors: AnchorSets
) -> None:
    points = latent_curves(lm, policy, anchors, "before", 0, 8)
    asked = [(point.kind, point.layer, point.norm) for point in points]
    assert asked == [
        ("latent", 2, 0.5), ("latent", 2, 2.0), ("prefix", None, 0.5), ("prefix", None, 2.0), ("suffix", None, 0.5),
        ("suffix", None, 2.0),
    ]  # fmt: skip
    for point in points:
        assert (point.stage, point.behavior, point.judge, point.n) == ("before", "harm", "refusal-prefix", 12)
        assert (point.low, point.high) == wilson(point.hits, point.n, 0.95)


def test_a_larger_ball_never_fits_worse(lm: LM, policy: Policy, anchors: AnchorSets) -> None:
    points = latent_curves(lm, policy, anchors, "before", 0, 8)
    for kind in ("latent", "prefix", "suffix"):
        small, large = (point.loss for point in points if point.kind == kind)
        assert large < small


def test_the_remediated_layer_is_left_alone(lm: LM, policy: Policy, anchors: AnchorSets) -> None:
    layers = {}
    for used in (1, 2):
        plan = replace(policy.remediation, layer=used)
        points = latent_curves(lm, replace(policy, remediation=plan), anchors, "before", 0, 8)
        layers[used] = {point.layer for point in points if point.kind == "latent"}
    assert layers == {1: {2}, 2: {3}}


def test_the_same_seed_gives_the_same_curve_and_another_one_another(
    lm: LM, policy: Policy, anchors: AnchorSets
) -> None:
    once, again, other = (latent_curves(lm, policy, anchors, "after", seed, 8) for seed in (3, 3, 4))
    assert once == again and once != other


def test_near_duplicates_count_once(lm: LM, policy: Policy, anchors: AnchorSets) -> None:
    (harm,) = policy.behaviors
    gate = tuple(replace(example, cluster=place // 3) for place, example in enumerate(harm.gate))
    grouped = replace(policy, behaviors=(replace(harm, gate=gate),))
    assert {point.n for point in latent_curves(lm, grouped, anchors, "before", 0, 8)} == {4}


def test_a_policy_that_does_not_ask_gets_none(lm: LM, policy: Policy, anchors: AnchorSets) -> None:
    assert latent_curves(lm, replace(policy, latent=None), anchors, "before", 0, 8) == ()


def test_norms_are_sorted_and_a_wrong_one_is_named(tmp_path: Path) -> None:
    assert load_policy(small_policy(tmp_path, triggers=WANTED)).latent == LatentTest((0.5, 2.0), 12)
    for wrong in ([0.5, 0.5], [0], [-1], []):
        with pytest.raises(PolicyError, match="norms"):
            load_policy(small_policy(tmp_path, triggers={"latent": {"norms": wrong}}))


def test_a_scan_measures_both_models_and_a_resumed_one_not_again(scan: Scan, tiny_model: Path, tmp_path: Path) -> None:
    policy = small_policy(tmp_path / "asks", triggers=WANTED)
    scan(tiny_model, "--policy", policy)
    run = only_run(tmp_path / "runs")
    found = read_evidence(run)["latent"]
    assert [(point["stage"], point["norm"]) for point in found if point["kind"] == "prefix"] == [
        ("before", 0.5), ("before", 2.0), ("after", 0.5), ("after", 2.0),
    ]  # fmt: skip
    assert (run / "figures" / "latent.png").exists()
    kept = (run / "latent-after.json").stat().st_mtime_ns
    scan(tiny_model, "--policy", policy, "--resume", run)
    assert (run / "latent-after.json").stat().st_mtime_ns == kept and read_evidence(run)["latent"] == found


def test_a_report_says_at_which_norm_half_of_the_prompts_give_way() -> None:
    report = sample_report()
    assert [(row.place, row.said) for row in halves(report.latent)] == [
        ("after layer 4", "1 before, 2 after"),
        ("soft suffix", "1 before, 2 after"),
    ]
    assert half_norm([point for point in report.latent if point.norm < 2]) == "1 before, more than 1 after"
    assert half_norm([point for point in report.latent if point.stage == "before"]) == "1 before, not measured after"
    page = render.html(report)
    assert 'id="latent"' in page and "1 before, 2 after" in page
    assert 'id="latent"' not in render.html(replace(report, latent=()))
    assert png(figures.of_report(report)["latent"]).startswith(b"\x89PNG")


def test_a_tracker_gets_the_curve_over_thousandths_of_an_rms() -> None:
    found = {stage.name: stage.metrics for stage in runs.stages(sample_report())}
    name = "harmful-compliance.latent_asr.refusal-prefix"
    assert found["latent-before"][f"{name}.layer-4"] == [(500, 0.03), (1000, 0.6), (2000, 1.0)]
    assert found["latent-after"][f"{name}.suffix"] == [(500, 0.0), (1000, 0.02), (2000, 0.55)]
