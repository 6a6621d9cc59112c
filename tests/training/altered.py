"""Copies of a sample store with other values in it."""

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.manifest import MANIFEST


def altered(samples: Path, store: Path, change: Callable[[pa.Table], pa.Table], files: int | None = None) -> Path:
    """A store whose first `files` training files, or all, were changed by `change`. The other files are links."""
    manifest = json.loads((samples / MANIFEST).read_text())
    for file in manifest["files"]:
        path = store / file["path"]
        path.parent.mkdir(parents=True, exist_ok=True)
        if file["split"] == "train" and files != 0:
            files = files and files - 1
            table = change(pq.read_table(samples / file["path"], partitioning=None))
            pq.write_table(table, path)
            file |= {"rows": table.num_rows, "bytes": path.stat().st_size}
        else:
            path.symlink_to(samples / file["path"])
    (store / "vocabularies").symlink_to(samples / "vocabularies")
    (store / MANIFEST).write_text(json.dumps(manifest))
    return store


def replaced(table: pa.Table, column: str, values: pa.Array | pa.ChunkedArray) -> pa.Table:
    """The table with other values in a column."""
    return table.set_column(table.column_names.index(column), column, values.cast(table.schema.field(column).type))
