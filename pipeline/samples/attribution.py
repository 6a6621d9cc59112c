"""Gives every impression the events that followed it, and every event the impression that it followed."""

from dataclasses import dataclass

import polars as pl

from pipeline.spec import Event, Logs

EVENT_TIME = "event_time_ms"


@dataclass(frozen=True)
class Attributed:
    """Events of one kind that belong to an impression, and counts of those that do not."""

    events: pl.DataFrame
    """The impression's id columns, the event's own values, and `event_time_ms`."""
    without_impression: int
    outside_window: int


def attribute_events(impressions: pl.DataFrame, events: pl.DataFrame, event: Event, logs: Logs) -> Attributed:
    """Events joined to their impression by its id, if at most `within_s` after it and not before it.

    The time that counts is the event's own, not that of its arrival: an event that reaches the log a day late
    is attributed like any other.
    """
    ids = list(logs.impression.id)
    # No value of an event may be called `impression_time`; columns that are no value may have any name.
    times = impressions.select(*ids, impression_time=pl.col(logs.impression.time))
    own = events.select(*ids, pl.col(event.time).alias(EVENT_TIME), *event.values)
    joined = own.join(times, on=ids, how="left", maintain_order="left")
    known = joined.filter(pl.col("impression_time").is_not_null())
    delay = pl.col(EVENT_TIME) - pl.col("impression_time")
    within = known.filter(delay.is_between(0, event.within_s * 1000))
    return Attributed(
        within.drop("impression_time"),
        without_impression=joined.height - known.height,
        outside_window=known.height - within.height,
    )


def append_outcomes(impressions: pl.DataFrame, attributed: dict[str, Attributed], logs: Logs) -> pl.DataFrame:
    """Adds a column for each event, true where it happened, and its values, combined as the spec says.

    Where an event happened more than once, `first` and `last` go by the event's time.
    """
    ids = list(logs.impression.id)
    for name, of_kind in attributed.items():
        values = logs.events[name].values
        combined = of_kind.events.sort(EVENT_TIME, *values).group_by(ids).agg(
            pl.lit(True).first().alias(name), *(getattr(pl.col(value), how)() for value, how in values.items())
        )  # fmt: skip
        impressions = impressions.join(combined, on=ids, how="left", maintain_order="left").with_columns(
            pl.col(name).fill_null(False)
        )
    return impressions
