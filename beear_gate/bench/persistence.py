"""Does the removal stay? `deep` repairs an organism, then fine-tuning, an attacker and rounding have a go at it.

A removal may only suppress: backdoors came back after ordinary fine-tuning, and purified models relearned theirs from a
handful of samples ("Uncovering, Explaining, and Mitigating the Superficial Safety of Backdoor Defense", NeurIPS 2024,
arXiv 2410.09838). So each organism is repaired twice: by the demo's policy, and without the path-aware steps of that
paper. A cell (one organism, one seed, one test, one model) is kept as a JSON file as soon as it is measured, with the
checksum of the repaired weights: it is measured again when these are others.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from pathlib import Path
from statistics import fmean
from typing import Any

from safetensors.torch import load_model, save_model
from torch import Tensor

from beear_gate.bench.methods import deep
from beear_gate.bench.persistence_page import page
from beear_gate.bench.persistence_records import ENOUGH, Check, Lasting, Relearned
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
from beear_gate.bench.removal import weights_path
from beear_gate.bench.scores import REFUSAL, answer
from beear_gate.bench.subjects import Subject, subject
from beear_gate.demo import organism_cache
from beear_gate.errors import UsageError
from beear_gate.evaluation.utility import read_references
from beear_gate.lm import LM, load_lm
from beear_gate.organisms import plant, recipe
from beear_gate.records import Outcome, Tick

_CHECKS = ("return", "copies")
_REPAIRED = (*_CHECKS, "relearn")
TESTS = {"repaired": _REPAIRED, "direct": _REPAIRED, "clean": ("return", "relearn")}
"""What is done to which model, in this order."""
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
    cells.mkdir(parents=True, exist_ok=True)
    jobs = [(name, seed) for name in organisms for seed in seeds]
    for done, (name, seed) in enumerate(jobs):
        tick("organisms", done, len(jobs))
        _organism(cells, name, seed, models, tick)
    found = Lasting(
        checks=tuple(Check(**row) for job in jobs for test in _CHECKS for row in _rows(cells, *job, test)),
        relearned=tuple(
            Relearned(**{**row, "tries": tuple((k, hits) for k, hits in row["tries"])})
            for job in jobs
            for row in _rows(cells, *job, "relearn")
        ),
    )
    folder.mkdir(parents=True, exist_ok=True)
    record = {"command": command, "judge": "marker", "seeds": list(seeds), **asdict(found)}
    (folder / "persistence.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    path = folder / "persistence.md"
    path.write_text(page(found, seeds, command), encoding="utf-8")
    return path


def _organism(cells: Path, name: str, seed: int, models: Sequence[str], tick: Tick) -> None:
    """All tests on one organism, repaired in either way or never backdoored."""
    for model in models:
        missing = [test for test in TESTS[model] if not _current(cells, name, seed, test, model)]
        if not missing:
            continue
        under_study = subject(recipe(name, seed), tick)
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
            found = {"weights": _weights(cells, name, seed, model), "rows": [asdict(row) for row in rows]}
            _write(_path(cells, name, seed, test, model), found)


def _repaired(under_study: Subject, model: str, cells: Path, tick: Tick) -> Specimen:
    """The organism after `deep`: as this study or that of removal kept it, or repaired here and kept."""
    lm, of = under_study.load(), under_study.recipe
    nll = _nll(lm, under_study)
    path = _kept(cells, of.name, of.seed, model)
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
    return Relearned(of.name, of.seed, specimen.model, len(prompts), tuple(tries))


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
    )


def _nll(lm: LM, under_study: Subject) -> tuple[float, ...]:
    """Of each benign reference answer, in nats a token; NaN where it could not be read."""
    with tempfile.TemporaryDirectory() as scratch:
        kept = Path(scratch) / "choices.safetensors"
        read = read_references(lm, under_study.policy.utility.gate, kept, original=True, batch_size=64)
    return tuple(math.nan if each.nll is None else each.nll for each in read)


def _rows(cells: Path, name: str, seed: int, test: str) -> Iterator[dict[str, Any]]:
    for model, tests in TESTS.items():
        path = _path(cells, name, seed, test, model)
        if test in tests and path.exists():
            yield from _read(path)["rows"]


def _current(cells: Path, name: str, seed: int, test: str, model: str) -> bool:
    """Whether a cell is there, and of the weights that are kept; without any it is believed."""
    path, weights = _path(cells, name, seed, test, model), _weights(cells, name, seed, model)
    if not path.exists():
        return False
    return weights is None or _read(path)["weights"] == weights


def _read(path: Path) -> dict[str, Any]:
    """A cell; those of versions that kept no checksum are rows alone."""
    cell: dict[str, Any] | list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    return cell if isinstance(cell, dict) else {"weights": "", "rows": cell}


def _weights(cells: Path, name: str, seed: int, model: str) -> str | None:
    """Checksum of the repaired weights; a model without a backdoor is what its recipe makes of it."""
    path = _kept(cells, name, seed, model)
    return sha256(path.read_bytes()).hexdigest() if model != "clean" and path.exists() else None


def _kept(cells: Path, name: str, seed: int, model: str) -> Path:
    """Where repaired weights are."""
    path = weights_path(cells, name, seed)
    return path if model == "repaired" else path.with_name(f"{name}.{seed}.{model}.safetensors")


def _write(path: Path, cell: dict[str, Any]) -> None:
    """Whole or not at all: a study that is stopped while it writes must not find half a cell."""
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(cell, indent=1) + "\n", encoding="utf-8")
    os.replace(partial, path)


def _path(cells: Path, name: str, seed: int, test: str, model: str) -> Path:
    return cells / f"{name}.{seed}.persistence-{test}.{model}.json"
