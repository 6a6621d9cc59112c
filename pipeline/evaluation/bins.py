"""The numbers behind each plot of the report: the rows of one objective in a few dozen bins."""

import math

import polars as pl

from pipeline.evaluation.metrics import CLIP

GROUPS = 10
BINS = 40
# Errors outside of these quantiles count in the outermost bins. Otherwise a single error could stretch the axis.
TAILS = (0.01, 0.99)


def deciles(rows: pl.LazyFrame) -> pl.DataFrame:
    """Ten groups of equal size by prediction: `rows`, `positives` (labels of 1), mean `prediction` and mean `label`.

    Rows with the same prediction stay in one group, so many ties give fewer groups.
    """
    rank = pl.col("prediction").rank("average").cast(pl.Float64)
    return (
        rows.group_by(group=((rank - 0.5) * GROUPS / pl.len()).floor())
        .agg(
            rows=pl.len(),
            positives=(pl.col("label") == 1).sum(),
            prediction=pl.col("prediction").cast(pl.Float64).mean(),
            label=pl.col("label").cast(pl.Float64).mean(),
        )
        .sort("group")
        .drop("group")
        .collect()
    )


def log_odds_by_label(rows: pl.LazyFrame) -> pl.DataFrame:
    """The shares of both classes per bin of predicted log-odds: `left`, `right`, `negative`, `positive`."""
    probability = pl.col("prediction").cast(pl.Float64).clip(CLIP, 1 - CLIP)
    odds = rows.select(value=(probability / (1 - probability)).log(), positive=pl.col("label") == 1)
    low, high = odds.select(low=pl.col("value").min(), high=pl.col("value").max()).collect().row(0)
    return _histogram(odds, low, high, {"negative": ~pl.col("positive"), "positive": pl.col("positive")})


def errors(rows: pl.LazyFrame) -> pl.DataFrame:
    """The share of the rows per bin of prediction minus label, in the label's unit: `left`, `right`, `share`."""
    value = (pl.col("prediction").cast(pl.Float64) - pl.col("label").cast(pl.Float64)).alias("value")
    low, high = rows.select(low=value.quantile(TAILS[0]), high=value.quantile(TAILS[1])).collect().row(0)
    return _histogram(rows.select(value), low, high, {"share": pl.col("value").is_not_null()})


def _histogram(values: pl.LazyFrame, low: float, high: float, shares: dict[str, pl.Expr]) -> pl.DataFrame:
    """`BINS` bins of equal width over `value`, with the share of the rows of each kind in each bin."""
    if math.isclose(low, high, abs_tol=1e-9):  # a constant still needs an axis
        low, high = low - 0.5, high + 0.5
    width = (high - low) / BINS
    filled = (
        values.group_by(bin=((pl.col("value") - low) / width).floor().clip(0, BINS - 1).cast(pl.Int64))
        .agg(**{name: rows.cast(pl.Int64).sum() for name, rows in shares.items()})
        .collect()
    )
    edges = pl.DataFrame({"bin": range(BINS)}).with_columns(left=low + pl.col("bin") * width)
    counts = edges.join(filled, on="bin", how="left").sort("bin").fill_null(0)
    return counts.select(
        "left",
        right=pl.col("left") + width,
        **{name: (pl.col(name) / pl.col(name).sum()).fill_nan(0) for name in shares},  # 0 of 0 rows
    )
