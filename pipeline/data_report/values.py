"""A sparse feature of the sample, flat: which rows hold which ids."""

from dataclasses import dataclass

import numpy as np
import polars as pl

MISSING = 0  # the index of a missing id, and of one without a row of its own


@dataclass(frozen=True)
class Ids:
    """`values` [N] are the ids of all rows one after the other, `rows` [N] the row of each; every row has one."""

    rows: np.ndarray
    values: np.ndarray


def flatten(column: pl.Series) -> Ids:
    """The ids of a column of ids, or of lists of ids; an empty list counts as one missing id."""
    if not isinstance(column.dtype, pl.List):
        return Ids(np.arange(len(column)), column.to_numpy())
    lengths = np.maximum(column.list.len().to_numpy(), 1)
    values = column.explode(empty_as_null=True).fill_null(MISSING).to_numpy()
    assert lengths.sum() == len(values)
    return Ids(np.repeat(np.arange(len(column)), lengths), values)
