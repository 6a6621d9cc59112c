"""Third stage: the impressions of one partition and day with their outcomes, and what they add to daily counters."""

from datetime import timedelta

import numpy as np
import polars as pl

from pipeline.columns import EVENT_TIME, LOCAL_DAY
from pipeline.raw.reading import REJECTED
from pipeline.samples.frames.context import append_context
from pipeline.samples.frames.counters import daily_counts
from pipeline.samples.frames.days import begins_ms, local_time
from pipeline.samples.frames.hashing import user_hash
from pipeline.samples.frames.outcomes import ROW, append_outcomes, attribute_events, drop_repeats
from pipeline.samples.kept.results import content_digest, key_of
from pipeline.samples.stages.deal import count_reasons
from pipeline.samples.stages.pieces import read_pieces
from pipeline.samples.stages.profiles import reject_repeats
from pipeline.samples.stages.units import Attribution, Counted, CountTask, Profiled, Unit, UnitDone
from pipeline.spec.logs import Event, Logs
from pipeline.spec.parts import digest_of_parts
from pipeline.sql.expressions import columns_used

HASH = " hash of the user"  # a column of the attributed impressions, which are sorted by it


def attribute(unit: Unit) -> UnitDone:
    """The unit's attribution, the profile rows that it sees and, if the spec has counters, its daily counts."""
    attributed = unit.attributed.get_or_make(unit, Attribution, lambda: _attribute(unit))
    profiled = unit.profiled.get_or_make(unit, Profiled, lambda: _profile(unit))
    if not unit.spec.counters:
        return UnitDone(attributed, profiled, None)
    task = CountTask(unit, attributed.receipt.digest, profiled.receipt.digests)
    return UnitDone(attributed, profiled, task.results.get_or_make(task, Counted, lambda: _count(task)))


def _attribute(unit: Unit) -> Attribution:
    logs = unit.spec.logs
    ids, user = list(logs.impression.id), logs.impression.user
    read = read_pieces(unit.pieces["impression"].get(unit.day, ()), logs.impression)
    impressions = drop_repeats(read, ids)
    duplicates = {"impression": read.height - impressions.height}
    repeats = pl.DataFrame(schema=REJECTED)
    if logs.events:
        impressions, repeats = reject_repeats(impressions, [*dict.fromkeys((*ids, user))], "impression")
    impressions = sort_impressions(impressions, logs)

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


def sort_impressions(impressions: pl.DataFrame, logs: Logs) -> pl.DataFrame:
    """Sorts by the hash of the user, time and id: the order is the same for any number of partitions.

    Rows of interaction logs that agree in all of these are sorted by the rest of their content, column by column in the
    order of the columns' names: that of their declaration changes no sample.
    """
    keys = [logs.impression.time, *logs.impression.id]
    rest = [logs.impression.user] if logs.events else sorted(impressions.columns)
    hashes = user_hash(impressions[logs.impression.user])
    times = impressions[logs.impression.time].to_numpy()
    # Two numbers are sorted in a quarter of the time of all keys, and are nearly always enough.
    order = np.lexsort((times, hashes))
    ordered = impressions[order].with_columns(pl.Series(HASH, hashes[order]))
    ties = (np.diff(hashes[order]) == 0) & (np.diff(times[order]) == 0)
    return ordered.sort(*dict.fromkeys((HASH, *keys, *rest))) if ties.any() else ordered


def _events(unit: Unit, name: str, event: Event) -> tuple[pl.DataFrame, int]:
    """The events that the unit's impressions may have, without copies; and the number of copies on the unit's day."""
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
    """Keeps the profile rows of keys that were shown; with validity, those that begin by the end of the day.

    An end of validity after the day is dropped: it changes nothing on the day.
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
    used = columns_used(e for measure in measures for e in (measure.where, measure.mean) if e)
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


def event_rows(unit: Unit, impressions: pl.DataFrame, kinds: set[str], used: set[str]) -> dict[str, pl.DataFrame]:
    """The rows of each kind of event: the columns that are used, `local_day`, the event's time and impression row.

    An event has its impression's columns and context beside its own values. The kind `impression` has the impression's
    own time.
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
