"""Trailing counters: what a user, video or author did on the days before the impression's day.

Only completed days count: a sample of day d sees days d - N to d - 1, so no event of its own day. An event
counts on the local day on which it happened.
"""

import polars as pl

from pipeline.raw.expressions import parse
from pipeline.samples.checker import LOCAL_DAY
from pipeline.spec import Counters, Measure


def append_counters(samples: pl.DataFrame, events: dict[str, pl.DataFrame], counters: Counters) -> pl.DataFrame:
    """Adds a float32 column for every key, measure and window of the spec.

    A count is 0 where nothing happened; a mean is then null. `events` has for each kind its rows with the key
    columns, `local_day` (the day of the event) and whatever the measures' expressions use.
    """
    for by, key in counters.by.items():
        daily = _daily(events, counters, key)
        for days in counters.days:
            window = _window(daily, days, counters, by)
            samples = samples.join(
                window, left_on=[key, LOCAL_DAY], right_on=["key", LOCAL_DAY], how="left", maintain_order="left"
            )
    counts = [c for c, measure in _columns(counters) if measure.mean is None]
    return samples.with_columns(pl.col(counts).fill_null(0).cast(pl.Float32))


def _columns(counters: Counters) -> list[tuple[str, Measure]]:
    return [
        (counters.column(by, name, days), measure)
        for by in counters.by
        for name, measure in counters.measures.items()
        for days in counters.days
    ]


def _daily(events: dict[str, pl.DataFrame], counters: Counters, key: str) -> pl.DataFrame:
    """Per key and day: rows of each measure, and the sum of what a mean is taken of, where that is a finite number."""
    parts = []
    for name, measure in counters.measures.items():
        rows = events[measure.event].lazy().filter(pl.col(key).is_not_null())
        if measure.where:
            rows = rows.filter(parse(measure.where))
        value = parse(measure.mean).cast(pl.Float64) if measure.mean else pl.lit(1.0)
        rows = rows.select(pl.col(key).alias("key"), LOCAL_DAY, value=value).filter(pl.col("value").is_finite())
        sums = rows.group_by("key", LOCAL_DAY).agg(
            pl.len().cast(pl.Float64).alias(f"{name} n"), pl.col("value").sum().alias(f"{name} sum")
        )
        parts.append(sums)
    return pl.concat(parts, how="diagonal").group_by("key", LOCAL_DAY).agg(pl.all().sum()).collect()


def _window(daily: pl.DataFrame, days: int, counters: Counters, by: str) -> pl.DataFrame:
    """The sums over the `days` days before each day, for every key and day that has any."""
    later = pl.DataFrame({"later": range(1, days + 1)})
    spread = daily.lazy().join(later.lazy(), how="cross").with_columns(
        pl.col(LOCAL_DAY) + pl.duration(days=pl.col("later"))
    )  # fmt: skip
    sums = spread.drop("later").group_by("key", LOCAL_DAY).agg(pl.all().sum())
    values = {
        counters.column(by, name, days): (
            (pl.col(f"{name} sum") / pl.col(f"{name} n")).fill_nan(None) if measure.mean else pl.col(f"{name} n")
        ).cast(pl.Float32)
        for name, measure in counters.measures.items()
    }
    return sums.select("key", LOCAL_DAY, **values).collect()
