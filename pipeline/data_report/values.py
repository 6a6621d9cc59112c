"""A sparse feature as flat arrays of ids."""

from dataclasses import dataclass

import numpy as np
import polars as pl

MISSING = 0  # the index of missing ids, and of ids outside the vocabulary


@dataclass(frozen=True)
class FlatIds:
    """`values` [N] are the ids of all rows, one row after another; `rows` [N] is the row of each id."""

    rows: np.ndarray
    values: np.ndarray


def flatten_ids(column: pl.Series) -> FlatIds:
    """The ids of a column of ids or of lists of ids. Every row has an id: an empty list counts as one missing id."""
    if not isinstance(column.dtype, pl.List):
        return FlatIds(np.arange(len(column)), column.to_numpy())
    lengths = np.maximum(column.list.len().to_numpy(), 1)
    values = column.explode(empty_as_null=True).fill_null(MISSING).to_numpy()
    assert lengths.sum() == len(values)
    return FlatIds(np.repeat(np.arange(len(column)), lengths), values)
