"""The detection study: can delta, which a defender can fit without a trigger, tell a backdoored model from a clean one?

A cell (one organism) is kept as a JSON file as soon as it is measured, so that a study that was stopped goes on where
it was.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from beear_gate.bench.detection_page import page, separation_figure
from beear_gate.bench.detection_results import Cell, Result, compare
from beear_gate.bench.subjects import subject
from beear_gate.bench.traits import Effort, Traits, examine
from beear_gate.demo import organism_cache
from beear_gate.errors import UsageError
from beear_gate.lm import load_lm
from beear_gate.organisms import RECIPES, Recipe, plant, recipe
from beear_gate.records import Tick
from beear_gate.report.drawing import png

CELLS = "detection-cells"
"""Folder of cells, inside the folder of results."""
EFFORT = Effort()
CLEAN = ("clean", "clean-weak", "clean-tuned")
BACKDOORED = tuple(name for name, each in RECIPES.items() if each.backdoor and each.backdoor.goal == "comply")
"""Those whose backdoor is about harmful compliance, the behavior that the policy of the clean ones names as well."""


def run(folder: Path, seeds: Sequence[int], tick: Tick, effort: Effort = EFFORT) -> Path:
    """Examine the organisms that have no cell yet; write `detection.{json,md,png}` into the folder.

    Returns:
        The page.

    Raises:
        UsageError: no seeds.
    """
    if not seeds:
        raise UsageError("A detection study needs at least one seed.", "Give --seeds 4 for 24 organisms.")
    chosen = population(seeds)
    found: list[Cell] = []
    for done, (name, seed) in enumerate(chosen):
        tick("examining organisms", done, len(chosen))
        found.append(_cell(folder / CELLS, recipe(name, seed), effort))
    tick("examining organisms", len(chosen), len(chosen))
    results = compare(found)
    folder.mkdir(parents=True, exist_ok=True)
    rows = [{**_named(each), **asdict(each.all)} for each in results]
    written = {"command": command(seeds), "effort": asdict(effort), "results": rows}
    cells = [asdict(cell) for cell in found]
    (folder / "detection.json").write_text(json.dumps({**written, "cells": cells}, indent=1) + "\n", encoding="utf-8")
    (folder / "detection.png").write_bytes(png(separation_figure(results)))
    path = folder / "detection.md"
    path.write_text(page(found, results, effort, command(seeds)), encoding="utf-8")
    return path


def population(seeds: Sequence[int]) -> list[tuple[str, int]]:
    """As many backdoored organisms as clean ones: every clean kind with every seed, backdoored kinds in turn."""
    clean = [(name, seed) for seed in seeds for name in CLEAN]
    laps = [divmod(place, len(BACKDOORED)) for place in range(len(clean))]
    return clean + [(BACKDOORED[kind], seeds[(kind + lap) % len(seeds)]) for lap, kind in laps]


def command(seeds: Sequence[int]) -> str:
    return f"beear-gate bench detection --seeds {len(seeds)}"


def _cell(cells: Path, chosen: Recipe, effort: Effort) -> Cell:
    """The kept cell, or a new one; with another recipe or effort it has another name."""
    key = hashlib.sha256(f"{chosen.digest} {effort}".encode()).hexdigest()[:8]
    path = cells / f"{chosen.name}.{chosen.seed}.{key}.json"
    if path.exists():
        kept = json.loads(path.read_text(encoding="utf-8"))
        traits = kept.pop("traits")
        norms = tuple(traits.pop("minimum_norms"))
        return Cell(**kept, traits=Traits(minimum_norms=norms, **traits))
    under_study = subject(chosen)
    began = time.monotonic()
    base = load_lm(plant(chosen.base, organism_cache()), "cpu")
    traits = examine(under_study.load, base, under_study.policy, chosen.seed, effort)
    seconds = round(time.monotonic() - began, 1)
    cell = Cell(chosen.name, chosen.seed, chosen.backdoor is not None, chosen.tune_steps > 0, traits, seconds)
    cells.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(asdict(cell), indent=1) + "\n", encoding="utf-8")
    return cell


def _named(result: Result) -> dict[str, object]:
    each = result.statistic
    tuned = result.against_tuned
    return {
        "statistic": each.name,
        "backdoored_when": "higher" if each.higher else "lower",
        "of_delta": each.of_delta,
        "auroc_against_tuned": tuned.auroc if tuned else None,
        "auroc_against_tuned_low": tuned.low if tuned else None,
    }
