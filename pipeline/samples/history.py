"""History features: what a user did last, strictly before the impression."""

import numpy as np
import polars as pl
import pyarrow as pa

_POSITION = "_position"


def append_history(samples: pl.DataFrame, past: pl.DataFrame, *, user: str, time: str, name: str, last: int
                   ) -> pl.DataFrame:  # fmt: skip
    """Adds the list column `name`: `past.value` of the user's `last` events before the impression, oldest first.

    `past` has the columns `user`, `time_ms` and `value`, one row per event. An event at the very time of the
    impression is not before it. Events of the same time are ordered by value, so that the result does not depend
    on the order of the log.
    """
    past = past.drop_nulls().sort("user", "time_ms", "value")
    moments = past.with_row_index(_POSITION).group_by("user", "time_ms").agg(pl.col(_POSITION).max())
    first = past.with_row_index(_POSITION).group_by("user").agg(first=pl.col(_POSITION).min())
    asked = samples.select(user=pl.col(user), time_ms=pl.col(time)).with_row_index("row")
    ends = (
        asked.sort("time_ms")
        .join_asof(
            moments.sort("time_ms"),
            on="time_ms",
            by="user",
            strategy="backward",
            allow_exact_matches=False,
            check_sortedness=False,  # Polars cannot check it within groups
        )
        .join(first, on="user", how="left")
        .sort("row")
    )
    end = (ends[_POSITION].cast(pl.Int64) + 1).fill_null(0).to_numpy()
    start = np.maximum(ends["first"].cast(pl.Int64).fill_null(0).to_numpy(), end - last)
    length = np.where(end > 0, end - start, 0)
    return samples.with_columns(_slices(past["value"], start, length).alias(name))


def _slices(values: pl.Series, start: np.ndarray, length: np.ndarray) -> pl.Series:
    """The list of values[start : start + length] for each pair, without a loop over the pairs."""
    offset = np.concatenate([[0], np.cumsum(length)])
    within = np.arange(offset[-1]) - np.repeat(offset[:-1], length)
    picked = values.gather(np.repeat(start, length) + within)
    return list_series(picked, offset)


def list_series(values: pl.Series, offsets: np.ndarray) -> pl.Series:
    """A list column from its flat values and n + 1 offsets."""
    return pl.Series(pl.from_arrow(pa.LargeListArray.from_arrays(pa.array(offsets, pa.int64()), values.to_arrow())))
