"""Rows of a log as plain dictionaries, and the spec's SQL evaluated over the few of them that an audit needs.

The audit is the one place in Strata where Python loops over rows are right: it must be slow and plain, so that it
shares no mistake with the vectorised code that builds samples.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import polars as pl

from pipeline.sql.expressions import parse

Row = dict[str, Any]
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_ROW = "the row"  # no column of a spec has a blank in its name


@dataclass(frozen=True)
class PlainRows:
    """Dictionaries with the same keys, and the Polars type of each key that SQL may name."""

    rows: list[Row]
    types: dict[str, pl.DataType]

    def add(self, name: str, values: Iterable[Any], type_: pl.DataType) -> None:
        """Adds a column."""
        for row, value in zip(self.rows, values, strict=True):
            row[name] = value
        self.types[name] = type_

    def column(self, name: str) -> pl.Series:
        return pl.Series(name, [row[name] for row in self.rows], dtype=self.types[name])

    def evaluate(self, expression: str) -> pl.Series:
        """The value of an SQL expression for each row."""
        parsed = parse(expression)
        frame = pl.DataFrame({_ROW: range(len(self.rows))})  # gives a constant expression its length
        frame = frame.with_columns(self.column(name) for name in set(parsed.meta.root_names()))
        return frame.with_columns(parsed.alias("value"))["value"]

    def holds(self, condition: str | None) -> list[bool]:
        """Whether a condition, if there is one, is true for each row; null is false."""
        if condition is None:
            return [True] * len(self.rows)
        return self.evaluate(condition).fill_null(False).to_list()

    def numbers(self, expression: str) -> list[float | None]:
        """An SQL expression as 64-bit floats."""
        return self.evaluate(expression).cast(pl.Float64).to_list()


def local_time(time_ms: int, zone: ZoneInfo) -> datetime:
    """The wall clock in a zone at `time_ms` since the epoch, without the zone."""
    return (EPOCH + timedelta(milliseconds=time_ms)).astimezone(zone).replace(tzinfo=None)


def midnight_ms(day: date, zone: ZoneInfo) -> int:
    """When a day begins in a zone, in ms since the epoch."""
    return round(datetime.combine(day, time(), zone).timestamp() * 1000)


def in_order(*values: Any) -> tuple[Any, ...]:
    """A key for sorting by values some of which are missing: nulls first, NaN last."""
    return tuple((value is not None, value != value, value) for value in values)
