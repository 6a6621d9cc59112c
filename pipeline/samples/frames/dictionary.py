"""Dictionary encoding: ids as codes into their different values, so that each value is counted and looked up once."""

from dataclasses import dataclass

import numpy as np
import polars as pl

from pipeline.columns import feature_column
from pipeline.spec.features import HistoryFeature
from pipeline.spec.spec import Spec

INT64_HOLDS = (pl.Int8, pl.Int16, pl.Int32, pl.Int64, pl.UInt8, pl.UInt16, pl.UInt32)
SPAN = 4  # times the rows: up to this range a table of all numbers in it is no larger than the rows themselves


@dataclass(frozen=True)
class DictionaryEncoded:
    """Rows in which ids and id_lists are codes: 0 for a missing id, n for the n-th of the feature's `values`.

    The values of an id_list are the texts that lists are split from. Histories are spans, not codes.
    """

    rows: pl.DataFrame
    values: dict[str, pl.Series]

    def select(self, rows: pl.Expr) -> "DictionaryEncoded":
        return DictionaryEncoded(self.rows.filter(rows), self.values)

    def table(self) -> pl.DataFrame:
        """The values as one row of lists: their form in kept work."""
        return pl.DataFrame([values.implode().alias(name) for name, values in self.values.items()])

    @classmethod
    def from_table(cls, rows: pl.DataFrame, table: pl.DataFrame) -> "DictionaryEncoded":
        return cls(rows, {name: table[name].explode(empty_as_null=False) for name in table.columns})


def dictionary_encode(samples: pl.DataFrame, spec: Spec) -> DictionaryEncoded:
    """`samples` has the values themselves."""
    columns, values = [], {}
    for name, feature in spec.sparse_features.items():
        if not isinstance(feature, HistoryFeature):
            column = samples[feature_column(name)]
            codes, values[name] = _coded(column)
            columns.append(pl.Series(column.name, codes.astype(np.min_scalar_type(len(values[name])))))
    return DictionaryEncoded(samples.with_columns(columns), values)


def _coded(column: pl.Series) -> tuple[np.ndarray, pl.Series]:
    """The code of each row, and the different values."""
    if column.dtype in INT64_HOLDS and not column.null_count() and len(column):
        numbers = column.to_numpy()
        least = int(numbers.min())
        if int(numbers.max()) - least < SPAN * len(column):
            # Whole numbers that lie close together need no hashing.
            place = numbers.astype(np.int64) - least
            different = np.flatnonzero(np.bincount(place))
            code_of = np.zeros(int(different[-1]) + 1, np.int64)
            code_of[different] = np.arange(1, len(different) + 1)
            return code_of[place], pl.Series(column.name, different + least, dtype=column.dtype)
    encoded = column.to_arrow(compat_level=pl.CompatLevel.oldest()).dictionary_encode()
    codes = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False) + 1
    return codes, pl.Series(column.name, encoded.dictionary, dtype=column.dtype)
