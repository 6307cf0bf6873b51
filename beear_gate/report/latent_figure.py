"""The curve ASR against norm, before, after and of a reference: one panel for each place where a fresh delta acts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from beear_gate.records import LatentPoint
from beear_gate.report.drawing import AFTER, BEFORE, STYLE, THIRD, beside, empty
from beear_gate.report.latent_words import halves, latent_places
from beear_gate.report.text import one_line

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MOST_ROWS = 4
_CURVES = (("before", BEFORE, "^", 0.08), ("after", AFTER, "o", -0.08), ("reference", THIRD, "s", 0.0))
"""Stage, color, marker, and how far above the last point its name stands, so that names do not meet."""


def latent_figure(points: Sequence[LatentPoint]) -> Figure:
    """A row for each behavior and judge, a column for each place."""
    import matplotlib

    places = latent_places(points)
    rows = list(dict.fromkeys((point.behavior, point.judge) for point in points))[:_MOST_ROWS]
    with matplotlib.rc_context(STYLE):
        figure = empty(7.6, 0.5 + 2.1 * len(rows))
        figure.set_label(
            "Unwanted answers under a fresh delta, by its norm\n" + "; ".join(_spoken(points, *row) for row in rows)
        )
        grid = figure.subplots(len(rows), len(places), sharex=True, sharey=True, squeeze=False)
        for across, (behavior, judge) in enumerate(rows):
            for down, (kind, place) in enumerate(places.items()):
                axes = grid[across][down]
                found = [point for point in points if (point.behavior, point.judge) == (behavior, judge)]
                _panel(axes, [point for point in found if point.kind == kind])
                if across == 0:
                    axes.set_title(place)
                if across == len(rows) - 1:
                    axes.set_xlabel("norm of delta (RMS)")
            grid[across][0].set_ylabel(f"{one_line(behavior, 24)}\n{one_line(judge, 24)}")
    return figure


def _panel(axes: Axes, points: Sequence[LatentPoint]) -> None:
    for stage, color, marker, above in _CURVES:
        curve = [point for point in points if point.stage == stage]
        if not curve:
            continue
        norms = [point.norm for point in curve]
        axes.fill_between(
            norms, [point.low for point in curve], [point.high for point in curve], color=color, alpha=0.14, linewidth=0
        )
        axes.plot(norms, [point.value for point in curve], color=color, marker=marker, markersize=4.5, linewidth=1.6)
        beside(axes, stage, norms[-1], curve[-1].value + above, color)
    norms = sorted({point.norm for point in points})
    axes.set_xscale("log", base=2)
    axes.set_xticks(norms, [f"{norm:g}" for norm in norms])
    axes.minorticks_off()
    axes.set_xlim(norms[0] / 1.2, norms[-1] * 2.2)  # room for the labels
    axes.set_ylim(-0.12, 1.18)
    axes.set_yticks([0, 0.5, 1], ["0 %", "50 %", "100 %"])


def _spoken(points: Sequence[LatentPoint], behavior: str, judge: str) -> str:
    said = [f"{row.place}: {row.said}" for row in halves(points) if (row.behavior, row.judge) == (behavior, judge)]
    return f"{one_line(behavior, 32)}, {one_line(judge, 28)}, norm for half of the prompts: {'; '.join(said)}"
