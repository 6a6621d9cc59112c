"""Fifth stage: drafts, which are samples whose features are not encoded yet, of one partition, day after day.

The last events of every history are carried from each day to the next. A day is drafted in runs of rows, so that one
day of one very busy user fits into memory too.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from functools import partial
from itertools import pairwise

import numpy as np
import polars as pl

from pipeline.columns import DAY, WEIGHT, sample_columns
from pipeline.errors import StrataError
from pipeline.samples.frames.context import append_context, append_identity, count_repeats, without_column
from pipeline.samples.frames.counters import append_counters
from pipeline.samples.frames.days import begins_ms
from pipeline.samples.frames.dictionary import dictionary_encode
from pipeline.samples.frames.features import append_features, past_values, start_column
from pipeline.samples.frames.history import VALUE, Spans, find_spans, sort_past, still_needed
from pipeline.samples.frames.labels import KEEP, WANTED, append_labels
from pipeline.samples.frames.tallies import SLOT, merge, tallies
from pipeline.samples.kept.results import Done, Receipt, Results, content_digest, key_of, results
from pipeline.samples.stages.attribute import HASH, event_rows
from pipeline.samples.stages.deal import slot_of
from pipeline.samples.stages.sum_counters import CountFile, Summed, SumWindowsTask, read_windows
from pipeline.samples.stages.units import Unit, UnitDone
from pipeline.spec.features import HistoryFeature
from pipeline.spec.parts import digest_of_parts
from pipeline.sql.expressions import columns_used

BLOCK_ROWS = 65_536  # rows of a slot that are summed together; another number gives sums of floats other last bits
RUN_ROWS = 250_000


class Drafted(Receipt):
    """The draft of one partition and day: its runs of rows, and digests of what each history carries on.

    `days` counts the samples by the day that they are filed under, `filtered` those that the spec's filter left out.
    """

    runs: int
    days: dict[date, int]
    filtered: int
    bad_weights: int
    without_profile: dict[str, int]
    carried: dict[str, str]
    sketches: dict[str, list[int]]


@dataclass(frozen=True)
class Day:
    """An attributed unit with the counters before its day: those of users as daily counts, others as windows."""

    done: UnitDone
    by_user: dict[str, tuple[CountFile, ...]]
    windows: dict[str, Done[SumWindowsTask, Summed] | None]

    @property
    def unit(self) -> Unit:
        return self.done.attributed.task

    def results(self, carried: dict[str, str]) -> Results:
        """Where the draft lies; `carried` has the digests of what the day before carries on."""
        unit, spec = self.unit, self.unit.spec
        counters = {by: [(part.back, part.digest) for part in parts] for by, parts in self.by_user.items()}
        counters |= {by: [(0, window.receipt.digest)] for by, window in self.windows.items() if window}
        attributed, profiled = self.done.attributed.receipt.digest, self.done.profiled.receipt.digests
        key = key_of(digest_of_parts("drafts", spec), attributed, profiled, counters, carried)
        return results(unit.store, "drafts", unit.name, key)


@dataclass(frozen=True)
class Draft:
    """A unit, and where its draft lies."""

    unit: Unit
    results: Results


def draft_partition(days: list[Day]) -> list[Done[Draft, Drafted]]:
    """Drafts the days of one partition that are not drafted yet, in their order.

    Raises StrataError for an impression whose `logs.day` is null.
    """
    drafts: list[Done[Draft, Drafted]] = []
    for day in days:
        before = drafts[-1] if drafts else None
        lies_in = day.results(before.receipt.carried if before else {})
        earlier = before.task.results if before else None
        make = partial(_draft, day, lies_in, earlier)
        drafts.append(lies_in.get_or_make(Draft(day.unit, lies_in), Drafted, make))
    return drafts


def _draft(day: Day, lies_in: Results, before: Results | None) -> Drafted:
    unit, spec = day.unit, day.unit.spec
    impressions = count_repeats(unit.attributed.read("impressions"), spec.logs)
    profiles, counters = unit.profile_rows(), _counters(day)
    spans, past, carried = _histories(unit, impressions, lies_in, before)
    parts, filtered, bad_weights, without = [], 0, 0, dict.fromkeys(spec.logs.profiles, 0)
    for number, (start, blocks) in enumerate(_runs(impressions[HASH].to_numpy())):
        rows = slice(start, start + len(blocks))
        run = append_context(impressions[rows].drop(HASH).lazy(), profiles, spec)
        if spec.counters:
            run = append_counters(run, counters, spec.counters)
        of_run = {f: Spans(s.start[rows], s.length[rows]) for f, s in spans.items()}
        run = append_features(append_labels(run, spec), of_run, spec)
        # The identity comes last: a log may have columns of its own called `user_id` or `time_ms`.
        run = append_identity(run, spec.logs).with_columns(pl.Series(SLOT, blocks))
        kept = [KEEP] if spec.downsample else []
        stored = [DAY, *kept, *sample_columns(spec), *map(start_column, spans)]
        shown = run.select(*stored, SLOT, WANTED, *map(without_column, without)).collect()
        if nulls := shown[DAY].null_count():
            raise StrataError(
                f"logs.day is null for {nulls} impressions of {unit.day}",
                where=spec.logs.day,
                fix="correct the expression",
            )
        samples = shown.filter(WANTED)
        filtered += shown.height - samples.height
        without = {name: number + int(shown[without_column(name)].sum()) for name, number in without.items()}
        sound = samples[WEIGHT].is_finite() & (samples[WEIGHT] >= 0)
        bad_weights += samples.height - int(sound.sum())
        coded = dictionary_encode(samples, spec)
        parts.append(tallies(coded, past, spec))
        lies_in.write(f"run-{number}", coded.rows.select(stored))
        lies_in.write(f"ids-{number}", coded.table())
    together = merge(parts)
    for name, counts in together.values.items():
        lies_in.write(f"values-{name}", counts)
    lies_in.write("sums", together.sums)
    lies_in.write("tally", together.tally)
    rows_by_day = together.tally.filter((pl.col("what") == "rows") & pl.col("scene").is_null()).select(DAY, "rows")
    return Drafted(
        runs=len(parts),
        days=dict(rows_by_day.sort(DAY).iter_rows()),
        filtered=filtered,
        bad_weights=bad_weights,
        without_profile=without,
        carried=carried,
        sketches={name: hashes.tolist() for name, hashes in together.sketches.items()},
    )


def _counters(day: Day) -> dict[str, pl.LazyFrame | None]:
    """The windows before the day, by counter key."""
    found: dict[str, pl.LazyFrame | None] = {}
    for by, parts in day.by_user.items():
        assert day.unit.spec.counters
        found[by] = read_windows(parts, day.unit.spec.counters, by).lazy() if parts else None
    for by, window in day.windows.items():
        found[by] = window.task.results.read("windows").lazy() if window else None
    return found


def _histories(
    unit: Unit, impressions: pl.DataFrame, lies_in: Results, before: Results | None
) -> tuple[dict[str, Spans], dict[str, pl.Series], dict[str, str]]:
    """By history the spans of the rows, the past values that they lie in, and a digest of what is carried on."""
    spec, logs = unit.spec, unit.spec.logs
    histories = {name: f for name, f in spec.features.items() if isinstance(f, HistoryFeature)}
    kinds = {feature.event for feature in histories.values()}
    used = columns_used(e for feature in histories.values() for e in (feature.of, feature.where) if e)
    events = event_rows(unit, impressions, kinds, used | {logs.impression.user})
    asked = impressions.select(user=logs.impression.user, time_ms=logs.impression.time)
    tomorrow = begins_ms(unit.day + timedelta(1), logs.timezone)
    spans, past, carried = {}, {}, {}
    for name, feature in histories.items():
        happened = past_values(events[feature.event], feature, logs.impression.user)
        if before:
            happened = pl.concat([before.read(f"carried-{name}"), happened])
        happened = sort_past(happened)
        spans[name], past[name] = find_spans(asked, happened, feature.last), happened[VALUE]
        lies_in.write(f"past-{name}", happened.select(VALUE))
        carry = still_needed(happened, feature.last, tomorrow)
        lies_in.write(f"carried-{name}", carry)
        carried[name] = content_digest(carry)
    return spans, past, carried


def _runs(hashes: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Runs of about RUN_ROWS rows: where each starts, and the slot and block of its rows. No block is divided."""
    slot = slot_of(hashes)
    within_slot = np.arange(len(slot)) - np.searchsorted(slot, slot)
    block = (slot << 32) + within_slot // BLOCK_ROWS
    begins = np.flatnonzero(np.diff(block, prepend=-1))
    cuts = begins[np.flatnonzero(np.diff(begins // RUN_ROWS, prepend=-1))]
    for start, end in pairwise([*cuts.tolist(), len(slot)] if len(slot) else [0, 0]):
        yield start, block[start:end]
