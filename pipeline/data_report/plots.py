"""The plots of the data report, each a string of inline SVG."""

from collections.abc import Mapping, Sequence
from itertools import cycle

import numpy as np
from matplotlib.axes import Axes
from matplotlib.dates import DateFormatter, DayLocator
from matplotlib.ticker import FuncFormatter, MaxNLocator

from pipeline.page.drawing import BLUE, GREY, ORANGE, percent, svg

COLOURS = (BLUE, ORANGE, "#2f8f5b", "#8a5ba6", "#b3261e", "#5d6873")
FEW_DAYS = 40  # up to so many days, each has a dot
MOST_LABELS = 5  # days whose names fit side by side


def by_day(
    title: str,
    days: Sequence[str],
    lines: Mapping[str, Sequence[float | None]],
    evaluated: Sequence[str],
    unit: str | None,
) -> str:
    """A line per scene over the days. The `evaluated` days, which are not for training, have a grey ground.

    `unit` is the unit of the values; None for shares.
    """
    x = _day_numbers(days)

    def draw(axes: Axes) -> None:
        axes.xaxis.set_major_locator(DayLocator(interval=-(-len(days) // MOST_LABELS)))
        axes.xaxis.set_major_formatter(DateFormatter("%b %d"))
        for day in _day_numbers(evaluated):
            axes.axvspan(day - 0.5, day + 0.5, color=GREY, alpha=0.2, linewidth=0)
        for (name, values), colour in zip(lines.items(), cycle(COLOURS), strict=False):
            y = np.array(values, dtype=float)
            axes.plot(x, y, "o-" if len(days) <= FEW_DAYS else "-", color=colour, markersize=3.5, label=name)
        axes.yaxis.set_major_formatter(FuncFormatter(percent if unit is None else lambda value, _: f"{value:,.10g}"))
        axes.set_ylim(0, 1.25 * max(axes.get_ylim()[1], 1e-9))
        axes.set(ylabel=unit or "")
        axes.set_title(title)
        axes.legend(loc="upper left", ncols=3)

    return svg(draw)


def _day_numbers(days: Sequence[str]) -> np.ndarray:
    """Dates as days since 1970: the numbers of a date axis."""
    return np.array(days, "datetime64[D]").astype(float)


def lengths(title: str, rows: Mapping[str, Mapping[int, int]]) -> str:
    """The share of each split's rows by length. `rows` counts rows by split, then by length."""

    def draw(axes: Axes) -> None:
        for (split, counted), colour in zip(rows.items(), (GREY, BLUE, ORANGE), strict=False):
            most = max(counted)
            shares = np.array([counted.get(length, 0) for length in range(most + 1)]) / sum(counted.values())
            axes.stairs(shares, np.arange(most + 2) - 0.5, color=colour, linewidth=1.4, label=split)
        axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
        axes.yaxis.set_major_formatter(FuncFormatter(percent))
        axes.set_ylim(0, 1.2 * axes.get_ylim()[1])
        axes.set(xlabel="length", ylabel="share of rows")
        axes.set_title(title)
        axes.legend(loc="upper left", ncols=3)

    return svg(draw)
