"""Gives the rows of a sample store the encoding of an earlier one, so that a model reads them as it learned to.

Every build learns vocabularies, quantiles and normalisers again. Numbers are mapped by what they stand for: an index of
a vocabulary by its value, an index of a quantile by its interval, a standardised number by undoing one normaliser and
applying the other.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.batches.row_groups import as_one_array
from pipeline.columns import feature_column
from pipeline.errors import StrataError
from pipeline.manifest import Manifest, Normaliser, check_file
from pipeline.spec.compatibility import incompatible_parts
from pipeline.spec.features import BucketTable, HashTable, QuantileTable, VocabTable

NEW = -1  # the row, in an earlier table, of a value that had none


@dataclass(frozen=True)
class Encoding:
    """What numbers stand for: a manifest, and the folder of its vocabularies, which is a sample store or a run."""

    folder: Path
    manifest: Manifest

    def vocabulary_path(self, table: str) -> Path:
        """Raises StrataError if the file is missing, or is not what the manifest says."""
        vocabulary = self.manifest.learned.vocabularies[table]
        path = self.folder / vocabulary.path
        check_file(path, vocabulary.sha256)
        return path

    def vocabulary(self, table: str) -> pa.Table:
        """The values of a vocabulary table with their index. Raises StrataError as `vocabulary_path` does."""
        return pq.read_table(self.vocabulary_path(table), columns=["value", "index"])

    def boundaries(self, table: str) -> np.ndarray:
        """The boundaries between the intervals of a table of numbers, learned or declared; float64."""
        declared = self.manifest.spec.tables[table]
        learned = self.manifest.learned.boundaries
        return np.array(declared.boundaries if isinstance(declared, BucketTable) else learned[table], np.float64)


def earlier_rows(table: str, now: Encoding, before: Encoding) -> np.ndarray | None:
    """For each row of an embedding table, the row that its value had before, or NEW; int64 [rows now].

    None if every row stands for what it stood for. A row of quantiles takes over the row of the interval that holds the
    middle of its own; the outermost stay the outermost. Row 0, of missing and rare values, stays row 0.

    Raises StrataError if the table cannot be mapped, or a vocabulary is damaged.
    """
    size = now.manifest.learned.table_rows[table]
    match now.manifest.spec.tables[table]:
        case VocabTable():
            learned, learned_before = (encoding.manifest.learned.vocabularies[table] for encoding in (now, before))
            if learned.sha256 == learned_before.sha256:
                return None
            mapped = _rows_by_value(table, now, before)
        case QuantileTable() | BucketTable():
            boundaries, boundaries_before = now.boundaries(table), before.boundaries(table)
            if np.array_equal(boundaries, boundaries_before) and size == before.manifest.learned.table_rows[table]:
                return None
            mapped = rows_by_interval(boundaries, boundaries_before)
        case HashTable():
            if size == (size_before := before.manifest.learned.table_rows[table]):
                return None
            raise StrataError(
                f"hash table `{table}` has {size_before:,} rows in it, but {size:,} now, and nothing tells their "
                "values apart",
                where=before.folder,
                fix="train a new model",
            )
    rows = np.full(size, NEW)
    rows[: len(mapped)] = mapped
    return rows


def _rows_by_value(table: str, now: Encoding, before: Encoding) -> np.ndarray:
    values, values_before = now.vocabulary(table), before.vocabulary(table)
    if values.schema.field("value").type != values_before.schema.field("value").type:
        raise StrataError(
            f"table `{table}` had {values_before['value'].type} values in it, and has {values['value'].type} values "
            "now",
            where=before.folder,
            fix="train a new model",
        )
    place = pc.index_in(values["value"], value_set=as_one_array(values_before["value"]))
    known = place.is_valid().to_numpy()
    rows = np.full(now.manifest.learned.table_rows[table], NEW)
    rows[0] = 0
    rows[values["index"].to_numpy()[known]] = values_before["index"].to_numpy()[place.drop_null().to_numpy()]
    return rows


def rows_by_interval(boundaries: np.ndarray, before: np.ndarray) -> np.ndarray:
    """For 0 and each interval between `boundaries`, its row among the intervals between those of `before`.

    Interval i, from 1, has the numbers from boundary i - 1 up to boundary i, exclusive; the first has all that are
    lower, the last all that are higher.
    """
    low, high = boundaries[:-1], boundaries[1:]
    # Where nothing cuts an interval, its beginning tells for all of it; the middle of two neighbours can round up.
    inner = np.where(_cuts(low, high, before), low / 2 + high / 2, low)
    last = [len(before) + 1] if len(boundaries) else []
    return np.array([0, 1, *(1 + np.searchsorted(before, inner, side="right")), *last], np.int64)


def cut_intervals(boundaries: np.ndarray, before: np.ndarray) -> np.ndarray:
    """Which rows of `rows_by_interval` stand for numbers that had different rows before; bool."""
    edges = np.concatenate([[-np.inf], boundaries, [np.inf]])
    return np.append(False, _cuts(edges[:-1], edges[1:], before))


def _cuts(low: np.ndarray, high: np.ndarray, boundaries: np.ndarray) -> np.ndarray:
    """Whether a boundary lies within each interval, so that numbers of it fall on both sides."""
    first_above = np.searchsorted(boundaries, low, side="right")
    return np.asarray(first_above < np.searchsorted(boundaries, high, side="left"))


@dataclass
class MappingCounts:
    """What mapping could not keep."""

    values: int = 0
    """Values of all features with a vocabulary, missing ones too."""
    unknown: int = 0
    """Of these, values that the store's vocabulary has and the run's has not."""
    rows: int = 0
    cut_rows: int = 0
    """Rows with a number whose interval the run's boundaries cut: its row is that of the interval's middle."""


class SampleMapping:
    """Maps the features of a run from the encoding of a store to the run's own; `counts` adds up over all rows.

    A value that the run's vocabulary lacks becomes row 0. A value that the store's vocabulary lacks is row 0 already,
    even if the run knew it. A standardised 0.0 stays 0.0, because a missing number is stored as 0.0; a number that is
    exactly the store's mean is taken for a missing one. Features whose encoding is the same are not touched.
    """

    def __init__(self, store: Encoding, run: Encoding) -> None:
        """Raises StrataError naming all that cannot be mapped."""
        check_compatible(store, run)
        self.counts = MappingCounts()
        self._spec = run.manifest.spec
        self._rows: dict[str, np.ndarray] = {}
        self._cut: dict[str, np.ndarray] = {}
        for table, declared in self._spec.tables.items():
            rows = earlier_rows(table, store, run)
            if rows is None:
                continue
            self._rows[table] = rows
            if isinstance(declared, QuantileTable):
                cut = cut_intervals(store.boundaries(table), run.boundaries(table))
                self._cut[table] = np.append(cut, np.zeros(len(rows) - len(cut), bool))
        normalisers, normalisers_before = store.manifest.learned.normalisers, run.manifest.learned.normalisers
        self._normalisers = {
            name: (normalisers[name], normalisers_before[name])
            for name in self._spec.standardised
            if normalisers[name] != normalisers_before[name]
        }

    def apply(self, rows: pa.Table) -> pa.Table:
        """The rows, which have the columns of all features of the run, in the run's encoding."""
        cut = np.zeros(rows.num_rows, bool)
        for name, feature in self._spec.sparse_features.items():
            column = as_one_array(rows[feature_column(name)])
            ids = _ids(column)
            if isinstance(self._spec.tables[feature.table], VocabTable):
                self.counts.values += len(ids)
            if feature.table not in self._rows:
                continue
            mapped = self._rows[feature.table][ids]
            if feature.table in self._cut:
                cut |= self._cut[feature.table][ids]  # a feature with quantiles has one number a row
            else:
                self.counts.unknown += int((mapped == NEW).sum())
            rows = _replace(rows, name, _with_ids(column, np.maximum(mapped, 0)))
        for name, (now, before) in self._normalisers.items():
            numbers = as_one_array(rows[feature_column(name)]).to_numpy()
            rows = _replace(rows, name, pa.array(normalised_again(numbers, now, before)))
        self.counts.rows += rows.num_rows
        self.counts.cut_rows += int(cut.sum())
        return rows


def check_compatible(store: Encoding, run: Encoding) -> None:
    """Raises StrataError naming all by which a store's samples mean something else than those of the run."""
    missing, different = incompatible_parts(run.manifest.spec, store.manifest.spec)
    if missing or different:
        lacks = f"lacks {', '.join(missing)}" if missing else ""
        differs = f"has another {', '.join(different)}" if different else ""
        raise StrataError(
            f"cannot be used on {store.folder}, whose spec {' and '.join(filter(None, (lacks, differs)))}",
            where=run.folder,
            fix="build samples whose spec agrees with the run's there, or train a new model",
        )


def normalised_again(numbers: np.ndarray, now: Normaliser, before: Normaliser) -> np.ndarray:
    """Numbers standardised with `now`, standardised with `before` instead; float32, reckoned in float64."""
    plain = numbers.astype(np.float64) * now.std + now.mean
    return np.where(numbers == 0, 0.0, (plain - before.mean) / before.std).astype(np.float32)


def _ids(column: pa.Array) -> np.ndarray:
    """The ids of a column, of all its lists one after another."""
    is_list = isinstance(column, pa.ListArray | pa.LargeListArray)
    numbers: np.ndarray = (column.flatten() if is_list else column).to_numpy()
    return numbers


def _with_ids(column: pa.Array, ids: np.ndarray) -> pa.Array:
    """A column of the same type with other ids."""
    if not isinstance(column, pa.ListArray | pa.LargeListArray):
        return pa.array(ids, column.type)
    offsets = pc.subtract(column.offsets, column.offsets[0])
    return type(column).from_arrays(offsets, pa.array(ids, column.type.value_type), type=column.type)


def _replace(rows: pa.Table, feature: str, values: pa.Array) -> pa.Table:
    at = rows.schema.get_field_index(feature_column(feature))
    return rows.set_column(at, rows.schema.field(at), values)
