"""The options of the log simulator."""

import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt

Share = Annotated[float, Field(ge=0, le=1)]
LogFormat = Literal["parquet", "csv", "jsonl"]


class SimulationConfig(BaseModel):
    """What to simulate. The same options give the same files, byte for byte."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    users: PositiveInt = 5_000
    """Number of users; some are far more active than others."""
    videos: PositiveInt = 2_000
    """Videos that exist when the log begins."""
    new_videos: NonNegativeInt = 40
    """Videos uploaded on each day; they are shown from the day after."""
    days: PositiveInt = 9
    """Days of log."""
    impressions: PositiveInt = 500_000
    """About how many impressions on both pages; each click on the discovery page adds one on the player page."""
    seed: NonNegativeInt = 0
    """Another seed gives another world."""
    start_date: datetime.date = datetime.date(2026, 3, 1)
    """The first day, in the time zone of the spec."""

    task_correlation: Share = 0.7
    """How alike the tasks are: the correlation between the tastes for any two of stay, dwell, click, play, like."""
    zipf: Annotated[float, Field(ge=0)] = 0.8
    """Video popularity: the r-th video is shown in proportion to r ** -zipf; with 0 all are equally popular."""
    drift: Annotated[float, Field(ge=0)] = 0.02
    """How far the users' tastes turn in a day, in radians; with 0 they never change."""

    late_rate: Share = 0.01
    """Share of the rows that arrive with the next day's files."""
    duplicate_rate: Share = 0.01
    """Share of the rows that are written twice."""
    malformed_rate: Share = 0.001
    """Malformed rows for each sound row; they are added, so that no sound row is lost."""
    disorder: Share = 0.05
    """Share of the rows that are up to ten minutes late within their file; the others are in order of time."""

    format: LogFormat = "parquet"
    """Format of the log's files; the truth is always Parquet."""
    gzip: bool = False
    """Compress with gzip: `.csv.gz`, `.jsonl.gz`, or the codec inside Parquet."""
