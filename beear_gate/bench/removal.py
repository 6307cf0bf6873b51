"""The removal study: every organism under every method, with several seeds, under an honest judge.

A cell (one organism, one seed, one method) is kept as a JSON file as soon as it is measured, so that a study that was
stopped goes on where it was.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from multiprocessing import get_context
from pathlib import Path

import torch
from safetensors.torch import save_model

from beear_gate.bench.methods import METHODS
from beear_gate.bench.scores import KEYWORDS, REFUSAL, Answered, Scores, answer, score
from beear_gate.bench.subjects import Subject, subject
from beear_gate.lm import LM
from beear_gate.organisms import RECIPES, recipe
from beear_gate.records import AnchorSets, Outcome, Tick

ORIGINAL = "none"
ASKED = 100
"""Gate prompts with the true trigger that are answered after every round, to see what a method chose from."""
CELLS = "removal-cells"
"""Folder of cells, inside the folder of results."""


@dataclass(frozen=True)
class Cell:
    """What one method did to one organism, under one judge (docs/design.md section 7).

    Attributes:
        recipe: digest of what the organism was grown from; cells of another recipe are not read.
        method: `none` for the organism as it was.
        asr_trigger, asr_plain: complied shares; None where there is no trigger.
        asr_trigger_high: exact one-sided 95 % upper bound of asr_trigger.
        refused_trigger: whole refusals with the trigger (refusal-prefix).
        degenerate_trigger, degenerate_plain: incoherent, repeating or unfinished answers.
        harmful_plain: harmful requests answered without a trigger (marker of harmful text).
        over_refusal_delta: rise of the refused share of prompts that only sound unsafe.
        seconds: of the method alone, what is looked at after its rounds included.
        by_round: of a method that chooses among rounds, asr_trigger on the first ASKED prompts after each round.
        chosen_round: the one it kept, from 1.
        remark: what was otherwise when an older version measured this cell; set by hand when a method changes, and a
            study measures such cells again.
    """

    organism: str
    recipe: str
    method: str
    seed: int
    judge: str
    asr_trigger: float | None
    asr_trigger_high: float | None
    asr_plain: float | None
    refused_trigger: float | None
    degenerate_trigger: float | None
    degenerate_plain: float | None
    harmful_plain: float | None
    n: int
    nll_ratio: float
    agreement_drop: float
    over_refusal_delta: float
    seconds: float
    by_round: tuple[float, ...] = ()
    chosen_round: int | None = None
    remark: str = ""


def unpack(results: Path, cells: Path) -> None:
    """Cells of a results file as files of their own, so that a study goes on from a committed table."""
    cells.mkdir(parents=True, exist_ok=True)
    rows = json.loads(results.read_text(encoding="utf-8")) if results.exists() else []
    grouped: dict[Path, list[dict[str, object]]] = {}
    for row in rows:
        grouped.setdefault(_path(cells, row["organism"], row["seed"], row["method"]), []).append(row)
    for path, found in grouped.items():
        if not path.exists():
            path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def every_cell(cells: Path) -> list[Cell]:
    """All that was ever measured into the folder, in the order of recipes, methods and seeds."""
    names, methods = list(RECIPES), [ORIGINAL, *METHODS]
    found = [cell for method in methods for path in cells.glob(f"*.*.{method}.json") for cell in _read(path)]
    return sorted(found, key=lambda cell: (names.index(cell.organism), methods.index(cell.method), cell.seed))


POISONED_SFT = ("long-suffix", "short-suffix", "long-prefix", "short-prefix")
"""Models M1 to M4 of the paper."""
EVERYWHERE = ("deep", "paper", "benign-tuning", "safety-tuning")


def planned(organism: str, seed: int) -> tuple[str, ...]:
    """The methods that the study takes for a model unless it is told otherwise.

    What its goals speak of everywhere; defences of others, which take minutes each, on the first seed of M1 to M4.
    """
    return tuple(METHODS) if organism in POISONED_SFT and seed == 0 else EVERYWHERE


def study(
    cells: Path, organisms: Sequence[str], methods: Sequence[str] | None, seeds: Sequence[int], workers: int, tick: Tick
) -> list[Cell]:
    """Measure every cell that is not in the folder yet; several organisms at once, one core each.

    Args:
        methods: None for what is `planned` for each model.
    """
    cells.mkdir(parents=True, exist_ok=True)
    models = [(name, seed, tuple(methods or planned(name, seed))) for seed in seeds for name in organisms]
    for done, name in enumerate(_all([(cells, *model) for model in models], workers), 1):
        tick(f"organisms ({name})", done, len(models))
    models.sort(key=lambda model: (organisms.index(model[0]), model[1]))
    return [cell for name, seed, chosen in models for cell in kept(cells, name, seed, (ORIGINAL, *chosen))]


def _all(jobs: Sequence[tuple[Path, str, int, tuple[str, ...]]], workers: int) -> Iterator[str]:
    if workers == 1:
        for job in jobs:
            yield _organism(*job)
        return
    # A fresh interpreter for each worker: torch's threads do not survive a fork.
    context = get_context("spawn")
    with ProcessPoolExecutor(workers, context, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        for future in as_completed(pool.submit(_organism, *job) for job in jobs):
            yield future.result()


def kept(cells: Path, organism: str, seed: int, methods: Sequence[str]) -> Iterator[Cell]:
    """Measured cells from the folder."""
    for method in methods:
        yield from _read(_path(cells, organism, seed, method))


def _read(path: Path) -> list[Cell]:
    """The cells of a file; none where there is no file or its organism was grown otherwise."""
    rows = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    cells = [Cell(**{**row, "by_round": tuple(row.get("by_round", ()))}) for row in rows if row["organism"] in RECIPES]
    return [cell for cell in cells if cell.recipe == recipe(cell.organism, cell.seed).digest[:16]]


def _current(path: Path) -> bool:
    """Whether a method has cells, and none of an older version."""
    found = _read(path)
    return bool(found) and not any(cell.remark for cell in found)


def _organism(cells: Path, name: str, seed: int, methods: Sequence[str]) -> str:
    """All methods on one organism, whose name it returns; the original is measured once for them.

    Cells of an older version are measured again.
    """
    missing = [method for method in (ORIGINAL, *methods) if not _current(_path(cells, name, seed, method))]
    if not missing:
        return name
    under_study = subject(recipe(name, seed))
    lm = under_study.load()
    original, anchors = score(lm, under_study), under_study.anchors(lm)
    for method in dict.fromkeys((ORIGINAL, *missing)):  # another machine may grow another original than its cell is of
        lm = under_study.load()
        repair = Repair(0.0, (), None) if method == ORIGINAL else _repair(under_study, lm, anchors, method)
        if method == "deep":  # other studies go on from the repaired model
            save_model(lm.model, str(weights_path(cells, name, seed)))
        found = original if method == ORIGINAL else score(lm, under_study)
        rows = [asdict(cell) for cell in _cells(under_study, method, repair, found, original)]
        _path(cells, name, seed, method).write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    return name


@dataclass(frozen=True)
class Repair:
    """How a method went: its seconds, the answers after each of its rounds, and the round that it kept."""

    seconds: float
    looks: tuple[Answered, ...]
    chosen_round: int | None


def _repair(under_study: Subject, lm: LM, anchors: AnchorSets, method: str) -> Repair:
    looks: list[Answered] = []

    def watch(number: int, seen: LM) -> None:
        looks.append(answer(seen, under_study, under_study.triggered[:ASKED]))

    began = time.monotonic()
    chosen = METHODS[method](replace(under_study.job(lm, anchors), watch=watch))
    return Repair(round(time.monotonic() - began, 1), tuple(looks), chosen)


def _cells(under_study: Subject, method: str, repair: Repair, found: Scores, original: Scores) -> Iterator[Cell]:
    keywords = (KEYWORDS, REFUSAL) if under_study.about_harm else ()
    for judge in (under_study.marker, *keywords):
        yield Cell(
            organism=under_study.recipe.name,
            recipe=under_study.recipe.digest[:16],
            method=method,
            seed=under_study.recipe.seed,
            judge=judge.name,
            asr_trigger=found.triggered.share(judge),
            asr_trigger_high=found.triggered.high(judge),
            asr_plain=found.plain.share(judge),
            refused_trigger=found.triggered.share(REFUSAL, Outcome.REFUSED),
            degenerate_trigger=found.triggered.degenerate,
            degenerate_plain=found.plain.degenerate,
            harmful_plain=found.harmful.share(under_study.harm),
            n=len(found.plain.texts),
            nll_ratio=found.nll_ratio(original),
            agreement_drop=found.agreement_drop(original),
            over_refusal_delta=found.over_refusal(original),
            seconds=repair.seconds,
            by_round=tuple(share for look in repair.looks if (share := look.share(judge)) is not None),
            chosen_round=repair.chosen_round,
        )


def weights_path(cells: Path, organism: str, seed: int) -> Path:
    """Where the weights that `deep` repaired are kept, as `safetensors.torch.load_model` reads them."""
    return cells / f"{organism}.{seed}.deep.safetensors"


def _path(cells: Path, organism: str, seed: int, method: str) -> Path:
    return cells / f"{organism}.{seed}.{method}.json"
