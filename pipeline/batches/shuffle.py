"""Which rows make up which step, and which of them are a rank's: arithmetic on row numbers, without the rows.

An epoch puts the row groups in a random order and cuts the sequence of their rows into pools, each of the rows of as
many steps as the buffer holds. A pool of S steps is cut further, into strata of S rows that follow each other: every
stratum gives each step one of its rows, at random. So a batch has rows from all over the pool and no two neighbours,
and a rank that has read half of the strata, half of the pool's rows, has half of every batch. Hence the rows of a step
depend on seed and epoch, not on the number of ranks; every rank takes the same number of steps; every row is seen once
per epoch; and any pool can be had without those before it.

Letters: S steps of a pool, B rows of its largest step, all ranks together.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Deal:
    """A rank's rows of a pool: those from `start` on of the epoch's sequence, and for each of them its step [rows].

    Steps are counted from `first_step`, the first of the pool's `steps` steps.
    """

    first_step: int
    steps: int
    start: int
    step_of_row: np.ndarray


@dataclass(frozen=True)
class Shuffle:
    """Deals `rows` rows to steps of at most `batch_size` rows, and the rows of each step to `ranks` ranks."""

    rows: int
    batch_size: int
    buffer_rows: int
    seed: int
    ranks: int

    @property
    def steps(self) -> int:
        """Steps per epoch. Their sizes, all ranks together, differ by at most one row."""
        return max(1, -(-self.rows // self.batch_size))

    @property
    def largest(self) -> int:
        """The most rows that a rank has in a step."""
        return -(-self._largest_step // self.ranks)

    @property
    def pools(self) -> int:
        """Pools per epoch, of about the same size: as few as hold `buffer_rows` rows at most, or one step."""
        return -(-self.steps // max(1, self.buffer_rows // max(1, self._largest_step)))

    @property
    def _largest_step(self) -> int:
        return -(-self.rows // self.steps)

    def pool_of(self, step: int) -> int:
        """The pool in which a step's rows are."""
        return ((step + 1) * self.pools - 1) // self.steps

    def order(self, epoch: int, groups: int) -> np.ndarray:
        """The order in which an epoch goes through so many row groups."""
        return np.random.default_rng([self.seed, epoch]).permutation(groups)

    def deal(self, epoch: int, pool: int, rank: int) -> Deal:
        """A rank's rows of a pool."""
        steps = np.arange(self.steps * pool // self.pools, self.steps * (pool + 1) // self.pools + 1)
        starts = steps * self.rows // self.steps
        sizes_S = np.diff(starts)
        S, B = len(sizes_S), int(sizes_S.max())
        rng = np.random.default_rng([self.seed, epoch, pool])
        strata = rng.permuted(np.tile(np.arange(S), (int(sizes_S.min()), 1)), axis=1)
        # Where sizes differ there is one more stratum, with a row for each of the larger steps.
        last = rng.permutation(np.flatnonzero(sizes_S > sizes_S.min()))
        first, end = (S * (B * at // self.ranks) for at in (rank, rank + 1))
        step_of_row = np.concatenate([strata.ravel(), last])[first:end].astype(np.min_scalar_type(S))
        return Deal(int(steps[0]), S, int(starts[0]) + first, step_of_row)
