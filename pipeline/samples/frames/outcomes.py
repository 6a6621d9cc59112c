"""Outcomes: the events that followed each impression, and the columns that they give it."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl

from pipeline.columns import EVENT_TIME
from pipeline.spec.logs import Event, Logs

# Columns that an event has of its impression: its row, user and time. No column of a log starts with a blank.
ROW, SHOWN_TO, SHOWN_AT = " row of the impression", " user of the impression", " time of the impression"


@dataclass(frozen=True)
class Attributed:
    """Events of one kind that belong to an impression, and the number of those outside its window."""

    events: pl.DataFrame
    """ROW (uint32), `event_time_ms` and the event's own values."""
    outside_window: int


def drop_repeats(rows: pl.DataFrame, within: list[str]) -> pl.DataFrame:
    """Drops exact copies of earlier rows; the others keep their order.

    Comparing all columns of all rows is expensive. Only rows that agree in the few columns `within` can be copies.
    """
    first = rows.select(_key(within).is_first_distinct()).to_series()
    if first.all():
        return rows
    numbered = rows.with_row_index(ROW)
    repeated = numbered.filter(~first).select(within).unique()
    suspects = numbered.join(repeated, on=within, how="semi", nulls_equal=True, maintain_order="left")
    copies = suspects.filter(pl.struct(rows.columns).is_first_distinct().not_())[ROW]
    keep = np.full(rows.height, True)
    keep[copies.to_numpy()] = False
    return rows.filter(keep)


def _key(columns: list[str]) -> pl.Expr:
    return pl.col(columns[0]) if len(columns) == 1 else pl.struct(columns)


def attribute_events(impressions: pl.DataFrame, events: pl.DataFrame, event: Event, logs: Logs) -> Attributed:
    """Joins events to the impression of the same id and user, from its time to `within_s` after it.

    The event's own time counts, not that of its arrival: an event that reaches the log a day late is attributed like
    any other.
    """
    ids, user = list(logs.impression.id), logs.impression.user
    shown = impressions.select(*ids, pl.col(user).alias(SHOWN_TO), pl.col(logs.impression.time).alias(SHOWN_AT))
    shown = shown.with_row_index(ROW)
    own = events.select(*dict.fromkeys((*ids, user)), pl.col(event.time).alias(EVENT_TIME), *event.values)
    found = own.join(shown, on=ids, how="inner", maintain_order="left").filter(pl.col(user) == pl.col(SHOWN_TO))
    delay = pl.col(EVENT_TIME) - pl.col(SHOWN_AT)
    within = found.filter(delay.is_between(0, event.within_s * 1000))
    return Attributed(within.select(ROW, EVENT_TIME, *event.values), outside_window=found.height - within.height)


def append_outcomes(impressions: pl.DataFrame, events: dict[str, pl.DataFrame], logs: Logs) -> pl.DataFrame:
    """Adds a column for each kind of event, true where it happened, and its values, combined as the spec says.

    `events` has the attributed events of each kind. `first` and `last` go by the event's time.
    """
    columns: list[pl.Series] = []
    for name, of_kind in events.items():
        values = logs.events[name].values
        happened = np.full(impressions.height, False)
        happened[of_kind[ROW].to_numpy()] = True
        columns.append(pl.Series(name, happened))
        if values:
            combined = _combined(of_kind, values)
            at = np.full(impressions.height, -1, np.int64)
            at[combined[ROW].to_numpy()] = np.arange(combined.height)
            places = pl.Series(at).set(pl.Series(at < 0), None)
            columns += [combined[value].gather(places) for value in values]
    return impressions.with_columns(columns)


def _combined(events: pl.DataFrame, values: Mapping[str, str]) -> pl.DataFrame:
    """ROW and the combined values of its events. Most rows have one event, which needs no grouping."""
    how_often = np.bincount(events[ROW].to_numpy())
    several = pl.Series(how_often[events[ROW].to_numpy()] > 1)
    together = (
        events.filter(several)
        .sort(EVENT_TIME, *sorted(values))
        .group_by(ROW)
        .agg(getattr(pl.col(value), how)() for value, how in values.items())
    )
    # As in a group, the sum of a missing value is 0.
    summed = [pl.col(value).fill_null(0) for value, how in values.items() if how == "sum"]
    single = events.filter(~several).select(ROW, *values).with_columns(summed)
    return pl.concat([single.cast(together.schema), together])
