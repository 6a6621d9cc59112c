"""Recomputes samples from the raw log: plainly, and only the samples that are asked for.

Counters and histories need other rows of the log. Two passes find them: the first finds the impressions of the samples,
which name the users and the counters' keys; the second finds all rows of these users and keys.
"""

import math
from collections import defaultdict
from collections.abc import Iterator
from datetime import date, timedelta
from typing import Any

import polars as pl

from pipeline.audit.plain_log import PlainLog
from pipeline.audit.plain_rows import PlainRows, Row, midnight_ms, sort_key
from pipeline.columns import DAY, EVENT_TIME, IMPRESSION_TIME, LOCAL_DAY, SAMPLE_ID, TIME, USER
from pipeline.spec.features import Counters, HistoryFeature
from pipeline.spec.spec import Spec
from pipeline.sql.expressions import parse

PART_ROWS = 100_000  # impressions held as dictionaries at the same time
NANO = 1_000_000_000  # sums are of whole billionths, so that their order does not matter
SampleKey = tuple[Any, Any, int]
_FIRST, _LAST = " first wanted", " last wanted"  # no column of a log starts with a blank


class Past:
    """The past that counters and histories need: sums per key and day, and the events of each user."""

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self.count: defaultdict[tuple[str, str, Any, date], int] = defaultdict(int)
        self.nano_sum: defaultdict[tuple[str, str, Any, date], int] = defaultdict(int)
        self.events: defaultdict[tuple[str, Any], list[tuple[int, Any]]] = defaultdict(list)
        """Times and values by the history's name and the user."""
        self.types: dict[str, pl.DataType] = {}

    def learn(self, happened: dict[str, PlainRows], wanted: dict[str, set[Any]], users: set[Any]) -> None:
        """Adds events of the `wanted` values of each counter's key, and of the `users` whose histories matter."""
        if self.spec.counters:
            self._count(happened, wanted, self.spec.counters)
        for name, feature in self.spec.features.items():
            if isinstance(feature, HistoryFeature):
                self._remember(happened[feature.event], users, name, feature)

    def _count(self, happened: dict[str, PlainRows], wanted: dict[str, set[Any]], counters: Counters) -> None:
        for name, measure in counters.measures.items():
            events = happened[measure.event]
            values = events.numbers(measure.mean) if measure.mean else [1.0] * len(events.rows)
            for row, holds, value in zip(events.rows, events.holds(measure.where), values, strict=True):
                if holds and value is not None and math.isfinite(value):
                    for by, key in counters.by.items():
                        if row[key] in wanted[key]:
                            place = (by, name, row[key], row[LOCAL_DAY])
                            self.count[place] += 1
                            self.nano_sum[place] += round(value * NANO)

    def _remember(self, events: PlainRows, users: set[Any], name: str, feature: HistoryFeature) -> None:
        values = events.evaluate(feature.of)
        self.types[name] = values.dtype
        for row, holds, value in zip(events.rows, events.holds(feature.where), values.to_list(), strict=True):
            user = row[self.spec.logs.impression.user]
            if holds and value is not None and user in users:
                self.events[name, user].append((row[EVENT_TIME], value))

    def counters(self, row: Row, counters: Counters) -> Row:
        """Every counter of a sample, over the completed days before its own."""
        found: Row = {}
        for by, key in counters.by.items():
            for name, measure in counters.measures.items():
                for days in counters.days:
                    places = [(by, name, row[key], row[LOCAL_DAY] - timedelta(back)) for back in range(1, days + 1)]
                    count = sum(self.count[place] for place in places)
                    total = sum(self.nano_sum[place] for place in places)
                    mean = total / NANO / count if count else None
                    found[counters.column(by, name, days)] = count if measure.mean is None else mean
        return found

    def history(self, row: Row, name: str, last: int) -> list[Any]:
        """The values of the user's last events before the impression. Events of the same time are in order of value."""
        impression = self.spec.logs.impression
        events = self.events[name, row[impression.user]]
        before = [event for event in events if event[0] < row[impression.time]]
        return [value for _, value in sorted(before, key=lambda event: sort_key(*event))[-last:]]


def recompute(log: PlainLog, stored: pl.DataFrame) -> tuple[PlainRows, Past]:
    """The samples that the log has, with their outcomes and counters, and their past.

    `stored` has the columns sample_id, user_id and time_ms of the store; the samples are these rows.
    """
    spec, impression = log.spec, log.spec.logs.impression
    keys = set(stored.select(SAMPLE_ID, USER, TIME).iter_rows())
    moments = stored.select(pl.col(USER).alias(impression.user), pl.col(TIME).alias(impression.time)).unique()
    own = log.impressions(log.rows_of("impression", moments))
    own.rows[:] = [row for row in own.rows if sample_key(row, spec) in keys]
    by = set(spec.counters.by.values()) if spec.counters else set()
    wanted = {key: {row[key] for row in own.rows if row[key] is not None} for key in by}
    users = {user for _, user, _ in keys}

    match = _concerned(log, own, wanted)
    shown = log.rows_of("impression", match)
    events = {name: log.rows_of(name, match) for name in spec.logs.events}
    past, samples = Past(spec), PlainRows([], {})
    for part, followed in _parts(shown, events, log.keys):
        rows = log.impressions(part)
        past.learn(log.follow(rows, followed), wanted, users)
        samples.rows.extend(row for row in rows.rows if sample_key(row, spec) in keys)
        samples.types.update(rows.types)
    if spec.counters:
        found = [past.counters(row, spec.counters) for row in samples.rows]
        for column in spec.counters.columns():
            samples.add(column, [counters[column] for counters in found], pl.Float32())
    return samples, past


def sample_key(row: Row, spec: Spec) -> SampleKey:
    """The columns that identify a sample: an id may come again on another day."""
    impression = spec.logs.impression
    return row[SAMPLE_ID], row[impression.user], row[impression.time]


def _concerned(log: PlainLog, own: PlainRows, wanted: dict[str, set[Any]]) -> pl.DataFrame:
    """Id and user of every impression with a user or a counter's key of the samples: its events may matter."""
    impression = log.spec.logs.impression
    users = own.column(impression.user).unique().to_frame()
    ranges = {key: _range(log, own, key) for key in wanted}
    found = []
    for chunk in log.chunks("impression"):
        found.append(chunk.join(users, on=impression.user, how="semi").select(log.keys))
        rows = _with_keys(chunk, log, set(wanted))
        for key, range_ in ranges.items():
            near = rows.join(range_, on=key).filter(pl.col(impression.time).is_between(_FIRST, _LAST))
            found.append(near.select(log.keys))
    return pl.concat(found).unique()


def _range(log: PlainLog, own: PlainRows, key: str) -> pl.DataFrame:
    """The first and last time, in ms, of impressions that may count, for each value of a counter's key."""
    counters = log.spec.counters
    assert counters
    longest = max([0, *(event.within_s * 1000 for event in log.spec.logs.events.values())])
    days: defaultdict[Any, list[date]] = defaultdict(list)
    for row in own.rows:
        if row[key] is not None:
            days[row[key]].append(row[LOCAL_DAY])
    first = [midnight_ms(min(of) - timedelta(max(counters.days)), log.zone) - longest for of in days.values()]
    last = [midnight_ms(max(of), log.zone) for of in days.values()]
    return pl.DataFrame(
        {key: list(days), _FIRST: first, _LAST: last}, schema={key: own.types[key], _FIRST: pl.Int64, _LAST: pl.Int64}
    )


def _with_keys(rows: pl.DataFrame, log: PlainLog, keys: set[str]) -> pl.DataFrame:
    """Impressions with every value that a counter's key may have for them.

    This only narrows the log down. An impression comes once for each version of a profile, also for versions that were
    not valid at its time.
    """
    logs, needed = log.spec.logs, set(keys)
    for name, expression in reversed(log.spec.columns.items()):
        if name in needed:
            needed |= set(parse(expression).meta.root_names())
    local = pl.from_epoch(logs.impression.time, time_unit="ms").dt.replace_time_zone("UTC")
    local = local.dt.convert_time_zone(logs.timezone).dt.replace_time_zone(None)
    rows = rows.with_columns(local.alias(IMPRESSION_TIME), local.dt.date().alias(LOCAL_DAY))
    rows = rows.with_columns((parse(logs.day) if logs.day else pl.col(LOCAL_DAY)).cast(pl.Date).alias(DAY))
    for name, profile in logs.profiles.items():
        if needed & set(profile.values):
            versions = log.profiles[name].select(profile.key, *profile.values)
            unknown = versions.select(profile.key).unique()
            rows = rows.join(pl.concat([versions, unknown], how="diagonal"), on=profile.key, how="left")
    for name, expression in log.spec.columns.items():
        if name in needed:
            rows = rows.with_columns(parse(expression).alias(name))
    return rows


def _parts(
    shown: pl.DataFrame, events: dict[str, pl.DataFrame], keys: list[str]
) -> Iterator[tuple[pl.DataFrame, dict[str, pl.DataFrame]]]:
    """Impressions with their events, in parts that do not depend on each other.

    So only one part is held as dictionaries at a time. A video that everyone saw concerns a large part of the log.
    """
    count = 1 + shown.height // PART_ROWS
    for number in range(count):
        here = pl.struct(keys).hash() % count == number
        yield shown.filter(here), {name: rows.filter(here) for name, rows in events.items()}
