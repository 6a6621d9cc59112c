"""Reads a split in shuffled batches, on any number of ranks: `shuffle.py` says which rows, `row_groups.py` reads them.

While the batches of one pool are handed out, threads decode the row groups of the next pool and put the rows of each
in the order of their steps. There are as many threads as Arrow uses: OMP_NUM_THREADS, or the cores. A batch then joins
one slice of every row group of its pool.

Memory: two buffers for all ranks together; one is used up while the other is filled. A row takes 4 bytes for each id
and each number, and 8 for each list: 290 with 60 ids, 2 lists of them and 14 numbers. A row group that lies in two
pools, or in the shares of two ranks, is decoded as a whole for each.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import pyarrow as pa

from pipeline.batches.batch import Batch, RowArrays, join, model_columns
from pipeline.batches.row_groups import RowGroups, RowGroupSequence, RowRange
from pipeline.batches.shuffle import PoolShare, Shuffle
from pipeline.errors import StrataError
from pipeline.manifest import Manifest, SplitName

T = TypeVar("T")


@dataclass(frozen=True)
class BatchReader:
    """Reads this rank's part of the rows of `split`, in global batches of at most `batch_size` rows.

    The rows are shuffled within a buffer of `shuffle_rows` rows, all ranks together, or of one batch if that is larger.
    """

    store: Path
    manifest: Manifest
    split: SplitName
    batch_size: int
    shuffle_rows: int
    seed: int = 0
    rank: int = 0
    ranks: int = 1
    rank_here: int = 0
    ranks_here: int = 1
    """Of the ranks on this machine, which divide the checking of the files."""

    @property
    def steps(self) -> int:
        """Steps per epoch, the same for every rank."""
        return self._shuffle.steps

    def check(self) -> None:
        """Raises StrataError if there are too few rows to give every rank a row in each step."""
        rows = self.manifest.rows(self.split)
        if rows // self.steps < self.ranks:
            raise StrataError(
                f"the {rows} rows of the {self.split} split in batches of {self.batch_size} leave one of {self.ranks} "
                f"ranks without a row",
                where=self.store,
                fix="use larger batches, fewer ranks, or more data",
            )

    def batches(self, epoch: int, first_step: int = 0) -> Iterator[Batch]:
        """This rank's batch of each step of an epoch, from `first_step` on. All are filled up to the same size.

        Raises StrataError if a file is damaged.
        """
        ordered = partial(RowArrays.from_table, spec=self.manifest.spec)
        for parts in self._parts(model_columns(self.manifest.spec), ordered, epoch, first_step):
            yield join(parts, self.manifest.spec, self._shuffle.largest)

    def tables(self, columns: list[str], epoch: int, first_step: int = 0) -> Iterator[pa.Table]:
        """The same rows in the same order, but as tables with any columns of the store."""
        for parts in self._parts(columns, _take, epoch, first_step):
            yield pa.concat_tables(rows.slice(start, stop - start) for rows, start, stop in parts)

    def _parts(
        self, columns: list[str], ordered: Callable[..., T], epoch: int, first_step: int
    ) -> Iterator[list[tuple[T, int, int]]]:
        """For each step, the parts of its batch: a range of rows (rows, start, stop) of each row group of its pool.

        `ordered(table, order=order)` puts the rows of a row group into the order of their steps.
        """
        pools = range(self._shuffle.pool_of(first_step), self._shuffle.pools)
        if not pools:
            return
        order = self._shuffle.order(epoch, len(self._groups.ranges))
        sequence = RowGroupSequence([self._groups.ranges[at] for at in order])
        threads = ThreadPoolExecutor(pa.cpu_count(), "decode")

        def prepare(row_range: RowRange, step_of_row: np.ndarray, steps: int) -> tuple[T, list[int]]:
            """The rows of a range in the order of their steps, and where the rows of each step begin and end."""
            rows = ordered(self._groups.read(row_range, columns), order=np.argsort(step_of_row, kind="stable"))
            return rows, [0, *np.bincount(step_of_row, minlength=steps).cumsum().tolist()]

        def start(pool: int) -> tuple[PoolShare, list[Future[tuple[T, list[int]]]]]:
            """Makes the threads prepare this rank's share of a pool."""
            share = self._shuffle.share(epoch, pool, self.rank)
            ranges = list(sequence.ranges(share.start, share.start + len(share.step_of_row)))
            ends = np.cumsum([row_range.stop - row_range.start for row_range in ranges])
            futures = [
                threads.submit(prepare, row_range, step_of_row, share.steps)
                for row_range, step_of_row in zip(ranges, np.split(share.step_of_row, ends[:-1]), strict=True)
            ]
            return share, futures

        try:
            started = start(pools[0])
            for pool in pools:
                share, futures = started
                prepared = [future.result() for future in futures]
                if pool + 1 in pools:
                    started = start(pool + 1)
                for step in range(max(0, first_step - share.first_step), share.steps):
                    yield [(rows, ends[step], ends[step + 1]) for rows, ends in prepared if ends[step] < ends[step + 1]]
        finally:
            threads.shutdown(cancel_futures=True)

    @cached_property
    def _shuffle(self) -> Shuffle:
        rows = self.manifest.rows(self.split)
        return Shuffle(rows, self.batch_size, self.shuffle_rows, self.seed, self.ranks)

    @cached_property
    def _groups(self) -> RowGroups:
        return RowGroups(self.store, self.manifest, self.split, self.rank_here, self.ranks_here)


def _take(rows: pa.Table, order: np.ndarray) -> pa.Table:
    return rows.take(pa.array(order))
