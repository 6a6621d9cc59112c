"""First stage: the rows of a raw file, checked, and sorted by partition and day.

A partition is a range of the users' hashes, so that everything about a user lies in one. Profiles of videos and the
like have no user: they go to partition 0, and profiles have no day.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cached_property

import numpy as np
import polars as pl
import pyarrow as pa

from pipeline.raw.reading import REJECTED, BadFile, RawFile, checked_tables, read_chunks, required_columns
from pipeline.samples.frames.days import local_time
from pipeline.samples.frames.hashing import user_hash
from pipeline.samples.kept.results import Done, Receipt, Results, key_of, results
from pipeline.spec.logs import RawTable
from pipeline.spec.parts import digest_of_parts
from pipeline.spec.spec import Spec
from pipeline.sql.types import schema
from pipeline.storage import Folder

SLOTS = 4096  # of hash values; a partition is a run of slots, so there are at most as many partitions
EPOCH = date(1970, 1, 1)


class Group(Receipt):
    """Rows of one partition and day: a record batch of the file."""

    partition: int
    day: date | None
    batch: int
    rows: int


class Dealt(Receipt):
    """What became of the rows of a raw file. A file in quarantine has no rows, and `bad` says why."""

    rejected: dict[str, int]
    groups: list[Group]
    bad: str | None = None

    @property
    def kept(self) -> int:
        return sum(group.rows for group in self.groups)

    @property
    def read(self) -> int:
        return self.kept + sum(self.rejected.values())


@dataclass(frozen=True)
class DealTask:
    """A raw file to deal."""

    store: Folder
    spec: Spec
    name: str
    """Of the raw table."""
    file: RawFile
    partitions: int
    quarantine: bool

    @property
    def table(self) -> RawTable:
        return checked_tables(self.spec.logs)[self.name]

    @property
    def user(self) -> str | None:
        """The column of the user, by whom rows are dealt where the table has one."""
        user, profile = self.spec.logs.impression.user, self.spec.logs.profiles.get(self.name)
        return user if profile is None or profile.key == user else None

    @property
    def time(self) -> str | None:
        """The column of the time, by which rows are dealt where the table has one."""
        timed = self.spec.logs.timed().get(self.name)
        return timed.time if timed else None

    @cached_property
    def results(self) -> Results:
        parts = digest_of_parts("dealt", self.spec, self.spec.logs.key_in_spec(self.name))
        return results(self.store, "dealt", self.name, key_of(parts, self.file.info, self.partitions))


def deal_tasks(
    spec: Spec, files: dict[str, list[RawFile]], store: Folder, partitions: int, quarantine: bool
) -> list[DealTask]:
    """A task for every file of every table."""
    return [
        DealTask(store, spec, name, file, partitions, quarantine)
        for name, of_table in files.items()
        for file in of_table
    ]


def deal(task: DealTask) -> Done[DealTask, Dealt]:
    """Raises BadFile, unless bad files go to quarantine: then nothing of the file is used."""
    try:
        return task.results.get_or_make(task, Dealt, lambda: _deal(task))
    except BadFile as error:
        if not task.quarantine:
            raise
        # Without results: the next run tries the file again.
        return Done(task, Dealt(rejected={}, groups=[], bad=error.what), made=True)


def _deal(task: DealTask) -> Dealt:
    groups: list[Group] = []
    rejected = [pl.DataFrame(schema=REJECTED)]

    def batches() -> Iterator[pa.RecordBatch]:
        required = required_columns(task.spec.logs)[task.name]
        for chunk in read_chunks(task.name, task.table, task.file, required):
            rejected.append(chunk.rejected)
            for partition, day, rows in _grouped(chunk.rows, task):
                batch = _arrow(rows).combine_chunks().to_batches()[0]
                groups.append(Group(partition=partition, day=day, batch=len(groups), rows=batch.num_rows))
                yield batch

    task.results.write_batches("rows", _arrow(pl.DataFrame(schema=schema(task.table))).schema, batches())
    refused = pl.concat(rejected)
    if len(refused):
        task.results.write("rejected", refused)
    return Dealt(rejected=count_reasons(refused), groups=groups)


def count_reasons(rejected: pl.DataFrame) -> dict[str, int]:
    return dict(rejected.group_by("reason").len().sort("reason").iter_rows())


def _grouped(rows: pl.DataFrame, task: DealTask) -> Iterator[tuple[int, date | None, pl.DataFrame]]:
    """The rows of each partition and day, in their order."""
    if rows.is_empty():
        return
    partition, day = np.zeros(rows.height, np.int64), np.zeros(rows.height, np.int64)
    if task.user:
        partition = partition_of(user_hash(rows[task.user]), task.partitions)
    if task.time:
        local = rows.select(local_time(pl.col(task.time), task.spec.logs.timezone).dt.date()).to_series()
        day = local.to_physical().to_numpy().astype(np.int64)
    first, days = day.min(), day.max() - day.min() + 1
    group = partition * days + (day - first)
    # Few groups fit into 16 bits, which NumPy sorts in one pass.
    order = np.argsort(group.astype(np.uint16) if group.max() < 2**16 else group, kind="stable")
    ordered, group = rows[order], group[order]
    starts = np.flatnonzero(np.diff(group, prepend=-1))
    for start, end in zip(starts, [*starts[1:], rows.height], strict=True):
        which, at = divmod(int(group[start]), int(days))
        yield which, EPOCH + timedelta(int(first) + at) if task.time else None, ordered[int(start) : int(end)]


def partition_of(hashes: np.ndarray, partitions: int) -> np.ndarray:
    """[N] int64: the partition of each user's hash."""
    return (slot_of(hashes) * partitions) // SLOTS


def slot_of(hashes: np.ndarray) -> np.ndarray:
    """[N] int64: the upper 12 bits of the hash."""
    return (hashes >> np.uint64(52)).astype(np.int64)


def _arrow(rows: pl.DataFrame) -> pa.Table:
    # Strings in one buffer: as views, each group would carry the text of all.
    return rows.to_arrow(compat_level=pl.CompatLevel.oldest())
