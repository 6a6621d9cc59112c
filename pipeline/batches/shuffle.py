"""Which rows belong to which step and rank: arithmetic on row numbers, without the rows.

An epoch puts the row groups in a random order and cuts the sequence of their rows into pools. A pool has the rows of as
many steps as the buffer holds. A pool of S steps is cut into strata of S neighbouring rows, and each stratum gives one
row to each step, at random. So a batch has rows from all over the pool. A rank reads a share of the strata, and thus
has the same share of every batch.

It follows that the rows of a step depend on seed and epoch but not on the number of ranks, that all ranks take the same
number of steps, that every row is seen once per epoch, and that a pool can be read without the pools before it.

Letters: S steps of a pool, B rows of its largest step, all ranks together.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class PoolShare:
    """A rank's rows of a pool: the rows from `start` on in the epoch's sequence, and the step of each, [rows].

    The pool has `steps` steps. They are counted from its first step, which is step `first_step` of the epoch.
    """

    first_step: int
    steps: int
    start: int
    step_of_row: np.ndarray


@dataclass(frozen=True)
class Shuffle:
    """Divides `rows` rows among steps of at most `batch_size` rows, and the rows of each step among `ranks` ranks."""

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
        """Pools per epoch, of about the same size: as few as possible if each holds `buffer_rows` rows, or one step."""
        return -(-self.steps // max(1, self.buffer_rows // max(1, self._largest_step)))

    @property
    def _largest_step(self) -> int:
        return -(-self.rows // self.steps)

    def pool_of(self, step: int) -> int:
        """The pool that holds the rows of a step."""
        return ((step + 1) * self.pools - 1) // self.steps

    def order(self, epoch: int, groups: int) -> np.ndarray:
        """The order in which an epoch reads its row groups."""
        return np.random.default_rng([self.seed, epoch]).permutation(groups)

    def share(self, epoch: int, pool: int, rank: int) -> PoolShare:
        """A rank's rows of a pool."""
        steps = np.arange(self.steps * pool // self.pools, self.steps * (pool + 1) // self.pools + 1)
        starts = steps * self.rows // self.steps
        sizes_S = np.diff(starts)
        S, B = len(sizes_S), int(sizes_S.max())
        rng = np.random.default_rng([self.seed, epoch, pool])
        strata = rng.permuted(np.tile(np.arange(S), (int(sizes_S.min()), 1)), axis=1)
        # Where the sizes of steps differ, one more stratum has a row for each of the larger steps.
        last = rng.permutation(np.flatnonzero(sizes_S > sizes_S.min()))
        first, end = (S * (B * at // self.ranks) for at in (rank, rank + 1))
        step_of_row = np.concatenate([strata.ravel(), last])[first:end].astype(np.min_scalar_type(S))
        return PoolShare(int(steps[0]), S, int(starts[0]) + first, step_of_row)
