"""The end of a build: checks what all days together show, and makes the manifest and the statistics of the store."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import polars as pl

from pipeline.errors import StrataError
from pipeline.manifest import BadRawFile, EventCounts, LabelStatistics, Learned, Manifest, RawCounts, SplitName
from pipeline.samples.frames.encoding import Encoders, add_label_counts, median_labels
from pipeline.samples.frames.labels import bad_label
from pipeline.samples.frames.tallies import add_tallies, distinct_ids, smallest
from pipeline.samples.kept.results import Done, Results
from pipeline.samples.stages.deal import Dealt, DealTask
from pipeline.samples.stages.draft import Draft, Drafted
from pipeline.samples.stages.learn import LearnedPart, LearnTask, read_encoders
from pipeline.samples.stages.profiles import Prepared, ProfileTask
from pipeline.samples.stages.sum_counters import SumDayTask, Summed, SumWindowsTask
from pipeline.samples.stages.units import Attribution, Unit, UnitDone
from pipeline.samples.stages.write import Encoded, EncodeTask
from pipeline.samples.store import statistics_of_days, write_store, write_vocabularies
from pipeline.spec.features import HashTable
from pipeline.spec.parts import samples_fingerprint
from pipeline.spec.spec import Spec
from pipeline.statistics import DayStatistics, Statistics
from pipeline.storage import Folder


@dataclass(frozen=True)
class BuildResults:
    """What all tasks up to the drafts have made."""

    spec: Spec
    spec_path: Path
    raw: Folder
    store: Folder
    splits: dict[date, SplitName]
    dealt: list[Done[DealTask, Dealt]]
    profiles: list[Done[ProfileTask, Prepared]]
    units: list[UnitDone]
    days_summed: list[Done[SumDayTask, Summed]]
    windows: list[Done[SumWindowsTask, Summed]]
    drafts: list[Done[Draft, Drafted]]

    @property
    def attributed(self) -> list[Done[Unit, Attribution]]:
        return [done.attributed for done in self.units]

    @cached_property
    def tally(self) -> pl.DataFrame:
        return add_tallies([done.task.results.read("tally") for done in self.drafts])

    @cached_property
    def summary(self) -> tuple[dict[str, dict[SplitName, LabelStatistics]], dict[date, DayStatistics]]:
        return statistics_of_days(self.tally, self.splits, self.spec)

    def check(self) -> None:
        """Raises StrataError for bad sample weights, scenes without rows, and labels that teach nothing."""
        bad_weights = sum(done.receipt.bad_weights for done in self.drafts)
        if bad_weights:
            raise StrataError(
                f"sample_weight: {bad_weights} samples have none, or a negative one",
                where=self.spec_path,
                fix="correct the expression",
            )
        if not self.tally.filter((pl.col("what") == "rows") & pl.col("scene").is_not_null())["rows"].sum():
            raise StrataError(
                "scenes: none of the impressions is in any scene", where=self.spec_path, fix="correct their `where`"
            )
        labels, _ = self.summary
        for name, objective in self.spec.objectives.items():
            problem = bad_label(objective, labels[name])
            if problem:
                raise StrataError(
                    f"objectives.{name}.label {problem}",
                    where=self.spec_path,
                    fix="correct the label, or remove the objective",
                )

    def raw_counts(self) -> dict[str, RawCounts]:
        """What became of the rows of every raw table."""
        counts = {}
        for name in self.spec.logs.tables():
            dealt = [done.receipt for done in self.dealt if done.task.name == name]
            prepared = [done.receipt for done in self.profiles if done.task.name == name]
            repeats = [done.receipt.rejected for done in self.attributed] if name == "impression" else []
            rejected = _add([*(d.rejected for d in dealt), *(p.rejected for p in prepared), *repeats])
            read = sum(receipt.read for receipt in dealt)
            duplicates = sum(receipt.duplicates for receipt in prepared)
            duplicates += sum(done.receipt.duplicates.get(name, 0) for done in self.attributed)
            kept = read - duplicates - sum(rejected.values())
            counts[name] = RawCounts(read=read, kept=kept, duplicates=duplicates, rejected=rejected)
        return counts

    def event_counts(self, raw: dict[str, RawCounts]) -> dict[str, EventCounts]:
        """What became of the events that were kept."""
        counts = {}
        for name in self.spec.logs.events:
            attributed = sum(done.receipt.attributed[name] for done in self.attributed)
            outside = sum(done.receipt.outside_window[name] for done in self.attributed)
            # Not below 0: an event counts twice if its impression's id comes back within the window (docs/limits.md).
            without = max(0, raw[name].kept - attributed - outside)
            counts[name] = EventCounts(attributed=attributed, without_impression=without, outside_window=outside)
        return counts

    def rejected(self) -> dict[str, list[Results]]:
        """The results that hold rejected rows, by table."""
        parts: dict[str, list[Results]] = {}
        for done in self.dealt:
            if done.receipt.rejected:
                parts.setdefault(done.task.name, []).append(done.task.results)
        for prepared in self.profiles:
            if prepared.receipt.rejected:
                parts.setdefault(prepared.task.name, []).append(prepared.task.results)
        for attributed in self.attributed:
            if attributed.receipt.rejected:
                parts.setdefault("impression", []).append(attributed.task.attributed)
        return parts

    def results(self) -> set[str]:
        """The paths of all results."""
        of_tasks: Iterable[Done[Any, Any]] = (
            *self.dealt,
            *self.profiles,
            *self.days_summed,
            *self.windows,
            *self.drafts,
        )
        paths = {done.task.results.folder.path for done in of_tasks}
        for done in self.units:
            unit = done.attributed.task
            paths |= {unit.attributed.folder.path, unit.profiled.folder.path}
            paths |= {done.counted.task.results.folder.path} if done.counted else set()
        return paths


def finish(
    built: BuildResults, learned: list[Done[LearnTask, LearnedPart]], encoded: list[Done[EncodeTask, Encoded]]
) -> Manifest:
    """Writes what lies beside the samples, and the manifest last. Then deletes what the store no longer needs."""
    spec, store = built.spec, built.store
    files = sorted((f for done in encoded for f in done.receipt.files), key=lambda file: (file.date, file.path))
    if not any(file.split == "train" for file in files):
        raise StrataError("downsample: leaves no row for training", where=built.spec_path, fix="keep more of them")
    encoders = read_encoders({done.task.name: (done.task.results, done.receipt) for done in learned})
    rows = {name: encoders.rows(name, table) for name, table in spec.tables.items()}
    label_counts = add_label_counts(done.task.results.read("baselines") for done in encoded)
    labels, days = built.summary
    raw = built.raw_counts()
    without = [done.receipt.without_profile for done in built.drafts]
    manifest = Manifest(
        spec=spec,
        fingerprint=samples_fingerprint(spec),
        raw_folder=str(built.raw),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        files=files,
        learned=Learned(
            table_rows=rows,
            vocabularies=write_vocabularies(encoders.vocabularies, store),
            boundaries=encoders.boundaries,
            normalisers=encoders.normalisers,
            baselines=median_labels(label_counts, spec, rows),
        ),
        labels=labels,
        raw=raw,
        events=built.event_counts(raw),
        without_profile={name: sum(of_draft[name] for of_draft in without) for name in spec.logs.profiles},
        filtered=sum(done.receipt.filtered for done in built.drafts),
        quarantine=[
            BadRawFile(table=done.task.name, file=str(done.task.file), reason=done.receipt.bad)
            for done in built.dealt
            if done.receipt.bad
        ],
    )
    statistics = Statistics(days=_with_coverage(days, encoded), distinct=_distinct(spec, encoders, built.drafts))
    used = built.results() | {done.task.results.folder.path for done in learned}
    used |= {done.task.results.folder.path for done in encoded}
    write_store(manifest, statistics, built.rejected(), used, store)
    return manifest


def _add(parts: Iterable[dict[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for part in parts:
        total.update(part)
    return dict(sorted(total.items()))


def _with_coverage(days: dict[date, DayStatistics], encoded: list[Done[EncodeTask, Encoded]]) -> list[DayStatistics]:
    """Adds what encoding found to each day: values of features with a vocabulary, and those without a row."""
    of_day = {
        day: {
            part: _add(getattr(done.receipt, part)[day] for done in encoded if day in getattr(done.receipt, part))
            for part in ("ids", "outside")
        }
        for day in days
    }
    return [statistics.model_copy(update=of_day[day]) for day, statistics in days.items()]


def _distinct(spec: Spec, encoders: Encoders, drafts: list[Done[Draft, Drafted]]) -> dict[str, int]:
    """The number of different ids of each hash table, and of each vocabulary as far as it has them."""
    found = {name: vocabulary.height for name, vocabulary in encoders.vocabularies.items()}
    for name, table in spec.tables.items():
        if isinstance(table, HashTable):
            hashes = [pl.Series(done.receipt.sketches[name], dtype=pl.UInt64).to_numpy() for done in drafts]
            found[name] = distinct_ids(smallest(hashes))
    return found
