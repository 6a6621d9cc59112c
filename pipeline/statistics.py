"""Exact counts of the samples of a store, day by day. The data report and the sharding plan read them.

Sample building writes `statistics.json` beside the manifest. All numbers count the samples before down-sampling, so
that a rate is the rate of the log.
"""

from pathlib import Path

from pipeline.json_files import load_json
from pipeline.manifest import REBUILD, LabelStatistics, SplitName
from pipeline.spec.part import Part
from pipeline.storage import Folder

STATISTICS = "statistics.json"


class SceneStatistics(Part):
    """The rows of a scene on a day, and the labels that the scene learns, by objective."""

    rows: int
    labels: dict[str, LabelStatistics]


class DayStatistics(Part):
    """The samples that are filed under one day.

    `missing` counts the rows without a value of a feature; a list or history without an element is missing. `lengths`
    counts the rows of a list or history by length, from 0 on. Of a feature with a vocabulary, `ids` counts the values
    and `outside` the values outside the vocabulary.
    """

    date: str
    split: SplitName
    rows: int
    scenes: dict[str, SceneStatistics]
    missing: dict[str, int]
    lengths: dict[str, list[int]]
    ids: dict[str, int]
    outside: dict[str, int]


class Statistics(Part):
    """The content of statistics.json. `distinct` estimates how many different ids the features of each table had."""

    days: list[DayStatistics]
    distinct: dict[str, int]


def load_statistics(store: Path) -> Statistics:
    """Raises StrataError if the file is missing or damaged."""
    return load_json(Statistics, Folder.at(store), STATISTICS, what="the statistics", fix=REBUILD)
