"""Reads a split in shuffled batches, on any number of ranks: `shuffle.py` says which rows, `row_groups.py` reads them.

Threads, as many as Arrow is given (OMP_NUM_THREADS, or the cores), decode the row groups of the next pool while the
batches of one are handed out, and put the rows of each in the order of their steps. A batch then is a slice of every
row group of its pool, joined.

Memory: two buffers, one used up while the next one is filled; the ranks share them. A row takes 4 bytes for each id
and each number, 8 for each list: 290 with 60 ids, 2 lists of them and 14 numbers. A row group that lies across two
pools, or across the parts of two ranks, is decoded for each, as a whole.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import pyarrow as pa

from pipeline.batches.batch import Batch, Rows, join, model_columns
from pipeline.batches.row_groups import Piece, RowGroups, Sequence
from pipeline.batches.shuffle import Deal, Shuffle
from pipeline.errors import StrataError
from pipeline.manifest import Manifest, SplitName

T = TypeVar("T")


@dataclass(frozen=True)
class BatchReader:
    """Reads the rows of `split` in global batches of at most `batch_size` rows, or of this rank's part of them.

    The rows are shuffled within a buffer of `shuffle_rows` rows, all ranks together, or of one batch if that is more.
    """

    store: Path
    manifest: Manifest
    split: SplitName
    batch_size: int
    shuffle_rows: int
    seed: int = 0
    rank: int = 0
    ranks: int = 1

    @property
    def steps(self) -> int:
        """Steps per epoch, the same for every rank."""
        return self._shuffle.steps

    def check(self) -> None:
        """Raises StrataError if there are too few rows to give every rank one in each step."""
        rows = self.manifest.rows(self.split)
        if rows // self.steps < self.ranks:
            raise StrataError(
                f"the {rows} rows of the {self.split} split in batches of {self.batch_size} leave one of {self.ranks} "
                f"ranks without a row",
                where=self.store,
                fix="use larger batches, fewer ranks, or more data",
            )

    def batches(self, epoch: int, first_step: int = 0) -> Iterator[Batch]:
        """This rank's batch of each step of an epoch, from `first_step` on, all filled up to the same size.

        Raises StrataError if a file is damaged.
        """
        ordered = partial(Rows.of, spec=self.manifest.spec)
        for parts in self._parts(model_columns(self.manifest.spec), ordered, epoch, first_step):
            yield join(parts, self.manifest.spec, self._shuffle.largest)

    def tables(self, columns: list[str], epoch: int, first_step: int = 0) -> Iterator[pa.Table]:
        """The same rows in the same order, as tables with any columns of the store."""
        for parts in self._parts(columns, _take, epoch, first_step):
            yield pa.concat_tables(rows.slice(start, stop - start) for rows, start, stop in parts)

    def _parts(
        self, columns: list[str], ordered: Callable[..., T], epoch: int, first_step: int
    ) -> Iterator[list[tuple[T, int, int]]]:
        """For each step the pieces of its pool, in the order that `ordered` gives them, and the step's rows of each."""
        order = self._shuffle.order(epoch, len(self._groups.pieces))
        sequence = Sequence([self._groups.pieces[at] for at in order])
        pools = range(self._shuffle.pool_of(first_step), self._shuffle.pools)
        deals = (self._shuffle.deal(epoch, pool, self.rank) for pool in pools)
        threads = ThreadPoolExecutor(pa.cpu_count(), "decode")

        def prepare(piece: Piece, step_of_row: np.ndarray, steps: int) -> tuple[T, list[int]]:
            """The rows of a piece in the order of their steps, and where those of each step begin and end."""
            rows = ordered(self._groups.read(piece, columns), order=np.argsort(step_of_row, kind="stable"))
            return rows, [0, *np.bincount(step_of_row, minlength=steps).cumsum().tolist()]

        def begin(deal: Deal) -> tuple[Deal, list[Future[tuple[T, list[int]]]]]:
            """Has the threads prepare a pool."""
            pieces = list(sequence.pieces(deal.start, deal.start + len(deal.step_of_row)))
            dealt = np.split(deal.step_of_row, np.cumsum([piece.stop - piece.start for piece in pieces])[:-1])
            return deal, [
                threads.submit(prepare, piece, steps, deal.steps) for piece, steps in zip(pieces, dealt, strict=True)
            ]

        try:
            coming = next(begun := map(begin, deals), None)
            while coming:
                deal, prepared = coming
                pool = [future.result() for future in prepared]
                coming = next(begun, None)
                for step in range(max(0, first_step - deal.first_step), deal.steps):
                    yield [(rows, ends[step], ends[step + 1]) for rows, ends in pool if ends[step] < ends[step + 1]]
        finally:
            threads.shutdown(cancel_futures=True)

    @cached_property
    def _shuffle(self) -> Shuffle:
        rows = self.manifest.rows(self.split)
        return Shuffle(rows, self.batch_size, self.shuffle_rows, self.seed, self.ranks)

    @cached_property
    def _groups(self) -> RowGroups:
        return RowGroups(self.store, self.manifest, self.split, self.rank, self.ranks)


def _take(rows: pa.Table, order: np.ndarray) -> pa.Table:
    return rows.take(pa.array(order))
