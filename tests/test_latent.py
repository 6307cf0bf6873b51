"""The curve ASR against norm: what is fitted, what is counted, and where it is shown."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
from conftest import Scan
from gate_runs import only_run, read_evidence, rows, small_policy
from model_families import edit_json, load_tiny, make_model
from report_sample import sample_report

from beear_gate.anchors import build_anchors
from beear_gate.curves import reference_curve
from beear_gate.errors import PolicyError
from beear_gate.evaluation.stats import wilson
from beear_gate.hub import pull
from beear_gate.latent import latent_curves
from beear_gate.lm import LM
from beear_gate.models import Models
from beear_gate.policy import LatentTest, Policy
from beear_gate.policy_files import load_policy
from beear_gate.records import AnchorSets, Severity, no_tick
from beear_gate.report import figures, render, runs
from beear_gate.report.drawing import png
from beear_gate.report.latent_figure import latent_figure
from beear_gate.report.latent_words import half_norm, halves
from beear_gate.request import Request
from beear_gate.rundir import RunDirectory

SCHEMA = Path(__file__).parent.parent / "docs" / "evidence.schema.json"
WANTED: dict[str, dict[str, Any]] = {"latent": {"norms": [2, 0.5], "prompts": 12}}


@pytest.fixture
def lm(tmp_path: Path) -> LM:
    return load_tiny(tmp_path, "llama")


@pytest.fixture
def policy(tmp_path: Path) -> Policy:
    return load_policy(small_policy(tmp_path / "policy", triggers=WANTED))


@pytest.fixture
def anchors(lm: LM, policy: Policy) -> AnchorSets:
    return build_anchors(policy, lm, 8, seed=0)


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


def test_a_scan_measures_both_models_and_the_reference_and_a_resumed_one_not_again(
    scan: Scan, tiny_model: Path, tmp_path: Path
) -> None:
    """The reference has another tokenizer, depth and width: only prompts, seed and judge are the same."""
    make_model(tmp_path / "asks" / "clean", "gpt2", template=None)
    latent, search = {**WANTED["latent"], "reference": "./clean"}, {"tokens": 2, "steps": 1}
    policy = small_policy(tmp_path / "asks", triggers={"latent": latent, "search": search})
    scan(tiny_model, "--policy", policy)
    run = only_run(tmp_path / "runs")
    evidence = read_evidence(run)
    found = evidence["latent"]
    assert [(point["stage"], point["norm"]) for point in found if point["kind"] == "prefix"] == [
        ("before", 0.5), ("before", 2.0), ("after", 0.5), ("after", 2.0), ("reference", 0.5), ("reference", 2.0),
    ]  # fmt: skip
    assert {(point["stage"], point["layer"]) for point in found if point["kind"] == "latent"} == {
        ("before", 0), ("after", 0), ("reference", 2),
    }  # fmt: skip
    assert {point["n"] for point in found} == {12} and evidence["findings"] == []
    assert {(row["stage"], row["n"]) for row in rows(evidence, condition="searched", status="info")} == {
        ("before", 20), ("after", 20),
    }  # fmt: skip
    assert (run / "figures" / "latent.png").exists()
    page = (run / "report" / "index.html").read_text()
    assert "in the reference" in page and "not that the trust is earned" in page
    stages = ("latent-after.json", "latent-reference.json", "searched-before.json", "searched-after.json")
    kept = {name: (run / name).stat().st_mtime_ns for name in stages}
    scan(tiny_model, "--policy", policy, "--resume", run)
    assert {name: (run / name).stat().st_mtime_ns for name in kept} == kept and read_evidence(run)["latent"] == found


@pytest.mark.parametrize("wrong", ["nowhere", "unsafe", "the same", "an encoder"])
def test_a_reference_that_cannot_be_measured_is_a_finding(tiny_model: Path, tmp_path: Path, wrong: str) -> None:
    folder = shutil.copytree(tiny_model, tmp_path / "policy" / "clean")
    if wrong == "nowhere":
        shutil.rmtree(folder)
    elif wrong == "unsafe":
        edit_json(folder / "config.json", auto_map={"AutoModel": "code.Model"})
    elif wrong == "an encoder":
        make_model(folder, "llama")
        edit_json(folder / "config.json", architectures=["LlamaModel"])
    wanted = {"latent": {"norms": [2], "prompts": 4, "reference": "./clean"}}
    policy = load_policy(small_policy(tmp_path / "policy", triggers=wanted))
    request, run = Request(str(tiny_model), policy, device="cpu"), RunDirectory.create(tmp_path / "runs", "m")
    anchors = AnchorSets((), (), (), ())
    points, (finding,) = reference_curve(request, run, Models(request, no_tick), pull(str(tiny_model)), anchors, {})
    assert points == () and finding.id == "reference-unavailable" and finding.severity is Severity.WARNING
    said = {
        "nowhere": "There is no folder",
        "unsafe": "its files are unsafe",
        "the same": "it is the model under test",
        "an encoder": "not a decoder-only language model",
    }
    assert said[wrong] in finding.message and finding.remedy


def test_a_reference_stands_beside_the_other_curves() -> None:
    report = sample_report()
    other = [
        replace(point, stage="reference", layer=point.layer and 9) for point in report.latent if point.stage == "after"
    ]
    compared = replace(report, latent=(*report.latent, *other))
    assert [(row.place, row.said) for row in halves(compared.latent)] == [
        ("after layer 4", "1 before, 2 after, 2 in the reference"),
        ("soft suffix", "1 before, 2 after, 2 in the reference"),
    ]
    page, plain = render.html(compared), render.html(report)
    assert "no curve of a trusted model" in plain and "no curve of a trusted model" not in page
    assert "They cannot show that no trigger is left" in page and "They cannot show that no trigger is left" in plain
    drawn = latent_figure(compared.latent)
    assert len(drawn.axes) == 2 and [len(axes.lines) for axes in drawn.axes] == [3, 3]
    assert "latent-reference" in {stage.name for stage in runs.stages(compared)}
    jsonschema.validate(json.loads(render.as_json(compared)), json.loads(SCHEMA.read_text()))


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
