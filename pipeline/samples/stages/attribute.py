"""Third stage: the impressions of one partition and day with their outcomes, and what they add to daily counters."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cached_property

import numpy as np
import polars as pl

from pipeline.columns import EVENT_TIME, LOCAL_DAY
from pipeline.raw.reading import REJECTED
from pipeline.samples.frames.context import append_context
from pipeline.samples.frames.counters import daily_counts
from pipeline.samples.frames.days import DAY_MS, HOUR_MS, begins_ms, local_time
from pipeline.samples.frames.hashing import user_hash
from pipeline.samples.frames.outcomes import ROW, append_outcomes, attribute_events, drop_repeats
from pipeline.samples.kept.results import Done, Receipt, Results, content_digest, key_of, results
from pipeline.samples.stages.deal import count_reasons
from pipeline.samples.stages.pieces import Cell, Pieces, read_pieces
from pipeline.samples.stages.profiles import reject_repeats
from pipeline.spec.logs import Event, Logs
from pipeline.spec.parts import digest_of_parts
from pipeline.spec.spec import Spec
from pipeline.sql.expressions import parse
from pipeline.storage import Folder

HASH = "hash of the user"  # a column of the attributed impressions, which are in its order


class Attribution(Receipt):
    """What became of the rows of one partition and day; `outside_window` and `attributed` are by kind of event.

    `digest` tells apart results by what they hold: rows of later days that belong to no impression of this one, such as
    those of a day that was added, change nothing that is made of them.
    """

    rows: int
    digest: str
    duplicates: dict[str, int]
    rejected: dict[str, int]
    attributed: dict[str, int]
    outside_window: dict[str, int]


class Profiled(Receipt):
    """Digests of the profile rows that a unit's impressions can see: others, which come later, change nothing."""

    digests: dict[str, str]


class Counted(Receipt):
    """Digests of the daily counts by `<by>/<day>`: a counter whose digest stayed changes nothing that uses it."""

    digests: dict[str, str]


@dataclass(frozen=True)
class Unit:
    """One day of one partition, with the rows that concern it and the profiles of its partition."""

    store: Folder
    spec: Spec
    partition: int
    day: date
    pieces: dict[str, dict[date, Pieces]]
    """By timed table and day; of an event also the days after, as far as its window reaches."""
    profiles: dict[str, Results]

    @property
    def name(self) -> str:
        return f"{self.day}/{self.partition:04d}"

    @cached_property
    def attributed(self) -> Results:
        rows = {
            table: {str(day): [piece.key for piece in pieces] for day, pieces in sorted(days.items())}
            for table, days in self.pieces.items()
        }
        rules = digest_of_parts("attributed", self.spec)
        return results(self.store, "attributed", self.name, key_of(rules, rows, self.name))

    def digest(self, outcomes: dict[str, pl.DataFrame]) -> str:
        """Tells apart what was attributed: by the impressions of the unit, and the events that they have."""
        shown = [piece.key for piece in self.pieces["impression"].get(self.day, ())]
        rules = digest_of_parts("attributed", self.spec)
        return key_of(rules, shown, {name: content_digest(events) for name, events in outcomes.items()})

    @cached_property
    def profiled(self) -> Results:
        profiles = {name: lies_in.key for name, lies_in in self.profiles.items()}
        rules = digest_of_parts("profiled", self.spec)
        return results(self.store, "profiled", self.name, key_of(rules, self.attributed.key, profiles))

    def profile_rows(self) -> dict[str, pl.LazyFrame]:
        """Of each profile the rows that the unit's impressions can see."""
        return {name: self.profiled.read(name).lazy() for name in self.profiles}


@dataclass(frozen=True)
class CountTask:
    """A unit, and digests of its attribution and of the profile rows that it sees."""

    unit: Unit
    attributed: str
    profiled: dict[str, str]

    @cached_property
    def results(self) -> Results:
        spec = self.unit.spec
        key = key_of(digest_of_parts("counted", spec), self.attributed, self.profiled)
        return results(self.unit.store, "counted", self.unit.name, key)


@dataclass(frozen=True)
class UnitDone:
    """What there is of a unit after attribution."""

    attributed: Done[Unit, Attribution]
    profiled: Done[Unit, Profiled]
    counted: Done[CountTask, Counted] | None


def units(
    store: Folder, spec: Spec, pieces: dict[str, dict[Cell, Pieces]], profiles: dict[str, dict[int, Results]]
) -> list[Unit]:
    """A unit for every partition and day that has rows, by day."""
    reach = {"impression": 0} | {name: _days_after(event) for name, event in spec.logs.events.items()}
    cells = sorted({cell for name in reach for cell in pieces.get(name, {})}, key=lambda cell: (str(cell[1]), cell[0]))
    found = []
    for partition, day in cells:
        assert day is not None
        of_unit: dict[str, dict[date, Pieces]] = {}
        for name, after in reach.items():
            days = [day + timedelta(later) for later in range(after + 1)]
            of_unit[name] = {d: pieces[name][partition, d] for d in days if (partition, d) in pieces.get(name, {})}
        in_partition = {name: by_partition[partition] for name, by_partition in profiles.items()}
        found.append(Unit(store, spec, partition, day, of_unit, in_partition))
    return found


def _days_after(event: Event) -> int:
    """How many days further an event may lie than its impression; a day can be an hour short where clocks change."""
    return -(-(event.within_s * 1000 + HOUR_MS) // DAY_MS)


def attribute(unit: Unit) -> UnitDone:
    """The unit's attribution, the profile rows that it sees and, if the spec has counters, its daily counts."""
    attributed = unit.attributed.once(unit, Attribution, lambda: _attribute(unit))
    profiled = unit.profiled.once(unit, Profiled, lambda: _profile(unit))
    if not unit.spec.counters:
        return UnitDone(attributed, profiled, None)
    task = CountTask(unit, attributed.receipt.digest, profiled.receipt.digests)
    return UnitDone(attributed, profiled, task.results.once(task, Counted, lambda: _count(task)))


def _attribute(unit: Unit) -> Attribution:
    logs = unit.spec.logs
    ids, user = list(logs.impression.id), logs.impression.user
    read = read_pieces(unit.pieces["impression"].get(unit.day, ()), logs.impression)
    impressions = drop_repeats(read, ids)
    duplicates = {"impression": read.height - impressions.height}
    repeats = pl.DataFrame(schema=REJECTED)
    if logs.events:
        impressions, repeats = reject_repeats(impressions, [*dict.fromkeys((*ids, user))], "impression")
    impressions = in_order(impressions, logs)

    outcomes, outside = {}, {}
    for name, event in logs.events.items():
        events, duplicates[name] = _events(unit, name, event)
        found = attribute_events(impressions, events, event, logs)
        outcomes[name], outside[name] = found.events, found.outside_window
        unit.attributed.write(f"events-{name}", found.events, compress=False)
    unit.attributed.write("impressions", append_outcomes(impressions, outcomes, logs), compress=False)
    if len(repeats):
        unit.attributed.write("rejected", repeats)
    return Attribution(
        rows=impressions.height,
        digest=unit.digest(outcomes),
        duplicates=duplicates,
        rejected=count_reasons(repeats),
        attributed={name: events.height for name, events in outcomes.items()},
        outside_window=outside,
    )


def in_order(impressions: pl.DataFrame, logs: Logs) -> pl.DataFrame:
    """By the hash of the user, time and id: the same order however many partitions there are.

    Rows of interaction logs that agree in all of these are ordered by the rest of their content.
    """
    keys = [logs.impression.time, *logs.impression.id]
    rest = [logs.impression.user] if logs.events else impressions.columns
    hashes = user_hash(impressions[logs.impression.user])
    times = impressions[logs.impression.time].to_numpy()
    # Sorting by two numbers takes a quarter of the time of sorting by all keys, and is nearly always enough.
    order = np.lexsort((times, hashes))
    ordered = impressions[order].with_columns(pl.Series(HASH, hashes[order]))
    ties = (np.diff(hashes[order]) == 0) & (np.diff(times[order]) == 0)
    return ordered.sort(*dict.fromkeys((HASH, *keys, *rest))) if ties.any() else ordered


def _events(unit: Unit, name: str, event: Event) -> tuple[pl.DataFrame, int]:
    """The events that the unit's impressions may have, without copies; and how many copies the unit's own day has."""
    kept, copies = [], 0
    for day, pieces in unit.pieces[name].items():
        rows = read_pieces(pieces, event)
        end = begins_ms(unit.day + timedelta(1), unit.spec.logs.timezone) + event.within_s * 1000
        if day != unit.day:
            rows = rows.filter(pl.col(event.time) <= end)
        distinct = drop_repeats(rows, list(unit.spec.logs.impression.id))
        copies += rows.height - distinct.height if day == unit.day else 0
        kept.append(distinct)
    return pl.concat(kept) if kept else read_pieces((), event), copies


def _profile(unit: Unit) -> Profiled:
    """Rows of keys that are shown; of a profile with validity those that begin by the end of the day.

    An end of validity after the day is forgotten, as it changes nothing on the day.
    """
    ends = begins_ms(unit.day + timedelta(1), unit.spec.logs.timezone)
    digests = {}
    for name, profile in unit.spec.logs.profiles.items():
        shown = unit.attributed.read("impressions", [profile.key]).unique()
        rows = unit.profiles[name].read("rows").join(shown, on=profile.key, how="semi", maintain_order="left")
        if profile.valid_from:
            rows = rows.filter(pl.col(profile.valid_from) < ends)
        if profile.valid_to:
            rows = rows.with_columns(pl.when(pl.col(profile.valid_to) < ends).then(profile.valid_to))
        unit.profiled.write(name, rows)
        digests[name] = key_of(digest_of_parts("profiled", unit.spec), content_digest(rows.sort(pl.all())))
    return Profiled(digests=digests)


def _count(task: CountTask) -> Counted:
    unit, counters = task.unit, task.unit.spec.counters
    assert counters
    measures = counters.measures.values()
    used = expressions_columns(e for measure in measures for e in (measure.where, measure.mean) if e)
    kinds = {measure.event for measure in measures}
    events = event_rows(unit, unit.attributed.read("impressions"), kinds, used | set(counters.by.values()))
    digests = {}
    for by, key in counters.by.items():
        counts = daily_counts(events, counters, key)
        for (day,), of_day in counts.partition_by(LOCAL_DAY, as_dict=True).items():
            ordered = of_day.sort("key").drop(LOCAL_DAY)
            digests[f"{by}/{day}"] = content_digest(ordered)
            task.results.write(f"{by}-{day}", ordered)
    return Counted(digests=digests)


def expressions_columns(expressions: Iterable[str]) -> set[str]:
    """The columns that SQL expressions use."""
    return {column for expression in expressions for column in parse(expression).meta.root_names()}


def event_rows(unit: Unit, impressions: pl.DataFrame, kinds: set[str], used: set[str]) -> dict[str, pl.DataFrame]:
    """For each kind of event its rows: those columns that are used, `local_day`, the event's time and impression row.

    They have the impression's columns and context, and the event's own values. `impression` is among the kinds: its
    time is the impression's own.
    """
    logs = unit.spec.logs
    context = append_context(impressions.lazy(), unit.profile_rows(), unit.spec)
    known = context.collect_schema().names()
    of_impression = context.select(
        LOCAL_DAY, *sorted(used & {*known} - {LOCAL_DAY}), pl.col(logs.impression.time).alias(EVENT_TIME)
    )
    shown = of_impression.collect()
    rows = {}
    for kind in kinds:
        if kind == "impression":
            rows[kind] = shown.with_row_index(ROW)
        else:
            events = unit.attributed.read(f"events-{kind}")
            local_day = local_time(pl.col(EVENT_TIME), logs.timezone).dt.date().alias(LOCAL_DAY)
            events = events.with_columns(local_day)
            rows[kind] = shown.drop(events.columns, strict=False)[events[ROW]].hstack(events)
    return rows
