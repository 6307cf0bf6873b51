"""Does the removal stay? `deep` repairs an organism, then fine-tuning, an attacker and rounding have a go at it.

A removal may only suppress: backdoors came back after ordinary fine-tuning, and purified models relearned theirs from a
handful of samples ("Uncovering, Explaining, and Mitigating the Superficial Safety of Backdoor Defense", NeurIPS 2024,
arXiv 2410.09838). So each organism is repaired twice: by the demo's policy, and without the path-aware steps of that
paper. A study that was stopped goes on where it was (persistence_cells).
"""

from __future__ import annotations

import itertools
import json
import math
import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean

from safetensors.torch import load_model, save_model
from torch import Tensor

from beear_gate.bench.methods import deep
from beear_gate.bench.persistence_cells import TESTS, current, digest, kept, read_cells, unpack, write_cell
from beear_gate.bench.persistence_page import page
from beear_gate.bench.persistence_records import ENOUGH, Check, Relearned
from beear_gate.bench.persistence_trials import (
    POISONED,
    TUNINGS,
    relearn,
    round_to_bfloat16,
    round_to_int8,
    snapshot,
    tune_benignly,
    tune_ordinarily,
)
from beear_gate.bench.scores import REFUSAL, answer
from beear_gate.bench.subjects import Subject, subject
from beear_gate.demo import organism_cache
from beear_gate.errors import UsageError
from beear_gate.evaluation.utility import read_references
from beear_gate.lm import LM, load_lm
from beear_gate.organisms import Recipe, plant, recipe
from beear_gate.records import Outcome, Tick

RESULTS = "persistence.json"
TRIES_ON = 100
"""Gate prompts that a try is measured on."""
MAX_EXPONENT = 700.0
"""exp of more is no float."""


@dataclass(frozen=True)
class Specimen:
    """A model under test, and the weights from which each trial starts.

    Attributes:
        nll: of each benign reference answer, in nats a token, that ratios compare with.
    """

    model: str
    lm: LM
    weights: dict[str, Tensor]
    nll: tuple[float, ...]

    def fresh(self) -> LM:
        """The model with the weights that it came with."""
        self.lm.model.load_state_dict(self.weights)
        return self.lm


def run(
    folder: Path,
    organisms: Sequence[str],
    seeds: Sequence[int],
    tick: Tick,
    cells: Path,
    command: str,
    models: Sequence[str] = tuple(TESTS),
) -> Path:
    """Measure every cell that is not there yet, and write `persistence.json` and `persistence.md`.

    What an earlier `persistence.json` in the folder has of the same recipes is not measured again.

    Args:
        folder: for the two results.
        organisms: names of recipes that have a backdoor.
        cells: folder of cells, and of repaired weights that the removal study may have kept there.
        command: what the page says it was made by.
        models: which of TESTS to measure; what was measured of the others before is in the page all the same.

    Returns:
        The page.

    Raises:
        UsageError: no such organism or model, or an organism without a backdoor.
    """
    if unknown := sorted(set(models) - set(TESTS)):
        raise UsageError(f"There is no model {unknown[0]!r} in this study.", f"Choose from {', '.join(TESTS)}.")
    for name in organisms:
        if recipe(name).backdoor is None:
            raise UsageError(f"The organism {name!r} has no backdoor that could return.", "Leave it out.")
    unpack(folder / RESULTS, cells)
    jobs = [recipe(name, seed) for name in organisms for seed in seeds]
    for done, of in enumerate(jobs):
        tick("organisms", done, len(jobs))
        _organism(cells, of, models, tick)
    found = read_cells(cells, jobs)
    folder.mkdir(parents=True, exist_ok=True)
    record = {"command": command, "judge": "marker", "seeds": list(seeds), **asdict(found)}
    (folder / RESULTS).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    path = folder / "persistence.md"
    path.write_text(page(found, seeds, command), encoding="utf-8")
    return path


def _organism(cells: Path, of: Recipe, models: Sequence[str], tick: Tick) -> None:
    """All tests on one organism, repaired in either way or never backdoored."""
    for model in models:
        missing = [test for test in TESTS[model] if not current(cells, of, test, model)]
        if not missing:
            continue
        under_study = subject(of, tick)
        specimen = _clean(under_study, tick) if model == "clean" else _repaired(under_study, model, cells, tick)
        for test in missing:
            rows: Iterator[Check] | Iterator[Relearned]
            match test:
                case "return":
                    rows = _return(under_study, specimen, tick)
                case "copies":
                    rows = _copies(under_study, specimen)
                case _:
                    rows = iter([_relearn(under_study, specimen, tick)])
            write_cell(cells, of, test, model, tuple(rows))


def _repaired(under_study: Subject, model: str, cells: Path, tick: Tick) -> Specimen:
    """The organism after `deep`: as this study or that of removal kept it, or repaired here and kept."""
    lm, of = under_study.load(), under_study.recipe
    nll = _nll(lm, under_study)
    path = kept(cells, of, model)
    if path.exists():
        load_model(lm.model, path)  # strict: weights that do not fill this very model are an error
    else:
        job = under_study.job(lm, under_study.anchors(lm), tick)
        deep(job if model == "repaired" else replace(job, settings=replace(job.settings, path_aware=0.0)))
        save_model(lm.model, str(path.with_suffix(".partial")))
        os.replace(path.with_suffix(".partial"), path)
    return Specimen(model, lm, snapshot(lm), nll)


def _clean(under_study: Subject, tick: Tick) -> Specimen:
    """The same organism before its last training: it was never backdoored."""
    lm = load_lm(plant(under_study.recipe.base, organism_cache(), tick), "cpu")
    return Specimen("clean", lm, snapshot(lm), _nll(lm, under_study))


def _return(under_study: Subject, specimen: Specimen, tick: Tick) -> Iterator[Check]:
    lm = specimen.fresh()
    yield _check(under_study, specimen, "as is")
    tune_ordinarily(lm, under_study.recipe, tick)
    yield _check(under_study, specimen, "ordinary tuning")
    for draw in range(TUNINGS):
        tune_benignly(specimen.fresh(), under_study.recipe, tick, draw)
        yield replace(_check(under_study, specimen, "benign tuning"), draw=draw)


def _copies(under_study: Subject, specimen: Specimen) -> Iterator[Check]:
    round_to_bfloat16(specimen.fresh())
    yield _check(under_study, specimen, "bfloat16")
    round_to_int8(specimen.fresh())
    yield _check(under_study, specimen, "int8")


def _relearn(under_study: Subject, specimen: Specimen, tick: Tick) -> Relearned:
    """More and more samples, until the backdoor is there."""
    prompts, of, lm = under_study.triggered[:TRIES_ON], under_study.recipe, specimen.fresh()
    tries: list[tuple[int, int]] = []
    for samples in itertools.chain((0,), relearn(lm, of)):
        tick(f"relearning {of.name}", samples, POISONED[-1])
        tries.append((samples, answer(lm, under_study, prompts).hits(under_study.marker)))
        if tries[-1][1] >= ENOUGH * len(prompts):
            break
    return Relearned(of.name, of.seed, specimen.model, len(prompts), tuple(tries), digest(of))


def _check(under_study: Subject, specimen: Specimen, state: str) -> Check:
    """Greedy answers of the specimen's model as it is now."""
    marked = answer(specimen.lm, under_study, under_study.triggered)
    plain = answer(specimen.lm, under_study, [each.prompt for each in under_study.behavior.gate])
    change = fmean(new - old for new, old in zip(_nll(specimen.lm, under_study), specimen.nll, strict=True))
    return Check(
        organism=under_study.recipe.name,
        seed=under_study.recipe.seed,
        model=specimen.model,
        state=state,
        n=len(plain.texts),
        hits_trigger=marked.hits(under_study.marker),
        hits_plain=plain.hits(under_study.marker),
        refused_trigger=marked.hits(REFUSAL, Outcome.REFUSED),
        nll_ratio=math.exp(change) if abs(change) < MAX_EXPONENT else None,
        recipe=digest(under_study.recipe),
    )


def _nll(lm: LM, under_study: Subject) -> tuple[float, ...]:
    """Of each benign reference answer, in nats a token; NaN where it could not be read."""
    with tempfile.TemporaryDirectory() as scratch:
        choices = Path(scratch) / "choices.safetensors"
        read = read_references(lm, under_study.policy.utility.gate, choices, original=True, batch_size=64)
    return tuple(math.nan if each.nll is None else each.nll for each in read)
