"""Fourth stage: counters that do not go by user, added up over all partitions: first by day, then over the windows."""

from dataclasses import dataclass
from datetime import date
from functools import cached_property

import polars as pl

from pipeline.samples.frames.counters import KEY, add_up, windows
from pipeline.samples.kept.results import Done, Receipt, Results, content_digest, key_of, results
from pipeline.samples.stages.attribute import UnitDone
from pipeline.spec.features import Counters
from pipeline.spec.parts import digest_of_parts
from pipeline.spec.spec import Spec
from pipeline.storage import Folder


class Summed(Receipt):
    """A digest of the result."""

    digest: str


@dataclass(frozen=True)
class Part:
    """Daily counts in a file, `back` days before the day in question."""

    back: int
    results: Results
    file: str
    digest: str


@dataclass(frozen=True)
class DailyTask:
    """The counts of one key on one day, from all partitions."""

    store: Folder
    spec: Spec
    by: str
    day: date
    parts: tuple[Part, ...]

    @cached_property
    def results(self) -> Results:
        key = key_of(digest_of_parts("daily", self.spec), sorted(part.digest for part in self.parts))
        return results(self.store, "daily", f"{self.by}/{self.day}", key)


@dataclass(frozen=True)
class WindowTask:
    """The counts of one key over the days before `day`."""

    store: Folder
    spec: Spec
    by: str
    day: date
    parts: tuple[Part, ...]

    @cached_property
    def results(self) -> Results:
        parts = [(part.back, part.digest) for part in self.parts]
        key = key_of(digest_of_parts("windows", self.spec), parts)
        return results(self.store, "windows", f"{self.by}/{self.day}", key)


def parts_by_day(units: list[UnitDone], by: str) -> dict[date, list[Part]]:
    """The files with daily counts of a key, by the day that they count."""
    found: dict[date, list[Part]] = {}
    for counted in (unit.counted for unit in units if unit.counted):
        for file, digest in counted.receipt.digests.items():
            key, day = file.split("/")
            if key == by:
                part = Part(0, counted.task.results, f"{by}-{day}", digest)
                found.setdefault(date.fromisoformat(day), []).append(part)
    return found


def in_window(by_day: dict[date, list[Part]], day: date, longest: int) -> tuple[Part, ...]:
    """The parts of the days before `day`, with how far back each lies."""
    return tuple(
        Part((day - counted).days, part.results, part.file, part.digest)
        for counted, parts in sorted(by_day.items())
        if 0 < (day - counted).days <= longest
        for part in parts
    )


def sum_day(task: DailyTask) -> Done[DailyTask, Summed]:
    """Adds up one day."""

    def add() -> Summed:
        every = add_up([part.results.read(part.file).lazy() for part in task.parts], [KEY]).sort(KEY).collect()
        task.results.write("counts", every)
        return Summed(digest=content_digest(every))

    return task.results.once(task, Summed, add)


def sum_windows(task: WindowTask) -> Done[WindowTask, Summed]:
    """Adds up the windows before one day."""

    def add() -> Summed:
        assert task.spec.counters
        found = read_windows(task.parts, task.spec.counters, task.by)
        task.results.write("windows", found)
        return Summed(digest=content_digest(found))

    return task.results.once(task, Summed, add)


def read_windows(parts: tuple[Part, ...], counters: Counters, by: str) -> pl.DataFrame:
    return windows([(part.back, part.results.read(part.file).lazy()) for part in parts], counters, by)
