"""Draws a plot as inline SVG. Its text stays text, in the font of the page."""

import io
from collections.abc import Callable
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.typing import RcKeyType

BLUE, ORANGE, GREY, INK = "#1f5fa8", "#d9731a", "#9aa3ad", "#2b333c"

STYLE: dict[RcKeyType, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "strata",  # the same figures give the same page
    "date.converter": "concise",
    "font.family": "DejaVu Sans",  # comes with matplotlib, and is so wide that the page's font needs no more room
    "font.size": 9,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": GREY,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e8ebee",
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "legend.fontsize": 9,
}


def svg(draw: Callable[[Axes], None]) -> str:
    """Draws one pair of axes, and returns the SVG element without the XML document around it."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(4.6, 3.1), layout="constrained")
        draw(figure.subplots())
        document = io.StringIO()
        no_metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(document, format="svg", transparent=True, metadata=no_metadata)
    text = document.getvalue()
    return text[text.index("<svg") :]


def percent(share: float, _: float) -> str:
    """0.812 as 81.2 %; a formatter of the ticks of an axis."""
    return f"{100 * share:.3g} %"
