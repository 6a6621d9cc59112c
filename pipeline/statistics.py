"""What the samples of a store look like day by day: exact counts, for the data report and for a second look.

Sample building writes `statistics.json` beside the manifest. All numbers are of the samples as built, before
down-sampling, so that a rate is the log's own.
"""

from pathlib import Path

from pydantic import BaseModel, ConfigDict

from pipeline.json_files import load_json
from pipeline.manifest import REBUILD, LabelStatistics, SplitName
from pipeline.storage import Folder

STATISTICS = "statistics.json"


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SceneStatistics(_Part):
    """The rows of a scene on a day, and the labels that it learns there, by objective."""

    rows: int
    labels: dict[str, LabelStatistics]


class DayStatistics(_Part):
    """One day of samples, by the day that they are filed under.

    `missing` counts per feature the rows without a value (for a list or a history: without an element); `lengths` has
    per list or history the number of rows by length, from 0 on; of a feature with a vocabulary `ids` counts the values
    and `outside` those that have no row of their own.
    """

    date: str
    split: SplitName
    rows: int
    scenes: dict[str, SceneStatistics]
    missing: dict[str, int]
    lengths: dict[str, list[int]]
    ids: dict[str, int]
    outside: dict[str, int]


class Statistics(_Part):
    """The content of statistics.json; `distinct` estimates the number of different ids that each table was given."""

    days: list[DayStatistics]
    distinct: dict[str, int]


def load_statistics(store: Path) -> Statistics:
    """Raises StrataError if the file is missing or damaged."""
    return load_json(Statistics, Folder.at(store), STATISTICS, what="the statistics", fix=REBUILD)
