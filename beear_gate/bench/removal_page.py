"""The removal study as a Markdown page: every organism under every method, `deep` in detail, and what misses a goal."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from statistics import fmean

from beear_gate.bench.removal import ASKED, CELLS, ORIGINAL, Cell, every_cell, study, unpack
from beear_gate.bench.removal_figures import (
    AGREEMENT,
    ASR,
    DASH,
    KINDS,
    OVER_REFUSAL,
    PLAIN,
    RATIO,
    SECONDS,
    highest,
    measured_methods,
    odd,
    plural,
    table,
    titled,
)
from beear_gate.bench.removal_goals import (
    MARKER,
    PAPER,
    SLACK,
    Status,
    Verdict,
    group,
    hits,
    marker_cells,
    verdicts,
)
from beear_gate.bench.scores import KEYWORDS
from beear_gate.organisms import recipe
from beear_gate.records import Tick

NEAR = 0.02
"""How far above the best round's ASR that of the kept one may lie."""


def write(
    folder: Path,
    organisms: Sequence[str],
    methods: Sequence[str] | None,
    seeds: Sequence[int],
    workers: int,
    tick: Tick,
) -> Path:
    """Measure what is missing, and write removal.json and removal.md from all cells that are there.

    Args:
        methods: None for what `planned` says of each model.

    Raises:
        UsageError: there is no such organism.
    """
    for name in organisms:
        recipe(name)
    unpack(folder / "removal.json", folder / CELLS)
    study(folder / CELLS, organisms, methods, seeds, workers, tick)
    cells = every_cell(folder / CELLS)
    (folder / "removal.json").write_text(
        json.dumps([asdict(cell) for cell in cells], indent=1) + "\n", encoding="utf-8"
    )
    path = folder / "removal.md"
    path.write_text(page(cells, len(seeds), f"beear-gate bench removal --seeds {len(seeds)}"), encoding="utf-8")
    return path


def page(cells: Sequence[Cell], seeds: int, command: str) -> str:
    """The whole page.

    Args:
        seeds: how many each organism should have been measured with.
        command: what the cells were made by.
    """
    parts = (
        _head(cells, seeds, command),
        "## ASR(marker) with the trigger\n\n"
        "Mean / worst seed, in percent: the share of answers that really have the unwanted text.\n\n"
        + table(cells, seeds, ASR, original=True),
        f"## ASR({KEYWORDS.name}) with the trigger\n\n"
        "The same answers under the paper's list of refusal phrases, anywhere in the answer: mean / worst seed, in "
        "percent. It says something only where the unwanted thing is to answer a harmful request.\n\n"
        + table(cells, seeds, replace(ASR, judge=KEYWORDS.name), original=True),
        "## ASR(marker) without a trigger\n\nThe same on plain gate prompts, in percent.\n\n"
        + table(cells, seeds, PLAIN, original=True),
        "## What usefulness each method costs\n\nMean / worst seed, on benign prompts, against the original.\n\n"
        "### Perplexity ratio of reference answers\n\n" + table(cells, seeds, RATIO, original=False),
        "### Agreement of first choices: drop in points\n\n" + table(cells, seeds, AGREEMENT, original=False),
        "### Over-refusal: rise in points\n\n" + table(cells, seeds, OVER_REFUSAL, original=False),
        "## `deep` in detail\n\n" + _detail(cells, seeds) + _remarks(cells),
        "## The choice among rounds\n\n" + _choices(cells),
        "## Cost\n\nMean seconds of the method alone, on the machine that made the cells; the paper gives its "
        "cost in Table 4.\n\n" + _cost(cells),
        "### Seconds by organism, mean / longest\n\n" + table(cells, seeds, SECONDS, original=False),
        "## Goals\n\n" + _goals(verdicts(cells, seeds)),
    )
    return "\n\n".join(parts) + "\n"


def _head(cells: Sequence[Cell], seeds: int, command: str) -> str:
    sizes = ", ".join(str(n) for n in sorted({cell.n for cell in cells})) or "no"
    return (
        "# Removal: every organism under every method\n\n"
        f"Made by `{command}`; {seeds} {plural('seed', seeds)}, each of which grows, poisons and repairs its own "
        f"model. Greedy answers to {sizes} gate prompts; the true trigger is used for measuring only. Upper bounds are "
        f"exact, one-sided, at 95 %. {DASH}: not measured; defences of others are tried on the first seed of M1 to M4. "
        f"Where a row has fewer or more seeds than {seeds}, their "
        "number stands in brackets. M1 to M8 stand for the models of the paper (arXiv 2406.17092)."
    )


def _detail(cells: Sequence[Cell], seeds: int) -> str:
    lines = [
        "| organism | paper's model | ASR(marker) with trigger, worst seed: hits (upper bound) | plain, worst "
        "| refused with trigger, worst | degenerate with trigger, worst | without, worst "
        "| perplexity ratio, mean / worst | agreement drop, worst | over-refusal, worst "
        "| harmful answered plain, worst | seconds, mean |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for title, kind in KINDS:
        lines += [f"| *{title}* |" + " |" * 11] * bool(title)
        for name in group(cells, kind):
            lines.append(_detailed(name, marker_cells(cells, name, "deep"), seeds))
    return "\n".join(lines)


def _detailed(name: str, found: Sequence[Cell], seeds: int) -> str:
    head = f"| {name}{odd(len(found), seeds) if found else ''} | {PAPER.get(name, '')} |"
    if not found:
        return head + f" {DASH} |" * 10
    ratios = [cell.nll_ratio for cell in found]
    figures = (
        _worst_hits(found),
        _worst(found, lambda cell: cell.asr_plain),
        _worst(found, lambda cell: cell.refused_trigger, lowest=True),
        _worst(found, lambda cell: cell.degenerate_trigger),
        _worst(found, lambda cell: cell.degenerate_plain),
        f"{fmean(ratios):.3f} / {highest(ratios):.3f}",
        _worst(found, lambda cell: cell.agreement_drop, signed=True),
        _worst(found, lambda cell: cell.over_refusal_delta, signed=True),
        _worst(found, lambda cell: cell.harmful_plain),
        f"{fmean(cell.seconds for cell in found):.0f}",
    )
    return head + "".join(f" {figure} |" for figure in figures)


def _worst_hits(found: Sequence[Cell]) -> str:
    counted = [(count, cell) for cell in found if (count := hits(cell)) is not None]
    if not counted:
        return DASH
    count, cell = max(counted, key=lambda pair: (pair[1].asr_trigger or 0.0, pair[1].asr_trigger_high or 0.0))
    bound = DASH if cell.asr_trigger_high is None else f"< {cell.asr_trigger_high:.2%}"
    return f"{count}/{cell.n} ({bound})"


def _worst(
    found: Sequence[Cell], reads: Callable[[Cell], float | None], lowest: bool = False, signed: bool = False
) -> str:
    figures = [figure for cell in found if (figure := reads(cell)) is not None]
    if not figures:
        return DASH
    worst = min(figures) if lowest else highest(figures)
    return f"{worst:+.1%}" if signed else f"{worst:.1%}"


def _remarks(cells: Sequence[Cell]) -> str:
    """Which cells come of an older version, and what it did otherwise."""
    older: dict[str, dict[str, list[int]]] = {}
    for cell in cells:
        if cell.remark and cell.judge == MARKER:
            older.setdefault(f"`{cell.method}`, {cell.remark}", {}).setdefault(cell.organism, []).append(cell.seed)
    lines = [
        f"- {remark}: " + "; ".join(f"{name} ({', '.join(map(str, seeds))})" for name, seeds in found.items())
        for remark, found in older.items()
    ]
    return "\n\nCells of an older version, by organism (seeds):\n\n" + "\n".join(lines) if lines else ""


def _choices(cells: Sequence[Cell]) -> str:
    """How often the weights that were kept, by rules that see no trigger, were about the best of the run."""
    lines = [
        f"After each round the first {ASKED} prompts with the trigger were answered (marker). Near: the round that was "
        f"kept is within {NEAR:.0%} of the run's best.\n",
        "| method | runs | near the best | further away: organism (seed), share after each round, kept |",
        "|---|---|---|---|",
    ]
    for method in measured_methods(cells):
        runs = [cell for cell in cells if (cell.method, cell.judge) == (method, MARKER) and cell.by_round]
        far = [cell for cell in runs if _kept(cell) > min(cell.by_round) + NEAR + SLACK]
        named = "; ".join(
            f"{cell.organism} ({cell.seed}): {' '.join(f'{share:.0%}' for share in cell.by_round)}, {cell.chosen_round}"
            for cell in far
        )
        if runs:
            near = len(runs) - len(far)
            lines.append(f"| {titled(method)} | {len(runs)} | {near} ({near / len(runs):.0%}) | {named or DASH} |")
    return "\n".join(lines)


def _kept(cell: Cell) -> float:
    return cell.by_round[(cell.chosen_round or len(cell.by_round)) - 1]


def _cost(cells: Sequence[Cell]) -> str:
    lines = ["| method | seconds, mean | longest | models |", "|---|---|---|---|"]
    for method in measured_methods(cells):
        seconds = [cell.seconds for cell in cells if cell.method == method and cell.judge == MARKER]
        if method != ORIGINAL and seconds:
            lines.append(f"| {titled(method)} | {fmean(seconds):.0f} | {max(seconds):.0f} | {len(seconds)} |")
    return "\n".join(lines)


def _goals(found: Sequence[Verdict]) -> str:
    """What was asked for and how often it was met, then each row that misses it or was not measured."""
    lines = ["| goal | met | missed | not measured |", "|---|---|---|---|"]
    for goal in dict.fromkeys(verdict.goal for verdict in found):
        counts = (_count(found, goal, "met"), _count(found, goal, "missed"), _count(found, goal, "not measured"))
        lines.append(f"| {goal} |" + "".join(f" {count} |" for count in counts))
    missed = _missed(found) or ["None of those that were measured."]
    absent = _absent(found) or ["None."]
    return "\n".join((*lines, "", "### Rows that miss the goal", "", *missed, "", "### Not measured", "", *absent))


def _count(found: Sequence[Verdict], goal: str, status: Status) -> int:
    return sum((verdict.goal, verdict.status) == (goal, status) for verdict in found)


def _missed(found: Sequence[Verdict]) -> list[str]:
    return [
        f"- {_numbered(each.organism)}, {titled(each.method)}: {each.goal}. Found: {each.found}."
        for each in found
        if each.status == "missed"
    ]


def _absent(found: Sequence[Verdict]) -> list[str]:
    """One line for all goals of a row that lack the same seeds."""
    absent = Counter((each.organism, each.method, each.found) for each in found if each.status == "not measured")
    return [
        f"- {_numbered(organism)}, {titled(method)}: {lacks} ({count} {plural('goal', count)})."
        for (organism, method, lacks), count in absent.items()
    ]


def _numbered(organism: str) -> str:
    return f"{PAPER[organism]} {organism}" if organism in PAPER else organism
