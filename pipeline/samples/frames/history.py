"""History features: what a user did last, strictly before the impression.

A history is kept as a span of one column of past values: its start and its length. The lists themselves are made when
samples are written. Until then a row costs two numbers instead of a list.
"""

from dataclasses import dataclass

import numpy as np
import polars as pl
import pyarrow as pa

from pipeline.columns import EVENT_TIME

VALUE = "value"


@dataclass(frozen=True)
class Spans:
    """The last values before each impression, oldest first: `length` values of a column, from `start` on."""

    start: np.ndarray
    length: np.ndarray


def sort_past(past: pl.DataFrame) -> pl.DataFrame:
    """Past events (`user`, `event_time_ms`, `value`) by user and time.

    Events of the same time are ordered by value, so that the result does not depend on the order of the log.
    """
    return past.drop_nulls().sort("user", EVENT_TIME, VALUE)


def find_spans(asked: pl.DataFrame, past: pl.DataFrame, last: int) -> Spans:
    """The span of `past` that each row of `asked` (`user`, `time_ms`) may see; `past` is sorted by `sort_past`.

    It has at most `last` events, all strictly before the row's time: an event of the same ms is not among them.
    """
    if past.is_empty() or asked.is_empty():
        return Spans(np.zeros(asked.height, np.int64), np.zeros(asked.height, np.int64))
    begins = _begins(past["user"])
    users = pl.DataFrame({"user": past["user"][begins], "number": np.arange(len(begins))})
    # A row's user is looked up once per run of rows of the same user.
    runs = asked["user"].rle_id().to_numpy()
    first_of_run = np.flatnonzero(np.diff(runs.astype(np.int64), prepend=-1))
    found = asked[first_of_run].select("user").join(users, on="user", how="left", maintain_order="left")["number"]
    number = found.fill_null(-1).to_numpy()[runs]

    earliest = int(past[EVENT_TIME].min())  # type: ignore[arg-type]
    reach = int(past[EVENT_TIME].max()) - earliest + 2  # type: ignore[arg-type]
    assert len(begins) * reach < 2**62, "times too far apart, or too many users, for one number"
    moments = np.repeat(np.arange(len(begins)), np.diff([*begins, past.height])) * reach
    moments += past[EVENT_TIME].to_numpy() - earliest
    moment = number * reach + np.clip(asked["time_ms"].to_numpy() - earliest, 0, reach - 1)
    end = np.searchsorted(moments, moment, side="left")
    start = np.maximum(begins[number], end - last)
    return Spans(start, np.where(number >= 0, end - start, 0))


def still_needed(past: pl.DataFrame, last: int, before_ms: int) -> pl.DataFrame:
    """The events of `past`, sorted by `sort_past`, that an impression at or after `before_ms` can see.

    These are all events from `before_ms` on, and of those before it the `last` of each user.
    """
    if past.is_empty():
        return past
    begins = _begins(past["user"])
    earlier = np.add.reduceat((past[EVENT_TIME] < before_ms).to_numpy().astype(np.int64), begins)
    first_kept = begins + np.maximum(earlier - last, 0)
    kept = np.arange(past.height) >= np.repeat(first_kept, np.diff([*begins, past.height]))
    return past.filter(kept)


def _begins(users: pl.Series) -> np.ndarray:
    """Where each user's rows begin, in a column that has the rows of a user together."""
    return np.flatnonzero(np.diff(users.rle_id().to_numpy().astype(np.int64), prepend=-1))


def lists_of_spans(values: pl.Series, spans: Spans) -> pl.Series:
    """The lists that the spans stand for, without a loop over the rows."""
    offset = np.concatenate([[0], np.cumsum(spans.length)])
    within = np.arange(offset[-1]) - np.repeat(offset[:-1], spans.length)
    return list_series(values.gather(np.repeat(spans.start, spans.length) + within), offset)


def list_series(values: pl.Series, offsets: np.ndarray) -> pl.Series:
    """A list column from its flat values and n + 1 offsets."""
    return pl.Series(pl.from_arrow(pa.LargeListArray.from_arrays(pa.array(offsets, pa.int64()), values.to_arrow())))


def flatten(lists: pl.Series) -> tuple[pl.Series, np.ndarray]:
    """The values of a list column and its n + 1 offsets; a null is an empty list."""
    lengths = lists.list.len().fill_null(0).to_numpy()
    arrow = lists.to_arrow()
    assert isinstance(arrow, pa.LargeListArray)
    return pl.Series(lists.name, arrow.flatten()), np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
