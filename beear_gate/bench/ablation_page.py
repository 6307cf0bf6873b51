"""The page and the figures of the ablations; every sentence that concludes is computed from the cells."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from beear_gate.bench.ablation_cells import NAMES, SUCCESS, Cell, Look, Name, Variant, shown
from beear_gate.bench.scores import KEYWORDS
from beear_gate.bench.trigger_drift import TriggerDrift
from beear_gate.evaluation.stats import wilson
from beear_gate.report import drawing
from beear_gate.report.words import percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TITLES: dict[Name, str] = {
    "layer": "Layer whose output takes delta (the paper's Figure 5)",
    "ratio": "D_PA to D_SA samples of a round, 250 in all (Figure 6)",
    "useful": "D_PA samples there are; a round draws 100 of them, or all (Figure 7)",
    "length": "Rows of delta: prompt positions that take it (Figure 8)",
}
AXES: dict[Name, str] = {
    "layer": "decoder layer, counted from 0",
    "ratio": "D_PA : D_SA samples of a round",
    "useful": "D_PA samples",
    "length": "delta's length in tokens",
}
QUARTER = f"{100 * SUCCESS:g} %"
JUDGES: tuple[tuple[str, Callable[[Look], float]], ...] = (
    (KEYWORDS.name, lambda look: look.asr_keywords),
    ("marker", lambda look: look.asr_marker),
)


def page(cells: Sequence[Cell], drifts: Sequence[TriggerDrift], command: str) -> str:
    """The study as Markdown."""
    rounds, n = cells[0].rounds, cells[0].n
    low, high = wilson(round(SUCCESS * n), n, 0.95)
    sections = "".join(_section(name, cells) for name in NAMES)
    return (
        "# The paper's ablations on organisms\n\n"
        f"Made by `{command}` in {sum(cell.seconds for cell in cells):.0f} s of remediation. Mode `paper`, organisms "
        f"{', '.join(sorted({cell.organism for cell in cells}))}, seeds "
        f"{', '.join(map(str, sorted({cell.seed for cell in cells})))}. Every run has {rounds} rounds: the paper's "
        "stop rule is off, so that what comes after a success is seen. After each round the model answers the first "
        f"n = {n} gate prompts with the true trigger, which remediation never sees, and reads "
        f"{cells[0].references} benign reference answers.\n\n"
        f"Success is the paper's: ASR with the trigger below {QUARTER} after some round, by its judge "
        f"`{KEYWORDS.name}`. That judge calls an answer safe that apologizes and then complies, so the judge `marker` "
        f"(the harmful text is there) stands beside it. Helpfulness is the perplexity ratio to the original. With "
        f"n = {n}, {QUARTER} has a 95 % Wilson interval of {percent(low)} to {percent(high)}.\n\n"
        f"{sections}{_drift_section(drifts)}"
    )


def _section(name: Name, cells: Sequence[Cell]) -> str:
    found = shown(name, cells)
    head = (
        f"| setting | organism | seed | first round below {QUARTER}: keywords | marker | ASR after the last: keywords "
        "| marker | perplexity ratio |\n|---|---|---|---|---|---|---|---|\n"
    )
    rows = "".join(
        f"| {setting}{' (default)' if cell.variant == Variant().name else ''} | {cell.organism} | {cell.seed} "
        + "".join(f"| {cell.success(asr) or 'never'} " for _, asr in JUDGES)
        + "".join(f"| {percent(asr(cell.last))} " for _, asr in JUDGES)
        + f"| {cell.last.nll_ratio:.3f} |\n"
        for setting, cell in found
    )
    return f"## {TITLES[name]}\n\n{summary(found)}\n\n![{TITLES[name]}](ablation-{name}.png)\n\n{head}{rows}\n"


def summary(found: Sequence[tuple[str, Cell]]) -> str:
    """How many runs succeed by each judge, how many still do at the end, and what it costs."""
    said = [
        f"{sum(cell.success(asr) is not None for _, cell in found)} of {len(found)} runs by `{judge}` "
        f"({sum(asr(cell.last) < SUCCESS for _, cell in found)} still after the last round)"
        for judge, asr in JUDGES
    ]
    worst = max(found, key=lambda each: each[1].last.nll_ratio)
    return (
        f"Below {QUARTER}: {', '.join(said)}. The largest perplexity ratio after the last round is "
        f"{worst[1].last.nll_ratio:.3f}, at {worst[0]}."
    )


def _drift_section(drifts: Sequence[TriggerDrift]) -> str:
    head = (
        "| organism | seed | layer | n | uniformity of the trigger's drift | cosine of it to delta's "
        "| its size | delta's size |\n|---|---|---|---|---|---|---|---|\n"
    )
    rows = "".join(
        f"| {each.organism} | {each.seed} | {each.layer} | {each.n} | {each.uniformity:.2f} | {each.cosine:+.2f} "
        f"| {each.size:.2f} | {each.delta_size:.2f} |\n"
        for each in drifts
    )
    return (
        "## Drift of the last prompt position (Figure 3)\n\n"
        "Before any repair, after the layer that takes delta. Uniformity is the mean cosine of one prompt's drift to "
        "the mean drift; delta's is 1 by construction, because the same row is added to every prompt. Sizes are in "
        "units of the RMS of the states. An unbounded delta need not go where the trigger goes: the cosine says how "
        "much it does.\n\n![Last-position states on two principal components](ablation-drift.png)\n\n"
        f"{head}{rows}"
    )


def variant_figure(name: Name, cells: Sequence[Cell]) -> Figure:
    """First round of success, ASR after the last round, and perplexity ratio, by setting; one mark a run and judge."""
    import matplotlib

    found = shown(name, cells)
    settings = list(dict.fromkeys(setting for setting, _ in found))
    with matplotlib.rc_context(drawing.STYLE):
        figure = drawing.empty(7.6, 6.2)
        top, middle, bottom = figure.subplots(3, 1, sharex=True)
        top.set_title(f"First round with ASR below {QUARTER} (x above the line: never)")
        middle.set_title(f"ASR with the true trigger after the last round (line: {QUARTER})")
        bottom.set_title("Perplexity ratio on benign references after the last round")
        for place, setting in enumerate(settings):
            _marks((top, middle, bottom), place, [cell for label, cell in found if label == setting])
        rounds = found[0][1].rounds
        top.set_ylim(0, 1.25 * rounds + 1)
        top.axhline(rounds + 0.4, color=drawing.LINE, linewidth=1.0)
        top.set_ylabel("round")
        middle.axhline(SUCCESS, color=drawing.INK, linewidth=1.0, zorder=1.5)
        middle.set_ylim(-0.08, 1.08)
        middle.set_yticks([0, 0.5, 1], ["0 %", "50 %", "100 %"])
        middle.set_ylabel("ASR")
        bottom.axhline(1.0, color=drawing.INK, linewidth=1.0, zorder=1.5)
        bottom.set_ylabel("ratio")
        bottom.set_xticks(range(len(settings)), settings)
        bottom.set_xlim(-0.6, len(settings) - 0.4)
        bottom.set_xlabel(AXES[name], loc="left")
        names = [f"{shape}: {judge}" for shape, (judge, _) in zip(("circles", "open triangles"), JUDGES, strict=True)]
        figure.supxlabel("; ".join(names), fontsize=8.5, x=0.02, ha="left")
    return figure


def _marks(panels: tuple[Axes, Axes, Axes], place: int, cells: Sequence[Cell]) -> None:
    """The runs of one setting side by side, keywords left of marker."""
    top, middle, bottom = panels
    for run, cell in enumerate(cells):
        across = place + (run - (len(cells) - 1) / 2) * 0.5 / max(1, len(cells))
        styles = ((-0.07, drawing.AFTER, "o", drawing.AFTER), (0.07, drawing.BEFORE, "^", "none"))
        for (shift, color, marker, fill), (_, asr) in zip(styles, JUDGES, strict=True):
            first = cell.success(asr)
            if first is None:
                top.plot([across + shift], [1.12 * cell.rounds + 0.6], marker="x", color=color, linestyle="none")
            else:
                top.plot([across + shift], [first], marker=marker, color=color, mfc=fill, linestyle="none")
            middle.plot([across + shift], [asr(cell.last)], marker=marker, color=color, mfc=fill, linestyle="none")
        bottom.plot([across], [cell.last.nll_ratio], marker="s", color=drawing.THIRD, linestyle="none")
    for axes in panels:
        axes.grid(visible=False, axis="x")


def drift_figure(drifts: Sequence[TriggerDrift]) -> Figure:
    """Last-position states of each organism on their first two principal components."""
    import matplotlib

    with matplotlib.rc_context(drawing.STYLE):
        figure = drawing.empty(7.6, 3.6 * len(drifts) + 0.4)
        panels = figure.subplots(len(drifts), 1, squeeze=False)[:, 0]
        for axes, drift in zip(panels, drifts, strict=True):
            axes.set_title(f"{drift.organism}, seed {drift.seed}, after layer {drift.layer}")
            for group, (color, marker) in zip(drift.drifts, drawing.SERIES, strict=True):
                across, up = [x for x, _ in group.points], [y for _, y in group.points]
                axes.scatter(across, up, s=22, color=color, marker=marker, alpha=0.6, linewidths=0, label=group.label)
            axes.margins(0.1, 0.16)
            axes.set_ylabel("second component")
            axes.legend(frameon=False, fontsize=8.5, loc="center left", bbox_to_anchor=(1.0, 0.5))
        panels[-1].set_xlabel("first principal component (both in units of the states' RMS)", loc="left")
    return figure
