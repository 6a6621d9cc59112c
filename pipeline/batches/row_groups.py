"""The row groups of a split: what there is to read, and the reading, which refuses damaged files and foreign ids."""

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

FOOTERS = 128  # files whose footers are kept, at 0.6 MB for 50 columns and 16 row groups; parsing one again takes 1 ms


@dataclass(frozen=True)
class Piece:
    """Rows start to stop of a row group."""

    path: Path
    group: int
    start: int
    stop: int


class RowGroups:
    """The row groups of a split, in stored order. Raises StrataError if a file is damaged."""

    def __init__(self, store: Path, manifest: Manifest, split: SplitName, rank: int = 0, ranks: int = 1) -> None:
        """Reads the footers of all files, and checks all that this rank's share of the files holds."""
        self._store = store
        self._spec = manifest.spec
        self._table_rows = manifest.learned.table_rows
        self._footer = lru_cache(FOOTERS)(_footer)
        files = [file for file in manifest.files if file.split == split]
        with ThreadPoolExecutor(pa.cpu_count()) as threads:
            list(threads.map(lambda file: check_file(store / file.path, file.sha256), files[rank::ranks]))
            self.pieces = [piece for pieces in threads.map(self._pieces, files) for piece in pieces]

    def _pieces(self, file: SampleFile) -> list[Piece]:
        path = self._store / file.path
        footer = self._footer(path)
        if footer.num_rows != file.rows:
            raise _damaged(path, f"has {footer.num_rows} rows, but was written with {file.rows}")
        return [Piece(path, at, 0, footer.row_group(at).num_rows) for at in range(footer.num_row_groups)]

    def read(self, piece: Piece, columns: list[str]) -> pa.Table:
        """Some columns of a piece, in this thread. Raises StrataError, also for an id beyond its table."""
        try:
            file = pq.ParquetFile(piece.path, metadata=self._footer(piece.path))
            rows = file.read_row_group(piece.group, columns=columns, use_threads=False)
        except (OSError, pa.ArrowException) as error:
            raise _damaged(piece.path, f"cannot be read ({str(error).splitlines()[0]})") from None
        if missing := set(columns) - set(rows.column_names):
            raise _damaged(piece.path, f"has no column `{min(missing)}`")
        self._check_ids(rows, piece.path)
        return rows.slice(piece.start, piece.stop - piece.start)

    def _check_ids(self, rows: pa.Table, path: Path) -> None:
        """Every id is a row of its feature's table: a lookup would take another for it, or read beyond the table."""
        columns = set(rows.column_names)
        for name, feature in self._spec.sparse_features.items():
            if feature_column(name) not in columns:
                continue
            ids = whole(rows.column(feature_column(name)))
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


class Sequence:
    """The rows of whole row groups one after the other."""

    def __init__(self, pieces: list[Piece]) -> None:
        self._pieces = pieces
        self._ends = np.cumsum([piece.stop for piece in pieces])

    def pieces(self, start: int, stop: int) -> Iterator[Piece]:
        """The parts of row groups that are rows start to stop."""
        first, last = np.searchsorted(self._ends, [start, stop - 1], side="right")
        for at in range(first, last + 1):
            piece, begins = self._pieces[at], int(self._ends[at]) - self._pieces[at].stop
            yield replace(piece, start=max(0, start - begins), stop=min(piece.stop, stop - begins))


def stored_tables(
    store: Path, manifest: Manifest, split: SplitName, columns: list[str], rows: int
) -> Iterator[pa.Table]:
    """All rows of a split in stored order, at most `rows` at a time. Raises StrataError if a file is damaged."""
    groups = RowGroups(store, manifest, split)
    for piece in groups.pieces:
        table = groups.read(piece, columns)
        yield from (table.slice(start, rows) for start in range(0, table.num_rows, rows))


def whole(column: pa.ChunkedArray) -> pa.Array:
    """A column as one array; it is copied only if it has several chunks."""
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def _footer(path: Path) -> pq.FileMetaData:
    try:
        return pq.read_metadata(path)
    except (OSError, pa.ArrowException) as error:
        raise _damaged(path, f"cannot be read ({str(error).splitlines()[0]})") from None


def _damaged(path: Path, what: str) -> StrataError:
    return LocalError(what, where=path, fix="build the samples again")
