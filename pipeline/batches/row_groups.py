"""Reads the row groups of a split. Damaged files, and ids that have no row in their table, are refused."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.columns import feature_column
from pipeline.errors import LocalError, StrataError
from pipeline.manifest import Manifest, SampleFile, SplitName, check_file
from pipeline.spec.features import IdFeature

FOOTERS = 128  # file footers in memory: 0.6 MB for a file of 50 columns and 16 row groups, and 1 ms to parse it again


@dataclass(frozen=True)
class RowRange:
    """Rows `start` to `stop`, exclusive, of a row group."""

    path: Path
    group: int
    start: int
    stop: int


class RowGroups:
    """The row groups of a split, in stored order. Raises StrataError if a file is damaged."""

    def __init__(self, store: Path, manifest: Manifest, split: SplitName, rank: int = 0, ranks: int = 1) -> None:
        """Reads the footers of all files, and checks all that this rank's share of the files holds.

        `ranks` are those of this machine: another machine may read a copy of its own, with damage of its own.
        """
        self._store = store
        self._spec = manifest.spec
        self._table_rows = manifest.learned.table_rows
        self._footer = lru_cache(FOOTERS)(_footer)
        files = [file for file in manifest.files if file.split == split]
        with ThreadPoolExecutor(pa.cpu_count()) as threads:
            list(threads.map(lambda file: check_file(store / file.path, file.sha256), files[rank::ranks]))
            self.ranges = [row_range for ranges in threads.map(self._whole_groups, files) for row_range in ranges]

    def _whole_groups(self, file: SampleFile) -> list[RowRange]:
        path = self._store / file.path
        footer = self._footer(path)
        if footer.num_rows != file.rows:
            raise _damaged(path, f"has {footer.num_rows} rows, but was written with {file.rows}")
        return [RowRange(path, at, 0, footer.row_group(at).num_rows) for at in range(footer.num_row_groups)]

    def read(self, row_range: RowRange, columns: list[str]) -> pa.Table:
        """Some columns of a range, read in this thread. Raises StrataError, also for an id that has no row."""
        try:
            file = pq.ParquetFile(row_range.path, metadata=self._footer(row_range.path))
            rows = file.read_row_group(row_range.group, columns=columns, use_threads=False)
        except (OSError, pa.ArrowException) as error:
            raise _damaged(row_range.path, f"cannot be read ({str(error).splitlines()[0]})") from None
        if missing := set(columns) - set(rows.column_names):
            raise _damaged(row_range.path, f"has no column `{min(missing)}`")
        self._check_ids(rows, row_range.path)
        return rows.slice(row_range.start, row_range.stop - row_range.start)

    def _check_ids(self, rows: pa.Table, path: Path) -> None:
        """Refuses an id that is no row of its table: a lookup would read another row, or beyond the table."""
        columns = set(rows.column_names)
        for name, feature in self._spec.sparse_features.items():
            if feature_column(name) not in columns:
                continue
            ids = as_one_array(rows.column(feature_column(name)))
            if not isinstance(feature, IdFeature) and isinstance(ids, pa.ListArray | pa.LargeListArray):
                ids = ids.values
            if not pa.types.is_integer(ids.type) or ids.null_count:
                raise _damaged(path, f"feature `{name}` holds {ids.type} with {ids.null_count} nulls, not ids")
            size = self._table_rows[feature.table]
            numbers = ids.to_numpy()
            for found in (numbers.min(initial=0), numbers.max(initial=0)):
                if not 0 <= found < size:
                    raise _damaged(
                        path,
                        f"feature `{name}` has the id {found}, but its table `{feature.table}` has "
                        f"the rows 0 to {size - 1}",
                    )


class RowGroupSequence:
    """Whole row groups one after another, as one sequence of rows."""

    def __init__(self, groups: list[RowRange]) -> None:
        self._groups = groups
        self._ends = np.cumsum([group.stop for group in groups])

    def ranges(self, start: int, stop: int) -> Iterator[RowRange]:
        """Rows `start` to `stop` of the sequence, as ranges of row groups."""
        first, last = np.searchsorted(self._ends, [start, stop - 1], side="right")
        for at in range(first, last + 1):
            group = self._groups[at]
            group_start = int(self._ends[at]) - group.stop
            yield replace(group, start=max(0, start - group_start), stop=min(group.stop, stop - group_start))


def stored_tables(
    store: Path, manifest: Manifest, split: SplitName, columns: list[str], rows: int
) -> Iterator[pa.Table]:
    """All rows of a split in stored order, at most `rows` at a time. Raises StrataError if a file is damaged."""
    groups = RowGroups(store, manifest, split)
    for row_range in groups.ranges:
        table = groups.read(row_range, columns)
        yield from (table.slice(start, rows) for start in range(0, table.num_rows, rows))


def as_one_array(column: pa.ChunkedArray) -> pa.Array:
    """A column as one array. It is copied only if it has several chunks."""
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def _footer(path: Path) -> pq.FileMetaData:
    try:
        return pq.read_metadata(path)
    except (OSError, pa.ArrowException) as error:
        raise _damaged(path, f"cannot be read ({str(error).splitlines()[0]})") from None


def _damaged(path: Path, what: str) -> StrataError:
    return LocalError(what, where=path, fix="build the samples again")
