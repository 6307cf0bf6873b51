"""How figures look, and what they are written as; matplotlib is imported where it draws, and pyplot nowhere."""

from __future__ import annotations

import io
import re
from html import escape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's palette: told apart with any kind of colour vision; shapes differ as well.
INK, MUTED, LINE = "#1c2128", "#656d77", "#d5d9df"
BEFORE, AFTER, THIRD = "#d55e00", "#0072b2", "#009e73"
SERIES = ((AFTER, "o"), (BEFORE, "^"), (THIRD, "s"), ("#cc79a7", "D"))
# A page may recolour the figure for a dark background; elsewhere the fallback after the comma holds.
_VARIABLES = {INK: "--ink", MUTED: "--muted", LINE: "--line", BEFORE: "--before", AFTER: "--after", THIRD: "--third"}
STYLE: dict[Any, Any] = {
    "text.parse_math": False,  # a "$" in a name is a dollar
    "svg.hashsalt": "beear-gate",
    "svg.fonttype": "none",
    "font.family": ["DejaVu Sans"],
    "font.size": 9.5,
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": LINE,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "xtick.color": LINE,
    "ytick.color": LINE,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
}


def beside(axes: Axes, text: str, x: float, y: float, color: str) -> None:
    """A label to the right of a point."""
    axes.annotate(text, (x, y), (7, 0), textcoords="offset points", va="center", color=color)


def empty(width: float, height: float) -> Figure:
    """A figure of this size, in inches, without pyplot's global state."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def svg(figure: Figure) -> str:
    """`figure` as an SVG element for a page: same bytes for the same figure, titled, recoloured by CSS variables."""
    import matplotlib

    drawn = io.StringIO()
    with matplotlib.rc_context(STYLE):
        metadata = {"Date": None, "Creator": None, "Format": None, "Type": None}
        figure.savefig(drawn, format="svg", transparent=True, metadata=metadata)
    text = drawn.getvalue()
    text = text[text.index("<svg") :]
    # Counted names such as axes_1 are for editors; in a page with several figures they would be duplicate ids.
    text = re.sub(r' id="[A-Za-z.]*[a-z]2?d?_\d{1,3}"', "", text)
    for color, variable in _VARIABLES.items():
        text = text.replace(color, f"var({variable}, {color})")
    # In a page its style element would apply to everything.
    text = re.sub(r"\s*<defs>\s*<style.*?</style>\s*</defs>", "", text, count=1, flags=re.DOTALL)
    title, _, description = (escape(part) for part in str(figure.get_label()).partition("\n"))
    head = f'role="img" aria-label="{title}" style="stroke-linejoin: round; stroke-linecap: butt">\n'
    return text.replace(">\n", f" {head}<title>{title}</title>\n<desc>{description}</desc>\n", 1)


def png(figure: Figure) -> bytes:
    """`figure` on white, for places that show no SVG."""
    import matplotlib

    drawn = io.BytesIO()
    with matplotlib.rc_context(STYLE):
        figure.savefig(drawn, format="png", dpi=144, facecolor="white", metadata={"Software": None})
    return drawn.getvalue()
