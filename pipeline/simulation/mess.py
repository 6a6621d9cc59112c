"""What goes wrong between the app and the log: rows come twice, late, out of order, or malformed."""

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from pipeline.simulation.config import SimulationConfig

MAX_DELAY_MS = 600_000
DEFECTS = 6  # a multiple of the number of defects of each format, so that all formats draw the same numbers


@dataclass(frozen=True)
class Delivery:
    """Rows in the order in which they arrive.

    `defect` is -1 for a sound row, otherwise the number of its defect. `late` rows, all sound, arrive with the
    next day's files. `duplicated` sound rows are extra copies of other rows.
    """

    rows: pl.DataFrame
    late: NDArray[np.bool_]
    defect: NDArray[np.int64]
    duplicated: int

    def counts(self) -> dict[str, int]:
        """How many rows truly happened, and how many were duplicated, malformed and late."""
        malformed = int((self.defect >= 0).sum())
        true_rows = len(self.rows) - self.duplicated - malformed
        late = int(self.late.sum())
        return {"rows": true_rows, "duplicated": self.duplicated, "malformed": malformed, "late": late}


def deliver(table: pl.DataFrame, config: SimulationConfig, rng: np.random.Generator) -> Delivery:
    """The rows as they arrive, with extra copies.

    Every sound row arrives: a malformed row is a spoilt copy of a sound row. So the log has all that truly happened.
    """
    n = len(table)
    copied = np.flatnonzero(rng.random(n) < config.duplicate_rate)
    spoilt = np.flatnonzero(rng.random(n) < config.malformed_rate)
    row = np.concatenate([np.arange(n), copied, spoilt])
    defect = np.full(len(row), -1)
    defect[n + len(copied) :] = rng.integers(DEFECTS, size=len(spoilt))
    late = (rng.random(len(row)) < config.late_rate) & (defect < 0)
    delay_ms = np.where(rng.random(len(row)) < config.disorder, rng.random(len(row)) * MAX_DELAY_MS, 0)
    order = np.argsort(table["time_ms"].to_numpy()[row] + delay_ms, kind="stable")
    return Delivery(table[row[order]], late[order], defect[order], len(copied))
