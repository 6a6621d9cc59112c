"""Trailing counters: what a user, video or author did on the days before the impression's day.

Only completed days count: a sample of day d sees days d - N to d - 1, and no event of its own day. An event counts on
the local day on which it happened. Sums are of whole numbers and of decimals, so they do not depend on the order in
which rows, partitions and days are added.
"""

from collections.abc import Iterable, Mapping

import polars as pl

from pipeline.columns import LOCAL_DAY
from pipeline.spec.features import Counters
from pipeline.sql.expressions import parse

EXACT = pl.Decimal(38, 9)
KEY = "key"
MOST = 1e18  # larger values are no measurements; decimals hold the sum of any number of smaller ones


def daily_counts(events: dict[str, pl.DataFrame], counters: Counters, key: str) -> pl.DataFrame:
    """Per key and day: the rows of each measure, and the sum of what a mean is taken of, to nine decimal places.

    `events` has for each kind its rows with the key column, `local_day` (the day of the event) and whatever the
    measures' expressions use. A row whose value is no number below
    MOST is not counted by its measure.
    """
    parts = []
    for kind in {measure.event: None for measure in counters.measures.values()}:
        sums = []
        for name, measure in counters.measures.items():
            if measure.event == kind:
                counts = parse(measure.where).fill_null(False) if measure.where else pl.lit(True)
                if measure.mean:
                    value = parse(measure.mean).cast(pl.Float64)
                    counts = counts & (value.abs() < MOST).fill_null(False)
                    sums.append(pl.when(counts).then(value).cast(EXACT).sum().alias(f"{name} sum"))
                sums.append(
                    counts.sum().cast(pl.Int64).alias(f"{name} n")
                    if measure.where or measure.mean
                    else pl.len().cast(pl.Int64).alias(f"{name} n")
                )
        rows = events[kind].filter(pl.col(key).is_not_null())
        # Nearly all are of one day: a single key to group by is much faster than a pair.
        for day in rows[LOCAL_DAY].unique():
            of_day = rows.lazy().filter(pl.col(LOCAL_DAY) == day).group_by(pl.col(key).alias(KEY)).agg(sums)
            parts.append(of_day.with_columns(pl.lit(day).alias(LOCAL_DAY)))
        parts.append(rows.clear().lazy().group_by(pl.col(key).alias(KEY), LOCAL_DAY).agg(sums))
    return add_up(parts, [KEY, LOCAL_DAY]).collect()


def add_up(parts: Iterable[pl.LazyFrame], by: list[str]) -> pl.LazyFrame:
    """The sums of several daily counts. A key or a column that one of them lacks counts as 0 there."""
    return pl.concat(parts, how="diagonal").group_by(by).agg(pl.all().sum())


def windows(days: Iterable[tuple[int, pl.LazyFrame]], counters: Counters, by: str) -> pl.DataFrame:
    """A row per key with the columns `<by>_<measure>_<N>d`, each over the last N days, as float32.

    `days` are daily counts, each with how many days before the day at hand it lies. A mean is null where nothing
    happened.
    """
    shifted = [frame.drop(LOCAL_DAY, strict=False).with_columns(pl.lit(back).alias("back")) for back, frame in days]
    every = pl.concat(shifted, how="diagonal")
    sums, values = [], []
    for name, measure in counters.measures.items():
        for number in counters.days:
            column = counters.column(by, name, number)
            recent = pl.col("back") <= number
            sums.append(pl.col(f"{name} n").filter(recent).sum().alias(column))
            if measure.mean:
                sums.append(pl.col(f"{name} sum").filter(recent).sum().alias(f"{column} sum"))
            count = pl.col(column).cast(pl.Float64)
            mean = (pl.col(f"{column} sum").cast(pl.Float64) / count).fill_nan(None) if measure.mean else count
            values.append(mean.cast(pl.Float32).alias(column))
    return every.group_by(KEY).agg(sums).select(KEY, *values).sort(KEY).collect()


def append_counters(
    samples: pl.LazyFrame, found: Mapping[str, pl.LazyFrame | None], counters: Counters
) -> pl.LazyFrame:
    """Joins the windows of every key; on the first day there are none. Rows keep their order.

    A count is 0 where nothing happened; a mean is then null.
    """
    for by, key in counters.by.items():
        rows = found[by]
        columns = {counters.column(by, name, n): m for name, m in counters.measures.items() for n in counters.days}
        if rows is None:
            samples = samples.with_columns(pl.lit(None, pl.Float32).alias(column) for column in columns)
        else:
            samples = samples.join(rows, left_on=key, right_on=KEY, how="left", maintain_order="left")
        samples = samples.with_columns(pl.col(c).fill_null(0) for c, measure in columns.items() if not measure.mean)
    return samples
