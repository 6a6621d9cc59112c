"""The plots of the report, each a string of inline SVG whose text is text, in the font of the page."""

import io
from collections.abc import Callable
from typing import Any

import matplotlib as mpl
import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator
from matplotlib.typing import RcKeyType

BLUE, ORANGE, GREY, INK = "#1f5fa8", "#d9731a", "#9aa3ad", "#2b333c"
POINTS = 200  # of a curve: more cannot be seen, and each is kept in the page

STYLE: dict[RcKeyType, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "strata",  # the same figures give the same page
    "font.family": "DejaVu Sans",  # comes with matplotlib and is wide: the page's own font then fits as well
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


def reliability(groups: pl.DataFrame) -> str:
    """Actual rate against mean predicted probability of ten groups, with 95 % Wilson intervals of the rate."""
    predicted, actual = groups["prediction"].to_numpy(), groups["label"].to_numpy()
    low, high = _wilson(groups["positives"].to_numpy(), groups["rows"].to_numpy())

    def draw(axes: Axes) -> None:
        limit = 1.05 * float(max(predicted.max(), high.max()))
        axes.plot([0, limit], [0, limit], color=GREY, linewidth=1, linestyle=(0, (4, 3)), label="perfectly calibrated")
        axes.vlines(predicted, low, high, color=BLUE, linewidth=1.2, alpha=0.5, label="95 % interval")
        axes.plot(predicted, actual, "o", color=BLUE, markersize=4.5, label="a tenth of the rows")
        axes.set(xlim=(0, limit), ylim=(0, limit), xlabel="mean predicted probability", ylabel="share of positives")
        axes.set_title("Reliability")
        axes.legend(loc="upper left")

    return _svg(draw)


def _wilson(positives: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Wilson's 95 % interval of a share (1927): centre and half-width of a binomial's score interval."""
    z = 1.96
    share, scale = positives / rows, 1 + z**2 / rows
    centre = (share + z**2 / (2 * rows)) / scale
    half = z * np.sqrt(share * (1 - share) / rows + z**2 / (4 * rows**2)) / scale
    return centre - half, centre + half


def prediction_distribution(bins: pl.DataFrame) -> str:
    """How predictions of the positives and of the negatives are spread, on an axis of log-odds."""
    edges = [*bins["left"], bins["right"][-1]]

    def draw(axes: Axes) -> None:
        for kind, colour in (("negative", GREY), ("positive", ORANGE)):
            axes.stairs(bins[kind].to_numpy(), edges, color=colour, fill=True, alpha=0.25)
            axes.stairs(bins[kind].to_numpy(), edges, color=colour, linewidth=1.4, label=f"{kind} rows")
        chances = [1e-6, 1e-5, 1e-4, 0.001, 0.01, 0.1, 0.5, 0.9, 0.99, 0.999]
        if edges[-1] - edges[0] < 4:
            chances = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 0.9, 0.95, 0.98, 0.99]
        axes.xaxis.set_major_locator(FixedLocator([float(np.log(p / (1 - p))) for p in chances]))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{100 / (1 + np.exp(-x)):.4g} %"))
        axes.yaxis.set_major_formatter(FuncFormatter(_percent))
        axes.set(
            xlim=(edges[0], edges[-1]), xlabel="predicted probability (scaled by its odds)", ylabel="share of rows"
        )
        axes.set_title("Predictions by outcome")
        _room_for_legend(axes)

    return _svg(draw)


def predicted_and_actual(groups: pl.DataFrame, unit: str) -> str:
    """Mean prediction and mean label of ten groups, from the lowest predictions to the highest."""
    tenth = np.arange(1, groups.height + 1)

    def draw(axes: Axes) -> None:
        axes.plot(tenth, groups["prediction"], "o-", color=BLUE, markersize=4.5, linewidth=1.2, label="predicted")
        axes.plot(tenth, groups["label"], "o-", color=ORANGE, markersize=4.5, linewidth=1.2, label="actual")
        axes.xaxis.set_major_locator(FixedLocator(tenth.tolist()))
        axes.set(xlabel="tenth of the rows, by prediction", ylabel=_in_unit("mean", unit))
        axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))
        axes.set_title("Predicted and actual")
        axes.legend(loc="upper left")

    return _svg(draw)


def error_distribution(bins: pl.DataFrame, unit: str) -> str:
    """How prediction minus label is spread; its tails are in the outermost bins."""
    edges = [*bins["left"], bins["right"][-1]]

    def draw(axes: Axes) -> None:
        axes.stairs(bins["share"].to_numpy(), edges, color=BLUE, fill=True, alpha=0.25)
        axes.stairs(bins["share"].to_numpy(), edges, color=BLUE, linewidth=1.4)
        axes.axvline(0, color=INK, linewidth=1, linestyle=(0, (4, 3)))
        axes.yaxis.set_major_formatter(FuncFormatter(_percent))
        axes.set(xlabel=_in_unit("prediction minus label", unit), ylabel="share of rows")
        axes.set_title("Errors")

    return _svg(draw)


def curve(points: pl.DataFrame, title: str) -> str:
    """A loss by step, training and validation; takes columns `step`, `split` and `value`."""

    def draw(axes: Axes) -> None:
        for split, name, colour in (("train", "training", GREY), ("valid", "validation", BLUE)):
            line = points.filter(pl.col("split") == split).sort("step")
            every = -(-line.height // POINTS)
            if every > 1:  # the mean of neighbours, so that no spike is kept by chance
                line = line.group_by(pl.int_range(pl.len()) // every, maintain_order=True).agg(
                    pl.col("step", "value").mean()
                )
            if line.height:
                marker = "o" if line.height < 30 else ""
                axes.plot(line["step"], line["value"], color=colour, marker=marker, markersize=3.5, label=name)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.set(xlabel="step")
        axes.set_title(title)
        axes.legend(loc="upper right")

    return _svg(draw)


def _percent(share: float, _: float) -> str:
    return f"{100 * share:.3g} %"


def _in_unit(quantity: str, unit: str) -> str:
    return f"{quantity} ({unit})" if unit else quantity


def _room_for_legend(axes: Axes) -> None:
    axes.set_ylim(0, axes.get_ylim()[1] * 1.2)
    axes.legend(loc="upper left", ncols=2)


def _svg(draw: Callable[[Axes], None]) -> str:
    """Draws one pair of axes and cuts the SVG out of the XML document around it."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(4.6, 3.1), layout="constrained")
        draw(figure.subplots())
        document = io.StringIO()
        no_metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(document, format="svg", transparent=True, metadata=no_metadata)
    text = document.getvalue()
    return text[text.index("<svg") :]
