"""Adds up the exact counts of all days of a split."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce
from typing import get_args

from pipeline.manifest import LabelStatistics, SplitName
from pipeline.statistics import DayStatistics, Statistics

SPLITS: tuple[SplitName, ...] = get_args(SplitName)


@dataclass(frozen=True)
class Totals:
    """The fields of `DayStatistics`, added up over the days of a split.

    `labels` is by scene, then by objective. `lengths` counts the rows of a list or history by length.
    """

    rows: int
    labels: dict[str, dict[str, LabelStatistics]]
    missing: Counter[str]
    lengths: dict[str, Counter[int]]
    ids: Counter[str]
    outside: Counter[str]

    def missing_share(self, feature: str) -> float | None:
        return self.missing[feature] / self.rows if self.rows else None

    def elements(self, feature: str) -> int:
        """How many values a list or a history has in all rows."""
        return sum(length * rows for length, rows in self.lengths.get(feature, {}).items())

    def outside_share(self, feature: str) -> float | None:
        return self.outside[feature] / self.ids[feature] if self.ids[feature] else None


def split_totals(statistics: Statistics) -> dict[SplitName, Totals]:
    return {split: _totals([day for day in statistics.days if day.split == split]) for split in SPLITS}


def _totals(days: list[DayStatistics]) -> Totals:
    labels: dict[str, dict[str, list[LabelStatistics]]] = {}
    lengths: dict[str, Counter[int]] = {}
    for day in days:
        for scene, found in day.scenes.items():
            for objective, label in found.labels.items():
                labels.setdefault(scene, {}).setdefault(objective, []).append(label)
        for feature, rows in day.lengths.items():
            lengths.setdefault(feature, Counter()).update(dict(enumerate(rows)))
    return Totals(
        rows=sum(day.rows for day in days),
        labels={scene: {name: _join(parts) for name, parts in found.items()} for scene, found in labels.items()},
        missing=_sum(day.missing for day in days),
        lengths=lengths,
        ids=_sum(day.ids for day in days),
        outside=_sum(day.outside for day in days),
    )


def _sum(counts: Iterable[dict[str, int]]) -> Counter[str]:
    total: Counter[str] = Counter()
    for part in counts:
        total.update(part)
    return total


def _join(parts: list[LabelStatistics]) -> LabelStatistics:
    return reduce(_join_two, parts)


def _join_two(a: LabelStatistics, b: LabelStatistics) -> LabelStatistics:
    if a.mean is None or a.min is None or a.max is None:
        return b
    if b.mean is None or b.min is None or b.max is None:
        return a
    return LabelStatistics(
        rows=a.rows + b.rows,
        mean=(a.mean * a.rows + b.mean * b.rows) / (a.rows + b.rows),
        min=min(a.min, b.min),
        max=max(a.max, b.max),
    )
