"""Fourth stage: counters that do not go by user, summed over all partitions: by day, then over the windows."""

from dataclasses import dataclass
from datetime import date
from functools import cached_property

import polars as pl

from pipeline.samples.frames.counters import KEY, add_up, windows
from pipeline.samples.kept.results import Done, Receipt, Results, content_digest, key_of, results
from pipeline.samples.stages.units import UnitDone
from pipeline.spec.features import Counters
from pipeline.spec.parts import digest_of_parts
from pipeline.spec.spec import Spec
from pipeline.storage import Folder


class Summed(Receipt):
    """A digest of the result."""

    digest: str


@dataclass(frozen=True)
class CountFile:
    """A file with the counts of one day, which lies `back` days before the day at hand."""

    back: int
    results: Results
    file: str
    digest: str


@dataclass(frozen=True)
class SumDayTask:
    """The counts of one key on one day, from all partitions."""

    store: Folder
    spec: Spec
    by: str
    day: date
    files: tuple[CountFile, ...]

    @cached_property
    def results(self) -> Results:
        key = key_of(digest_of_parts("daily", self.spec), sorted(part.digest for part in self.files))
        return results(self.store, "daily", f"{self.by}/{self.day}", key)


@dataclass(frozen=True)
class SumWindowsTask:
    """The counts of one key over the days before `day`."""

    store: Folder
    spec: Spec
    by: str
    day: date
    files: tuple[CountFile, ...]

    @cached_property
    def results(self) -> Results:
        parts = [(part.back, part.digest) for part in self.files]
        key = key_of(digest_of_parts("windows", self.spec), parts)
        return results(self.store, "windows", f"{self.by}/{self.day}", key)


def files_by_day(units: list[UnitDone], by: str) -> dict[date, list[CountFile]]:
    """The files with the daily counts of a key, by the day of the counts."""
    found: dict[date, list[CountFile]] = {}
    for counted in (unit.counted for unit in units if unit.counted):
        for file, digest in counted.receipt.digests.items():
            key, day = file.split("/")
            if key == by:
                part = CountFile(0, counted.task.results, f"{by}-{day}", digest)
                found.setdefault(date.fromisoformat(day), []).append(part)
    return found


def in_window(by_day: dict[date, list[CountFile]], day: date, longest: int) -> tuple[CountFile, ...]:
    """The files of the days before `day`, each with how far back it lies."""
    return tuple(
        CountFile((day - counted).days, part.results, part.file, part.digest)
        for counted, parts in sorted(by_day.items())
        if 0 < (day - counted).days <= longest
        for part in parts
    )


def sum_day(task: SumDayTask) -> Done[SumDayTask, Summed]:
    """Adds up one day."""

    def add() -> Summed:
        every = add_up([part.results.read(part.file).lazy() for part in task.files], [KEY]).sort(KEY).collect()
        task.results.write("counts", every)
        return Summed(digest=content_digest(every))

    return task.results.get_or_make(task, Summed, add)


def sum_windows(task: SumWindowsTask) -> Done[SumWindowsTask, Summed]:
    """Adds up the windows before one day."""

    def add() -> Summed:
        assert task.spec.counters
        found = read_windows(task.files, task.spec.counters, task.by)
        task.results.write("windows", found)
        return Summed(digest=content_digest(found))

    return task.results.get_or_make(task, Summed, add)


def read_windows(parts: tuple[CountFile, ...], counters: Counters, by: str) -> pl.DataFrame:
    return windows([(part.back, part.results.read(part.file).lazy()) for part in parts], counters, by)
