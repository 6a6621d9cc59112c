"""Local days: which day of the spec's time zone a moment belongs to, and when a day begins."""

from datetime import date, datetime, time
from zoneinfo import ZoneInfo

import polars as pl

HOUR_MS, DAY_MS = 3_600_000, 86_400_000


def local_time(time_ms: pl.Expr, timezone: str) -> pl.Expr:
    """The wall clock's date and time, without a zone, of a time in ms since the epoch."""
    utc = pl.from_epoch(time_ms, time_unit="ms")
    if timezone == "UTC":
        return utc
    return utc.dt.replace_time_zone("UTC").dt.convert_time_zone(timezone).dt.replace_time_zone(None)


def begins_ms(day: date, timezone: str) -> int:
    """When a local day begins, in ms since the epoch."""
    return int(datetime.combine(day, time(), ZoneInfo(timezone)).timestamp() * 1000)
