"""One day of one partition: what it is made from, and what its tasks leave."""

from dataclasses import dataclass
from datetime import date, timedelta
from functools import cached_property

import polars as pl

from pipeline.samples.frames.days import DAY_MS, HOUR_MS
from pipeline.samples.kept.results import Done, Receipt, Results, content_digest, key_of, results
from pipeline.samples.stages.pieces import Cell, Pieces
from pipeline.spec.logs import Event
from pipeline.spec.parts import digest_of_parts
from pipeline.spec.spec import Spec
from pipeline.storage import Folder


class Attribution(Receipt):
    """What became of the rows of one partition and day; `outside_window` and `attributed` are by kind of event.

    `digest` stands for what the results hold. It does not change with rows of later days that belong to no impression
    of this day, such as those of a day that was added.
    """

    rows: int
    digest: str
    duplicates: dict[str, int]
    rejected: dict[str, int]
    attributed: dict[str, int]
    outside_window: dict[str, int]


class Profiled(Receipt):
    """Digests of the profile rows that a unit's impressions can see. Rows that come later change nothing."""

    digests: dict[str, str]


class Counted(Receipt):
    """Digests of the daily counts by `<by>/<day>`. A counter with the same digest changes nothing that uses it."""

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
        """Stands for what was attributed: the impressions of the unit, and the events that they have."""
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
    """A unit after attribution."""

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
    """How many days after its impression an event may lie. A day is an hour short where clocks change."""
    return -(-(event.within_s * 1000 + HOUR_MS) // DAY_MS)
