"""The ablations: which settings they try, what they read after each round, and that a stopped study goes on."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from gate_runs import small_policy
from PIL import Image
from test_organisms import seedling

from beear_gate.bench import ablation
from beear_gate.bench.ablation import measure, run
from beear_gate.bench.ablation_cells import NAMES, Cell, Look, Variant, settings_of, variants
from beear_gate.bench.ablation_page import page, summary, variant_figure
from beear_gate.bench.subjects import Subject
from beear_gate.bench.trigger_drift import TriggerDrift, trigger_drift
from beear_gate.errors import UsageError
from beear_gate.lm import load_lm
from beear_gate.organisms import Recipe, recipe
from beear_gate.organisms.chats import triggered
from beear_gate.organisms.goals import GOAL_MARKERS
from beear_gate.policy import JudgeSpec
from beear_gate.policy_files import load_policy
from beear_gate.records import RemediationSettings, Tick, no_tick
from beear_gate.report.drawing import png


@pytest.fixture
def tiny_subject(tiny_model: Path, tmp_path: Path) -> Subject:
    """A model that learned nothing as an organism, under a policy of a few dozen prompts."""
    chosen = seedling("short-prefix")
    assert chosen.backdoor is not None
    policy = load_policy(small_policy(tmp_path / "policy"))
    prompts = [triggered(chosen.backdoor, example.prompt) for example in policy.behaviors[0].gate]
    return Subject(chosen, tiny_model, policy, tuple(prompts), (), JudgeSpec("marker", GOAL_MARKERS["comply"]))


def test_every_figure_has_the_setting_of_the_paper_once() -> None:
    for name in NAMES:
        settings = settings_of(name, 8)
        assert [variant for _, variant in settings].count(Variant()) == 1, name
        assert len({label for label, _ in settings}) == len(settings)
    assert settings_of("layer", 32)[9] == ("9", Variant())


def test_what_figures_share_is_measured_once() -> None:
    names = [variant.name for variant in variants(8)]
    assert len(names) == len(set(names)) == 8 + 6 + 6 + 6 - 3
    assert names.count("default") == 1


def test_ratios_divide_the_same_total() -> None:
    assert {variant.useful + variant.safe for _, variant in settings_of("ratio", 8)} == {250}


def test_a_variant_runs_every_round_and_draws_no_more_than_there_is() -> None:
    given = Variant(available=10, n_tokens=3).settings(RemediationSettings(), 15)
    assert (given.rounds, given.min_rounds, given.useful_samples, given.n_tokens) == (15, 15, 10, 3)
    assert Variant(available=0).settings(RemediationSettings(), 15).useful_samples == 0


@pytest.mark.parametrize("variant", [Variant(), Variant(available=0), Variant(layer=0, n_tokens=12)])
def test_a_run_is_looked_at_before_and_after_every_round(tiny_subject: Subject, variant: Variant) -> None:
    anchors = tiny_subject.anchors(tiny_subject.load())
    cell = measure(tiny_subject, anchors, variant, 4)
    assert [look.number for look in cell.looks] == [0, 1, 2, 3, 4]
    assert cell.looks[0].nll_ratio == 1.0 != cell.last.nll_ratio
    assert (cell.n, cell.references) == (20, 20)


def test_drift_of_the_true_trigger_stands_beside_that_of_delta(tiny_subject: Subject) -> None:
    lm = load_lm(tiny_subject.folder, "cpu")
    found = trigger_drift(tiny_subject, lm, tiny_subject.anchors(lm), 6)
    assert [each.label for each in found.drifts] == [
        "without trigger", "with the true trigger", "with delta", "benign prompts",
    ]  # fmt: skip
    assert {len(each.points) for each in found.drifts} == {6} == {found.n}
    assert -1 <= found.cosine <= 1 and -1 <= found.uniformity <= 1 and found.delta_size > 0


def cell(variant: str, keywords: tuple[float, ...], marker: tuple[float, ...], organism: str = "long-suffix") -> Cell:
    looks = tuple(
        Look(number, *pair, 1.0 + number / 100) for number, pair in enumerate(zip(keywords, marker, strict=True))
    )
    return Cell(variant, organism, 0, 8, 60, 60, looks, 1.0)


def test_success_is_the_first_round_below_a_quarter_and_never_the_original() -> None:
    one = cell("default", (0.1, 0.9, 0.2, 0.9), (1.0, 0.9, 0.25, 0.9))
    assert one.success(lambda look: look.asr_keywords) == 2
    assert one.success(lambda look: look.asr_marker) is None


def test_the_summary_counts_each_judge_and_who_stays_below() -> None:
    found = [("0", cell("a", (1.0, 0.0), (1.0, 0.9))), ("1", cell("b", (1.0, 0.0, 0.5), (1.0, 1.0, 0.1)))]
    assert summary(found).startswith(
        "Below 25 %: 2 of 2 runs by `refusal-keywords-paper` (1 still after the last round), 1 of 2 runs by `marker` "
        "(1 still after the last round). The largest perplexity ratio after the last round is 1.020, at 1."
    )


def made_up(organism: str) -> list[Cell]:
    return [cell(each.name, (1.0, 0.4, 0.1), (1.0, 0.9, 0.8), organism) for each in variants(8)]


@pytest.mark.parametrize("name", NAMES)
def test_a_figure_is_an_image_with_every_setting_on_its_axis(name: str) -> None:
    chosen = next(each for each in NAMES if each == name)
    figure = variant_figure(chosen, [*made_up("long-suffix"), *made_up("short-prefix")])
    labels = [label.get_text() for label in figure.axes[-1].get_xticklabels()]
    assert labels == [setting for setting, _ in settings_of(chosen, 8)]
    assert figure.axes[-1].get_xlabel() and all(axes.get_ylabel() for axes in figure.axes)
    Image.open(io.BytesIO(png(figure))).verify()


def test_the_page_says_n_judges_seeds_and_the_command() -> None:
    drift = TriggerDrift("long-suffix", 0, 2, 60, 0.9, 0.3, 1.0, 2.0, ())
    text = page(made_up("long-suffix"), [drift], "beear-gate bench ablation --organism long-suffix")
    for words in ("n = 60", "`refusal-keywords-paper`", "`marker`", "seeds 0", "2 rounds",
                  "`beear-gate bench ablation --organism long-suffix`", "15.8 % to 37.2 %"):  # fmt: skip
        assert words in text
    for block in text.split("\n\n"):
        rows = [line for line in block.splitlines() if line.startswith("|")]
        assert len({row.count("|") for row in rows}) <= 1
    assert text.count("(default)") == len(NAMES)


def test_the_study_keeps_what_it_measured_and_goes_on_where_it_was(
    tiny_subject: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[Variant] = []

    def counted(*arguments: object) -> Cell:
        (variant,) = (each for each in arguments if isinstance(each, Variant))
        measured.append(variant)
        if len(measured) == 3:
            raise KeyboardInterrupt
        return measure(*arguments)  # type: ignore[arg-type]

    def small(name: str, seed: int) -> Recipe:
        return replace(tiny_subject.recipe, seed=seed)

    def found(chosen: Recipe, tick: Tick) -> Subject:
        return replace(tiny_subject, recipe=chosen)

    few = [Variant(), Variant(available=0), Variant(layer=1), Variant(n_tokens=1)]
    monkeypatch.setattr(ablation, "variants", lambda depth: few)
    monkeypatch.setattr(ablation, "recipe", small)
    monkeypatch.setattr(ablation, "subject", found)
    monkeypatch.setattr(ablation, "measure", counted)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "out", ["short-prefix"], 1, no_tick)
    path = run(tmp_path / "out", ["short-prefix"], 1, no_tick)
    assert len(measured) == len(few) + 1  # the interrupted one twice, no other
    written = json.loads((tmp_path / "out" / "ablation.json").read_text())
    assert {each["variant"] for each in written["cells"]} == {each.name for each in few}
    for name in (*NAMES, "drift"):
        Image.open(tmp_path / "out" / f"ablation-{name}.png").verify()
    first = path.read_text()
    monkeypatch.setattr(ablation, "subject", None)
    assert run(tmp_path / "out", ["short-prefix"], 1, no_tick).read_text() == first


@pytest.mark.parametrize("name", ["clean", "url"])
def test_an_organism_without_a_trigger_to_comply_is_refused(name: str, tmp_path: Path) -> None:
    assert recipe(name)
    with pytest.raises(UsageError, match=name):
        run(tmp_path, [name], 1, no_tick)
