"""Rows of a log as plain dictionaries, and the spec's SQL evaluated over them.

Only the audit may loop over rows in Python. It needs few rows, and it must be plain: a mistake in the vectorised code
that builds samples must not be repeated here.
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
_ROW = " the row"  # no column of a log starts with a blank


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
        frame = pl.DataFrame({_ROW: range(len(self.rows))})  # so that a constant expression has a value for each row
        frame = frame.with_columns(self.column(name) for name in set(parsed.meta.root_names()))
        return frame.with_columns(parsed.alias("value"))["value"]

    def holds(self, condition: str | None) -> list[bool]:
        """Whether a condition is true for each row. Null is false; no condition is true."""
        if condition is None:
            return [True] * len(self.rows)
        return self.evaluate(condition).fill_null(False).to_list()

    def numbers(self, expression: str) -> list[float | None]:
        """The value of an SQL expression for each row, as 64-bit floats."""
        return self.evaluate(expression).cast(pl.Float64).to_list()


def local_time(time_ms: int, zone: ZoneInfo) -> datetime:
    """The wall clock in a zone at `time_ms` since the epoch, without the zone."""
    return (EPOCH + timedelta(milliseconds=time_ms)).astimezone(zone).replace(tzinfo=None)


def midnight_ms(day: date, zone: ZoneInfo) -> int:
    """When a day begins in a zone, in ms since the epoch."""
    return round(datetime.combine(day, time(), zone).timestamp() * 1000)


def sort_key(*values: Any) -> tuple[Any, ...]:
    """A key for sorting by values of which some are missing: nulls come first, NaN last."""
    return tuple((value is not None, value != value, value) for value in values)
