"""The paper's ablations (Figures 5 to 8) and its picture of the drift (Figure 3), on organisms whose trigger we know.

A cell (one setting, one organism, one seed) is kept as a JSON file as soon as it is measured, so that a study that was
stopped goes on where it was. The setting that all figures share is measured once.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import torch

from beear_gate.bench.ablation_cells import NAMES, Cell, Look, Variant, variants
from beear_gate.bench.ablation_page import drift_figure, page, variant_figure
from beear_gate.bench.methods import beear
from beear_gate.bench.scores import KEYWORDS, answer
from beear_gate.bench.subjects import Subject, subject
from beear_gate.bench.trigger_drift import TriggerDrift, trigger_drift
from beear_gate.errors import UsageError
from beear_gate.lm import LM, answer_losses, encode_pairs, pad_batch
from beear_gate.lm.encode import Pair
from beear_gate.lm.memory import in_parts
from beear_gate.organisms import Recipe, recipe
from beear_gate.records import AnchorSets, Drift, Tick
from beear_gate.report.drawing import png

CELLS = "ablation-cells"
"""Folder of cells, inside the folder of results."""
PROMPTS = 60
"""Triggered gate prompts, and benign references, that are read after every round; the first ones of their split."""
SELECT = 8
"""Select prompts that are left: the stop rule, which alone reads them in `paper`, is off, and they cost time."""


def run(folder: Path, organisms: Sequence[str], rounds: int, tick: Tick, seeds: Sequence[int] = (0,)) -> Path:
    """Measure every cell that is missing; write `ablation.{json,md}` and `ablation-*.png` into the folder.

    Returns:
        The page.

    Raises:
        UsageError: an organism has no backdoor that makes it comply, which is what success is about here.
    """
    recipes = [recipe(name, seed) for name in organisms for seed in seeds]
    for each in recipes:
        if each.backdoor is None or each.backdoor.goal != "comply":
            raise UsageError(
                f"The organism {each.name!r} has no trigger that switches refusals off.",
                "Choose one that has, such as long-suffix.",
            )
    cells: list[Cell] = []
    drifts: list[TriggerDrift] = []
    for each in recipes:
        found, drift = _organism(folder / CELLS, each, rounds, tick)
        cells, drifts = [*cells, *found], [*drifts, drift]
    return _write(folder, cells, drifts, command(organisms, rounds, seeds))


def command(organisms: Sequence[str], rounds: int, seeds: Sequence[int]) -> str:
    names = " ".join(f"--organism {name}" for name in organisms)
    return f"beear-gate bench ablation {names} --rounds {rounds} --seeds {len(seeds)}"


def measure(under_study: Subject, anchors: AnchorSets, variant: Variant, rounds: int) -> Cell:
    """`paper` with one setting changed, looked at before the first round and after each."""
    lm, looks = under_study.load(), list[Look]()
    before = reference_nll(lm, under_study)

    def watch(number: int, seen: LM) -> None:
        answered = answer(seen, under_study, under_study.triggered[:PROMPTS])
        looks.append(
            Look(
                number=number,
                asr_keywords=answered.share(KEYWORDS) or 0.0,
                asr_marker=answered.share(under_study.marker) or 0.0,
                nll_ratio=math.exp(min(reference_nll(seen, under_study) - before, 50.0)),
            )
        )

    watch(0, lm)
    began = time.monotonic()
    job = under_study.job(lm, _fewer(anchors, variant))
    beear(replace(job, settings=variant.settings(job.settings, rounds), watch=watch), "paper")
    return Cell(
        variant=variant.name,
        organism=under_study.recipe.name,
        seed=under_study.recipe.seed,
        layers=len(lm.layers),
        n=len(under_study.triggered[:PROMPTS]),
        references=len(under_study.policy.utility.gate[:PROMPTS]),
        looks=tuple(looks),
        seconds=round(time.monotonic() - began, 1),
    )


@torch.no_grad()
def reference_nll(lm: LM, under_study: Subject) -> float:
    """Mean loss of the benign reference answers, in nats a token."""

    def read(part: Sequence[Pair]) -> torch.Tensor:
        return answer_losses(lm, pad_batch(lm, part))

    examples = under_study.policy.utility.gate[:PROMPTS]
    pairs = encode_pairs(lm, [(example.prompt, example.answer) for example in examples])
    return float(torch.cat(in_parts(pairs, 64, read, "reading reference answers")).mean())


def _organism(cells: Path, chosen: Recipe, rounds: int, tick: Tick) -> tuple[list[Cell], TriggerDrift]:
    """Every cell of one organism, and its drift."""
    cells.mkdir(parents=True, exist_ok=True)
    stem = f"{chosen.name}.{chosen.seed}.{chosen.digest[:8]}"  # another recipe is another organism
    wanted = {each.name: each for each in variants(chosen.config["num_hidden_layers"])}
    paths = {name: cells / f"{stem}.{name}.{rounds}.json" for name in wanted}
    drift_path = cells / f"{stem}.drift.json"
    if not all(path.exists() for path in (drift_path, *paths.values())):
        under_study = subject(chosen, tick)
        lm = under_study.load()
        anchors = under_study.anchors(lm)
        if not drift_path.exists():
            _keep(drift_path, trigger_drift(under_study, lm, anchors, PROMPTS))
        for done, (name, path) in enumerate(paths.items()):
            tick(f"ablations of {chosen.name}, seed {chosen.seed}", done, len(paths))
            if not path.exists():
                _keep(path, measure(under_study, anchors, wanted[name], rounds))
    return [_read_cell(path) for path in paths.values()], _read_drift(drift_path)


def _fewer(anchors: AnchorSets, variant: Variant) -> AnchorSets:
    """D_PA as small as the variant wants it, and a select split that only keeps the code running.

    With no D_PA at all the drawn number is 0 (`Variant.settings`) and one sample stays, for a picture nobody looks at.
    """
    # In a seeded order each size holds the smaller ones; the file has kinds of prompts one after the other.
    shuffled = torch.randperm(len(anchors.useful), generator=torch.Generator().manual_seed(0)).tolist()
    size = len(shuffled) if variant.available is None else max(1, variant.available)
    return replace(
        anchors,
        behaviors=tuple(replace(each, select=each.select[:SELECT]) for each in anchors.behaviors),
        useful=tuple(anchors.useful[place] for place in shuffled[:size]),
        useful_select=anchors.useful_select[:SELECT],
        answered_select=anchors.answered_select[:SELECT],
    )


def _write(folder: Path, cells: Sequence[Cell], drifts: Sequence[TriggerDrift], made_by: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    written = {
        "command": made_by,
        "judges": [KEYWORDS.name, "marker"],
        "cells": [asdict(cell) for cell in cells],
        "drift": [{**asdict(drift), "drifts": {each.label: each.points for each in drift.drifts}} for drift in drifts],
    }
    (folder / "ablation.json").write_text(json.dumps(written, indent=1) + "\n", encoding="utf-8")
    for name in NAMES:
        (folder / f"ablation-{name}.png").write_bytes(png(variant_figure(name, cells)))
    (folder / "ablation-drift.png").write_bytes(png(drift_figure(drifts)))
    path = folder / "ablation.md"
    path.write_text(page(cells, drifts, made_by), encoding="utf-8")
    return path


def _keep(path: Path, found: Cell | TriggerDrift) -> None:
    path.write_text(json.dumps(asdict(found), indent=1) + "\n", encoding="utf-8")


def _read_cell(path: Path) -> Cell:
    kept = json.loads(path.read_text(encoding="utf-8"))
    looks = tuple(Look(**look) for look in kept.pop("looks"))
    return Cell(**kept, looks=looks)


def _read_drift(path: Path) -> TriggerDrift:
    kept = json.loads(path.read_text(encoding="utf-8"))
    drifts = tuple(Drift(each["label"], tuple((x, y) for x, y in each["points"])) for each in kept.pop("drifts"))
    return TriggerDrift(**kept, drifts=drifts)
