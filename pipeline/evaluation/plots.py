"""The plots of the report, each a string of inline SVG."""

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator

from pipeline.page.drawing import BLUE, GREY, INK, ORANGE, percent, svg

POINTS = 200  # of a curve: nobody sees more, and each point makes the page larger


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

    return svg(draw)


def _wilson(positives: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Wilson's 95 % interval of a share (1927): centre and half-width of a binomial's score interval."""
    z = 1.96
    share, scale = positives / rows, 1 + z**2 / rows
    centre = (share + z**2 / (2 * rows)) / scale
    half = z * np.sqrt(share * (1 - share) / rows + z**2 / (4 * rows**2)) / scale
    return centre - half, centre + half


def prediction_distribution(bins: pl.DataFrame) -> str:
    """The distributions of the predictions for positives and for negatives, on an axis of log-odds."""
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
        axes.yaxis.set_major_formatter(FuncFormatter(percent))
        axes.set(
            xlim=(edges[0], edges[-1]), xlabel="predicted probability (scaled by its odds)", ylabel="share of rows"
        )
        axes.set_title("Predictions by outcome")
        _room_for_legend(axes)

    return svg(draw)


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

    return svg(draw)


def error_distribution(bins: pl.DataFrame, unit: str) -> str:
    """The distribution of prediction minus label, with its tails in the outermost bins."""
    edges = [*bins["left"], bins["right"][-1]]

    def draw(axes: Axes) -> None:
        axes.stairs(bins["share"].to_numpy(), edges, color=BLUE, fill=True, alpha=0.25)
        axes.stairs(bins["share"].to_numpy(), edges, color=BLUE, linewidth=1.4)
        axes.axvline(0, color=INK, linewidth=1, linestyle=(0, (4, 3)))
        axes.yaxis.set_major_formatter(FuncFormatter(percent))
        axes.set(xlabel=_in_unit("prediction minus label", unit), ylabel="share of rows")
        axes.set_title("Errors")

    return svg(draw)


def curve(points: pl.DataFrame, title: str) -> str:
    """The training and the validation loss by step. Takes the columns `step`, `split` and `value`."""

    def draw(axes: Axes) -> None:
        for split, name, colour in (("train", "training", GREY), ("valid", "validation", BLUE)):
            line = points.filter(pl.col("split") == split).sort("step")
            every = -(-line.height // POINTS)
            if every > 1:  # draws means of neighbours: single points would keep or lose spikes by chance
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

    return svg(draw)


def _in_unit(quantity: str, unit: str) -> str:
    return f"{quantity} ({unit})" if unit else quantity


def _room_for_legend(axes: Axes) -> None:
    axes.set_ylim(0, axes.get_ylim()[1] * 1.2)
    axes.legend(loc="upper left", ncols=2)
