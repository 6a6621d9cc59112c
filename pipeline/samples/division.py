"""How a build is divided: the number of partitions, and of processes that work on them."""

import math
from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from zoneinfo import ZoneInfo

import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field

from pipeline.engines import EngineName, available_cores
from pipeline.errors import StrataError
from pipeline.json_files import load_json
from pipeline.raw.reading import RawFile
from pipeline.samples.kept.results import WORK
from pipeline.samples.stages.deal import SLOTS
from pipeline.spec.logs import Logs
from pipeline.storage import Folder

DIVISION = f"{WORK}/plan.json"
GB = 1_000_000_000
# Measured on the short_video spec (docs/performance.md): a worker at rest, and what a row of the unit at hand takes.
WORKER_BYTES, ROW_BYTES = 300_000_000, 350
LEAST_SHARE = 100_000_000  # of memory that a worker needs beside what it takes at rest
UNIT_ROWS = 500_000  # more at a time are hardly faster, and need more memory
FEW_ROWS = 1_000_000  # for fewer, starting processes takes longer than they save
PROBED_FILES = 64  # whose rows are counted, or guessed, to estimate those of all
TEXT_ROW_BYTES, GZIP_RATIO = 60, 6


@dataclass(frozen=True)
class Options:
    """How to build. No option changes what is built."""

    engine: EngineName = "local"
    ray_address: str | None = None
    workers: int | None = None
    memory_gb: float = 2.0
    partitions: int | None = None
    quarantine: bool = False


class KeptDivision(BaseModel):
    """What a store keeps of its division, for the next build."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    partitions: int = Field(ge=1, le=SLOTS)


@dataclass(frozen=True)
class Division:
    """`rows` is an estimate of the impressions."""

    rows: int
    workers: int
    partitions: int


def divide(
    options: Options, logs: Logs, impressions: list[RawFile], all_files: list[RawFile], store: Folder
) -> Division:
    """The number of workers and partitions; those of an earlier build stay, so that its results can be used.

    A first build gets as many partitions as it takes for the busiest day of one to fit into a worker's memory.
    """
    for name, number, most in (("workers", options.workers, None), ("partitions", options.partitions, SLOTS)):
        if number is not None and not 1 <= number <= (most or number):
            limit = f"from 1 to {most}" if most else "at least 1"
            raise StrataError(f"found {number}", where=f"--{name}", fix=f"give {limit}")
    rows = estimate_rows(impressions)
    busiest = estimate_busiest_day(impressions, logs.impression.time, logs.timezone)
    # One more than there are cores, as each waits for the disk at times.
    workers = options.workers or (available_cores() + 1 if estimate_rows(all_files) > FEW_ROWS else 1)
    share = options.memory_gb * GB / workers - WORKER_BYTES
    if not LEAST_SHARE <= share < math.inf:  # NaN is refused as well
        least = workers * (WORKER_BYTES + LEAST_SHARE) / GB
        raise StrataError(
            f"{options.memory_gb:g} GB are too little for {workers} workers",
            where="--memory",
            fix=f"give at least {least:g} GB, or fewer --workers",
        )
    earlier = None
    if store.exists(DIVISION):
        earlier = load_json(
            KeptDivision, store, DIVISION, what="the division of a build", fix="delete this file"
        ).partitions
    needed = max(1, -(-busiest // min(UNIT_ROWS, int(share / ROW_BYTES))))
    balanced = -(-needed // workers) * workers  # no worker waits for the last partition of another
    partitions = options.partitions or earlier or min(SLOTS, balanced)
    return Division(rows, workers, partitions)


def estimate_rows(files: list[RawFile]) -> int:
    """Estimates the rows of raw files from those of some and the size of all."""
    return _of_all(sum(map(_rows, _probed(files))), files)


def estimate_busiest_day(files: list[RawFile], time: str, timezone: str) -> int:
    """Estimates the rows of the busiest local day.

    A row group within two days counts for both. The rows of others, and of text files, may all be of one day.
    """
    by_day: Counter[int] = Counter()
    unknown = 0
    for file in _probed(files):
        footer = _footer(file)
        if footer is None:
            unknown += _rows(file)
            continue
        for group in map(footer.row_group, range(footer.num_row_groups)):
            days = _days(group, time, timezone)
            if len(days) in (1, 2):
                by_day.update(dict.fromkeys(days, group.num_rows))
            else:
                unknown += group.num_rows
    return _of_all(max(by_day.values(), default=0) + unknown, files)


def _probed(files: list[RawFile]) -> list[RawFile]:
    return files[:: -(-len(files) // PROBED_FILES) or 1]


def _of_all(rows: int, files: list[RawFile]) -> int:
    """The rows of all files, by their size, where the probed files have `rows`."""
    size = sum(file.info.size for file in _probed(files))
    return round(rows * sum(file.info.size for file in files) / size) if size else rows


def _rows(file: RawFile) -> int:
    name = file.info.name
    if not name.endswith(".parquet"):
        return file.info.size * (GZIP_RATIO if name.endswith(".gz") else 1) // TEXT_ROW_BYTES
    footer = _footer(file)
    return int(footer.num_rows) if footer else 0


def _days(group: pq.RowGroupMetaData, time: str, timezone: str) -> range:
    """The local days from the earliest to the latest time (ms) of a row group; none if its statistics lack them."""
    columns = [group.column(at) for at in range(group.num_columns)]
    found = [column.statistics for column in columns if column.path_in_schema == time]
    if not found or not found[0] or not found[0].has_min_max or not isinstance(found[0].min, int):
        return range(0)
    zone = ZoneInfo(timezone)
    try:
        first, last = (datetime.fromtimestamp(ms / 1000, zone).toordinal() for ms in (found[0].min, found[0].max))
    except (ValueError, OverflowError, OSError):  # not a time: dealing will reject the row
        return range(0)
    return range(first, last + 1)


def _footer(file: RawFile) -> pq.FileMetaData | None:
    """None for text, and for a damaged file: dealing reports it or puts it in quarantine."""
    if not file.info.name.endswith(".parquet"):
        return None
    try:
        with file.folder.open(file.info.name) as opened:
            return pq.ParquetFile(opened).metadata
    except (OSError, ValueError):
        return None
