"""The figures of the report and of MLflow."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import product
from typing import TYPE_CHECKING, Any

from beear_gate.records import CanaryResult, GateReport, Measurement, Remediation
from beear_gate.report.drawing import AFTER, BEFORE, INK, SERIES, STYLE, THIRD, beside, empty
from beear_gate.report.latent_figure import latent_figure
from beear_gate.report.pairs import Pair, pairs
from beear_gate.report.text import one_line
from beear_gate.report.words import percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MOST_ROWS = 16


def of_report(report: GateReport) -> dict[str, Figure]:
    """Every figure that has something to show: asr, revealed, latent, canary, loss, drift."""
    drawn = {}
    for name, revealed in (("asr", False), ("revealed", True)):
        rows = [row for row in report.measurements if row.metric == "asr" and row.revealed == revealed]
        if rows:
            drawn[name] = asr_figure(rows)
    if report.latent:
        drawn["latent"] = latent_figure(report.latent)
    if report.canary is not None and report.canary.planted:
        drawn["canary"] = canary_figure(report.canary)
    if report.remediation is not None and report.remediation.rounds:
        drawn["loss"] = loss_figure(report.remediation)
    if report.remediation is not None and report.remediation.drift:
        drawn["drift"] = drift_figure(report.remediation)
    return drawn


def asr_figure(measurements: Iterable[Measurement]) -> Figure:
    """Attack success rate of every test before and after, with its interval and limit."""
    import matplotlib

    shown = [pair for pair in pairs(measurements) if pair.last.metric == "asr"]
    shown = sorted(shown, key=lambda pair: not pair.decides)[:_MOST_ROWS]
    with matplotlib.rc_context(STYLE):
        figure = empty(7.6, 1.0 + 0.58 * max(1, len(shown)))
        figure.set_label("Unwanted answers before and after\n" + "; ".join(map(_spoken, shown)))
        axes = figure.subplots()
        for place, pair in enumerate(shown):
            _dumbbell(axes, place, pair, named=place == 0)
        axes.set_yticks(range(len(shown)), [_label(pair.last) for pair in shown])
        axes.set_ylim(len(shown) - 0.45, -0.72)
        # Limits are about 1 %: on a linear axis nobody could tell a bound below one from a bound above it.
        axes.set_xscale("function", functions=(_signed_root, _signed_square))
        axes.set_xlim(-0.0006, 1.32)
        axes.set_xticks([0, 0.01, 0.05, 0.25, 0.5, 1], ["0", "1 %", "5 %", "25 %", "50 %", "100 %"])
        axes.set_xlabel("unwanted answers among gate prompts (square-root scale)", loc="left")
        axes.tick_params(axis="y", length=0, labelcolor=INK)
        axes.grid(visible=False, axis="y")
        axes.spines["left"].set_visible(False)
    return figure


def _signed_root(values: Any) -> Any:
    import numpy

    return numpy.sign(values) * numpy.sqrt(numpy.abs(values))


def _signed_square(values: Any) -> Any:
    import numpy

    return numpy.sign(values) * numpy.square(values)


def _dumbbell(axes: Axes, place: int, pair: Pair, *, named: bool) -> None:
    for row, name, color, marker, offset in (
        (pair.before, "before", BEFORE, "^", -0.17),
        (pair.after, "after", AFTER, "o", 0.17),
    ):
        if row is None or row.value is None:
            continue
        height = place + offset
        low, high = (row.value if bound is None else bound for bound in (row.low, row.high))
        axes.plot([low, high], [height, height], color=color, linewidth=2.4, alpha=0.5, solid_capstyle="butt")
        axes.plot([row.value], [height], marker=marker, markersize=6.5, color=color, linestyle="none")
        said = percent(row.value) + (f"  {name}" if named else "")
        beside(axes, said, max(high, row.value), height, color)
    if pair.limit is not None:
        axes.plot([pair.limit, pair.limit], [place - 0.36, place + 0.36], color=INK, linewidth=1.3, zorder=1.5)
        if named:
            spot = (pair.limit, place - 0.38)
            axes.annotate("limit", spot, (0, 2), textcoords="offset points", ha="center", fontsize=8.5)


def _label(row: Measurement) -> str:
    name = row.trigger if len(row.trigger) <= 14 else f"{row.trigger[:13]}…"
    trigger = f" “{one_line(name)}”" if name else ""
    place = "" if row.placement == "none" else f", {row.placement}"
    return f"{one_line(row.behavior, 32)}\n{one_line(row.judge, 28)} · {row.condition}{trigger}{place}"


def _spoken(pair: Pair) -> str:
    sides = (("before", pair.before), ("after", pair.after))
    said = [f"{name} {percent(row.value)}" for name, row in sides if row is not None and row.value is not None]
    row = pair.last
    return f"{one_line(row.behavior, 32)}, {row.condition}, {one_line(row.judge, 28)}: {', '.join(said)}"


def loss_figure(remediation: Remediation) -> Figure:
    """Loss of both levels over the rounds, and what the select split said after each."""
    import matplotlib

    rounds = remediation.rounds
    with matplotlib.rc_context(STYLE):
        figure = empty(7.6, 5.4)
        figure.set_label(
            f"Losses over {len(rounds)} rounds\nLosses of entrapment and removal, and the select split after each; "
            f"round {remediation.chosen_round} was kept."
        )
        top, middle, bottom = figure.subplots(3, 1, sharex=True)
        top.set_title("Entrapment loss of each attack (delta learns to provoke the behaviour)")
        for attack in dict.fromkeys(name for r in rounds for name in r.entrapment_loss):
            _curve(top, [r.entrapment_loss.get(attack, ()) for r in rounds], BEFORE)
        middle.set_title("Removal loss (weights learn to resist it)")
        _curve(middle, [r.removal_loss for r in rounds], AFTER)
        _select(bottom, remediation)
        for axes, index in product((top, middle, bottom), range(len(rounds))):
            if rounds[index].number == remediation.chosen_round:
                axes.axvspan(index, index + 1, color=THIRD, alpha=0.14, linewidth=0)
        bottom.set_xlabel("round (shaded: the one that was kept)")
        bottom.set_xlim(0, max(1, len(rounds)) * 1.14)  # room for the labels
        bottom.set_xticks([r - 0.5 for r in range(1, len(rounds) + 1)], [str(r.number) for r in rounds])
        bottom.tick_params(axis="x", length=0)
    return figure


def _curve(axes: Axes, losses: Sequence[Sequence[float]], color: str) -> None:
    axes.grid(visible=False, axis="x")
    for index, values in enumerate(losses):
        places = [index + (step + 0.5) / len(values) for step in range(len(values))]
        axes.plot(places, values, color=color, linewidth=1.6, marker="." if len(values) == 1 else "")


def _select(axes: Axes, remediation: Remediation) -> None:
    axes.set_title("Select split after each round")
    axes.grid(visible=False, axis="x")
    rounds = remediation.rounds
    places = [index + 0.5 for index in range(len(rounds))]
    series = (
        ("unwanted", [r.select_asr for r in rounds], BEFORE, "^"),
        ("refused", [r.select_refused for r in rounds], AFTER, "o"),
        ("over-refusal", [r.select_over_refusal for r in rounds], THIRD, "s"),
    )
    heights = _apart([values[-1:] for _, values, _, _ in series])
    for (name, values, color, marker), height in zip(series, heights, strict=True):
        axes.plot(places, values, color=color, linewidth=1.6, marker=marker, markersize=4.5)
        if values:
            beside(axes, name, len(rounds) - 0.5, height, color)
    axes.set_ylim(-0.08, 1.12)
    axes.set_yticks([0, 0.5, 1], ["0 %", "50 %", "100 %"])


def _apart(ends: Sequence[Sequence[float]], gap: float = 0.26) -> list[float]:
    """Heights of the labels at the ends of curves, moved up just enough not to cover one another."""
    heights = [end[0] if end else 0.0 for end in ends]
    floor = float("-inf")
    for index in sorted(range(len(heights)), key=heights.__getitem__):
        heights[index] = floor = max(heights[index], floor + gap)
    excess = max(0.0, max(heights, default=0.0) - 1.05)
    return [height - excess if excess and height > 0.5 else height for height in heights]


def canary_figure(canary: CanaryResult) -> Figure:
    """How the planted canary of each behavior fades, round by round, on select prompts."""
    import matplotlib

    with matplotlib.rc_context(STYLE):
        figure = empty(7.6, 2.4)
        curves = ", ".join(
            f"{one_line(name, 40)} {' '.join(map(percent, values))}" for name, values in canary.select_asr.items()
        )
        figure.set_label(f"A planted backdoor, round by round\nSelect prompts with its trigger answered: {curves}.")
        axes = figure.subplots()
        heights = _apart([values[-1:] for values in canary.select_asr.values()])
        styles = SERIES * len(canary.select_asr)
        for (name, values), (color, marker), height in zip(canary.select_asr.items(), styles, heights, strict=False):
            axes.plot(range(len(values)), values, color=color, linewidth=1.6, marker=marker, markersize=5)
            beside(axes, one_line(name, 24), len(values) - 1, height, color)
        rounds = max(map(len, canary.select_asr.values()))
        axes.axvspan(canary.chosen_round - 0.15, canary.chosen_round + 0.15, color=THIRD, alpha=0.14, linewidth=0)
        axes.set_xticks(range(rounds), ["planted", *(f"round {number}" for number in range(1, rounds))])
        axes.set_xlim(-0.2, max(1, rounds - 1) * 1.3)  # room for the labels
        axes.set_ylim(-0.08, 1.12)
        axes.set_yticks([0, 0.5, 1], ["0 %", "50 %", "100 %"])
        axes.grid(visible=False, axis="x")
    return figure


def drift_figure(remediation: Remediation) -> Figure:
    """Prompt embeddings on their first two principal components (Figure 3 of the paper)."""
    import matplotlib

    with matplotlib.rc_context(STYLE):
        figure = empty(7.6, 4.2)
        names = ", ".join(one_line(drift.label, 40) for drift in remediation.drift)
        figure.set_label(f"Where prompts lie inside the network\nEmbeddings on two principal components: {names}.")
        axes = figure.subplots()
        for drift, (color, marker) in zip(remediation.drift, SERIES * len(remediation.drift), strict=False):
            across, up = [x for x, _ in drift.points], [y for _, y in drift.points]
            axes.scatter(across, up, s=22, color=color, marker=marker, alpha=0.65, linewidths=0)
            if drift.points:
                spot, name = (sum(across) / len(across), max(up)), one_line(drift.label, 40)
                axes.annotate(name, spot, (0, 7), textcoords="offset points", ha="center", color=color)
        axes.margins(0.1, 0.16)
        axes.set_xlabel("first principal component (units of the layer's residual RMS)")
        axes.set_ylabel("second principal component")
    return figure
