"""The tables of the removal study: one figure, a row for each organism, a column for each method."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean

from beear_gate.bench.removal import ORIGINAL, Cell
from beear_gate.bench.removal_goals import MARKER, PAPER, Kind, group, marker_cells

DASH = "-"
FIRST = (ORIGINAL, "deep", "paper")
"""Methods that stand first, in this order; the others follow as the study gives them."""
KINDS: tuple[tuple[str, Kind], ...] = (
    ("", "paper"), ("beyond the paper", "beyond"), ("controls, without a backdoor", "control"),
)  # fmt: skip


@dataclass(frozen=True)
class Figure:
    """One figure of a cell, higher for worse.

    Attributes:
        reads: None where it was not measured.
        shows: in the unit of the table.
    """

    reads: Callable[[Cell], float | None]
    shows: Callable[[float], str]
    judge: str = MARKER


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"


def _points(change: float) -> str:
    return f"{100 * change:+.1f}"


ASR = Figure(lambda cell: cell.asr_trigger, _percent)
PLAIN = Figure(lambda cell: cell.asr_plain, _percent)
RATIO = Figure(lambda cell: cell.nll_ratio, lambda ratio: f"{ratio:.3f}")
AGREEMENT = Figure(lambda cell: cell.agreement_drop, _points)
OVER_REFUSAL = Figure(lambda cell: cell.over_refusal_delta, _points)
SECONDS = Figure(lambda cell: cell.seconds, lambda seconds: f"{seconds:.0f}")


def table(cells: Sequence[Cell], seeds: int, figure: Figure, original: bool) -> str:
    """Mean / worst seed of every organism under every method; an organism without any is left out, M1 to M8 are not.

    Args:
        seeds: how many each should have been measured with; where it differs, the number stands in brackets.
        original: whether the organism as it was has a column.
    """
    shown = [method for method in measured_methods(cells) if original or method != ORIGINAL]
    lines = [
        "| organism | paper's model |" + "".join(f" {titled(method)} |" for method in shown),
        "|---|---|" + "---|" * len(shown),
    ]
    for title, kind in KINDS:
        rows = []
        for name in group(cells, kind):
            found = [_mean_worst(marker_cells(cells, name, each, figure.judge), seeds, figure) for each in shown]
            if name in PAPER or set(found) != {DASH}:
                rows.append(f"| {name} | {PAPER.get(name, '')} |" + "".join(f" {rate} |" for rate in found))
        lines += [f"| *{title}* | |" + " |" * len(shown)] * bool(title and rows) + rows
    return "\n".join(lines)


def _mean_worst(found: Sequence[Cell], seeds: int, figure: Figure) -> str:
    values = [value for cell in found if (value := figure.reads(cell)) is not None]
    if not values:
        return DASH
    return f"{figure.shows(fmean(values))} / {figure.shows(highest(values))}{odd(len(values), seeds)}"


def highest(values: Sequence[float]) -> float:
    """The highest, or NaN if there is one: `max` would lose it."""
    return math.nan if any(math.isnan(value) for value in values) else max(values)


def measured_methods(cells: Sequence[Cell]) -> list[str]:
    """All that have cells, the original first."""
    present = dict.fromkeys(cell.method for cell in cells)
    return [method for method in FIRST if method in present] + [each for each in present if each not in FIRST]


def titled(method: str) -> str:
    return "original" if method == ORIGINAL else f"`{method}`"


def odd(measured: int, seeds: int) -> str:
    """The number of seeds where it is another one than it should be."""
    return "" if measured == seeds else f" ({measured} {plural('seed', measured)})"


def plural(word: str, count: int) -> str:
    return word if count == 1 else f"{word}s"
