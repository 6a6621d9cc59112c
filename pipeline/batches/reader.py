"""Deals the rows of a split to steps and ranks: the same global batches, whatever the number of ranks.

The rows are dealt into LANES lanes, each a sequence of blocks (a row group of the store, or a part of one if the
split is small). A global batch takes from every lane its share of rows, so that all lanes end at the same step,
and rank r of R reads the lanes l with l % R == r, and no others. Hence every rank takes the same number of steps,
every row is seen once per epoch, and the rows of step k depend on the seed and the epoch, not on R.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import LocalError, StrataError
from pipeline.manifest import Manifest, SplitName

LANES = 24  # divisible by 1, 2, 3, 4, 6, 8, 12: these numbers of ranks get equal shares
BLOCKS_PER_LANE = 8  # at least, so that the lanes of a small split are about equally long
BLOCKS_PER_POOL = 4  # blocks of a lane whose rows are shuffled together; a batch mixes LANES * 4 blocks


@dataclass(frozen=True)
class Block:
    """Rows start to start + rows of a row group."""

    path: Path
    group: int
    start: int
    rows: int


@dataclass(frozen=True)
class BatchReader:
    """Reads the rows of `split` in global batches of about `batch_size` rows, or of this rank's part of them.

    Global batches differ by at most LANES rows. Memory: BLOCKS_PER_POOL blocks for each of this rank's lanes.
    """

    store: Path
    manifest: Manifest
    split: SplitName
    columns: list[str]
    batch_size: int
    seed: int = 0
    shuffle: bool = True
    rank: int = 0
    ranks: int = 1

    @property
    def steps(self) -> int:
        """Steps per epoch, the same for every rank."""
        return max(1, -(-self.manifest.rows(self.split) // self.batch_size))

    def tables(self, epoch: int, first_step: int = 0) -> Iterator[pa.Table]:
        """This rank's rows of each step of an epoch, from `first_step` on. Raises StrataError if a file is damaged."""
        lanes = self._lanes(epoch)
        ends = self._ends(lanes)
        mine = range(self.rank, LANES, self.ranks)
        taps = [_Lane(self, epoch, lane, lanes[lane], skip=int(ends[first_step, lane])) for lane in mine]
        for step in range(first_step, self.steps):
            shares = ends[step + 1, mine] - ends[step, mine]
            yield pa.concat_tables(tap.take(int(share)) for tap, share in zip(taps, shares, strict=True) if share)

    def sizes(self, epoch: int) -> np.ndarray:
        """The largest number of rows that any rank has in each step of an epoch, [steps]: batches are padded to it.

        Raises StrataError if there are too few rows to give every rank one in each step.
        """
        shares = np.diff(self._ends(self._lanes(epoch)), axis=0)
        per_rank = np.stack([shares[:, rank :: self.ranks].sum(axis=1) for rank in range(self.ranks)])
        if per_rank.min() == 0:
            raise StrataError(
                f"the {self.manifest.rows(self.split)} rows of the {self.split} split in batches of {self.batch_size} "
                f"leave one of {self.ranks} ranks without a row",
                where=self.store,
                fix=f"use larger batches, fewer ranks (at most {LANES}), or more data",
            )
        largest: np.ndarray = per_rank.max(axis=0)
        return largest

    def _ends(self, lanes: list[list[Block]]) -> np.ndarray:
        """How many rows of each lane are taken before each step, and after the last, [steps + 1, LANES]."""
        lengths = np.array([sum(block.rows for block in lane) for lane in lanes])
        # Out of phase: in phase, all lanes would round down in one step and up in another.
        phases = np.arange(LANES) * self.steps // LANES
        ends: np.ndarray = (np.arange(self.steps + 1)[:, None] * lengths + phases) // self.steps
        return ends

    def _lanes(self, epoch: int) -> list[list[Block]]:
        blocks = self._blocks()
        if self.shuffle:
            order = np.random.default_rng([self.seed, epoch]).permutation(len(blocks))
            blocks = [blocks[at] for at in order]
        return [blocks[lane::LANES] for lane in range(LANES)]

    def _blocks(self) -> list[Block]:
        """The row groups of the split, cut up if there are fewer than LANES * BLOCKS_PER_LANE of them."""
        largest = max(1, self.manifest.rows(self.split) // (LANES * BLOCKS_PER_LANE))
        blocks = []
        for file in self.manifest.files:
            if file.split == self.split:
                path = self.store / file.path
                metadata = _open(path).metadata
                for group in range(metadata.num_row_groups):
                    rows = metadata.row_group(group).num_rows
                    blocks += [Block(path, group, at, min(largest, rows - at)) for at in range(0, rows, largest)]
        return blocks


class _Lane:
    """Hands out the rows of a lane in their (shuffled) order, pool by pool."""

    def __init__(self, reader: BatchReader, epoch: int, lane: int, blocks: list[Block], skip: int) -> None:
        self._reader = reader
        self._key = [reader.seed, epoch, lane]
        self._pools = [blocks[at : at + BLOCKS_PER_POOL] for at in range(0, len(blocks), BLOCKS_PER_POOL)]
        self._next_pool = 0
        while skip and skip >= (rows := sum(block.rows for block in self._pools[self._next_pool])):
            skip -= rows
            self._next_pool += 1
        self._rows: pa.Table | None = None
        if skip:
            self.take(skip)

    def take(self, count: int) -> pa.Table:
        """The next `count` rows of the lane."""
        parts = []
        while self._rows is None or self._rows.num_rows < count:
            if self._rows is not None:
                parts.append(self._rows)
                count -= self._rows.num_rows
            if self._next_pool == len(self._pools):
                assert count == 0, "a lane was asked for more rows than it has"
                return pa.concat_tables(parts)
            self._rows = self._read_pool()
        parts.append(self._rows.slice(0, count))
        self._rows = self._rows.slice(count)
        return pa.concat_tables(parts)

    def _read_pool(self) -> pa.Table:
        blocks = self._pools[self._next_pool]
        rows = pa.concat_tables(_read(block, self._reader.columns) for block in blocks)
        if self._reader.shuffle:
            order = np.random.default_rng([*self._key, self._next_pool]).permutation(rows.num_rows)
            rows = rows.take(pa.array(order))
        self._next_pool += 1
        return rows


def _open(path: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise _damaged(path, error) from None


def _read(block: Block, columns: list[str]) -> pa.Table:
    try:
        group = _open(block.path).read_row_group(block.group, columns=columns, use_threads=False)
    except (OSError, pa.ArrowInvalid) as error:
        raise _damaged(block.path, error) from None
    return group.slice(block.start, block.rows)


def _damaged(path: Path, error: Exception) -> LocalError:
    return LocalError(f"cannot be read ({str(error).splitlines()[0]})", where=path, fix="build the samples again")
