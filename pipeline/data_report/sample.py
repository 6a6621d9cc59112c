"""A bounded sample of the rows of a split, for figures that no counts give: distributions and AUCs."""

from collections import defaultdict
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.columns import WEIGHT, feature_column, label_column, mask_column, scene_column
from pipeline.errors import LocalError
from pipeline.manifest import Manifest, SampleFile, SplitName, check_file
from pipeline.spec.spec import Spec

# Enough to tell an AUC of 0.99 from one of 0.98 where one row in a thousand is positive; few enough for one second.
SAMPLE_ROWS = 100_000
# Neighbouring rows belong to few users: many small places say more than a few large ones.
PLACES = 64


def read_sample(store: Path, manifest: Manifest, split: SplitName) -> pl.DataFrame:
    """Weights, scenes, labels, masks and features of at most SAMPLE_ROWS rows of a split, the same ones each time.

    A split of no more rows is read whole. A larger one is cut into PLACES ranges of equal length. Each range gives the
    row group around one random row, and of it SAMPLE_ROWS / PLACES random rows, because neighbours are often rows of
    one user. Raises LocalError if a file is damaged.
    """
    files = [file for file in manifest.files if file.split == split]
    columns = _columns(manifest.spec)
    if manifest.rows(split) <= SAMPLE_ROWS:
        parts = [_read(store, file, columns, at=None) for file in files]
    else:
        # One file after another, and only the drawn rows of each: memory holds one row group besides.
        parts = [_read(store, files[file], columns, at) for file, at in _draw([f.rows for f in files]).items()]
    frame = pl.from_arrow(pa.concat_tables(parts)) if parts else pl.DataFrame(schema=columns)
    assert isinstance(frame, pl.DataFrame)
    return frame


def _columns(spec: Spec) -> list[str]:
    return [
        WEIGHT,
        *map(scene_column, spec.scenes),
        *map(label_column, spec.objectives),
        *map(mask_column, spec.objectives),
        *map(feature_column, spec.features),
    ]


def _draw(rows: list[int]) -> dict[int, list[int]]:
    """A random row of each of PLACES ranges: {number of the file: rows within it}."""
    ends = np.cumsum(rows)
    jitter = np.random.default_rng(0).random(PLACES)
    drawn = defaultdict(list)
    for row in ((np.arange(PLACES) + jitter) * ends[-1] / PLACES).astype(np.int64).tolist():
        file = int(np.searchsorted(ends, row, side="right"))
        drawn[file].append(row - int(ends[file] - rows[file]))
    return drawn


def _read(store: Path, file: SampleFile, columns: list[str], at: list[int] | None) -> pa.Table:
    """The whole file, or random rows of the row groups that hold the rows `at`."""
    path = store / file.path
    check_file(path, file.sha256)
    try:
        with pq.ParquetFile(path) as parquet:
            if at is None:
                return parquet.read(columns)
            metadata = parquet.metadata
            ends = np.cumsum([metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)])
            groups = np.unique(np.searchsorted(ends, at, side="right")).tolist()
            read = [parquet.read_row_group(group, columns) for group in groups]
            rng = np.random.default_rng(at[0])
            most = SAMPLE_ROWS // PLACES
            return pa.concat_tables(rows.take(rng.permutation(rows.num_rows)[:most]) for rows in read)
    except (OSError, pa.ArrowInvalid) as error:
        reason = str(error).splitlines()[0]
        raise LocalError(f"cannot be read ({reason})", where=path, fix="build the samples again") from None
