"""Copies of a sample store with other values in it."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.manifest import MANIFEST


def manifest_content(samples: Path) -> dict[str, Any]:
    """The content of a store's manifest, without the digest of itself: with another content it may be written again."""
    content: dict[str, Any] = json.loads((samples / MANIFEST).read_text())
    del content["sha256"]
    return content


def altered(samples: Path, store: Path, change: Callable[[pa.Table], pa.Table], files: int | None = None) -> Path:
    """A store whose first `files` training files, or all, were changed by `change`. The other files are links."""
    manifest = manifest_content(samples)
    for file in manifest["files"]:
        path = store / file["path"]
        path.parent.mkdir(parents=True, exist_ok=True)
        if file["split"] == "train" and files != 0:
            files = files and files - 1
            table = change(pq.read_table(samples / file["path"], partitioning=None))
            pq.write_table(table, path)
            sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
            file |= {"rows": table.num_rows, "bytes": path.stat().st_size, "sha256": sha256}
    return linked(samples, store, manifest)


def linked(samples: Path, store: Path, manifest: dict[str, Any]) -> Path:
    """A store with another manifest. The files that it does not have yet are links to those of `samples`."""
    paths = [file["path"] for file in manifest["files"]]
    for path in [*paths, *(vocabulary["path"] for vocabulary in manifest["learned"]["vocabularies"].values())]:
        (store / path).parent.mkdir(parents=True, exist_ok=True)
        if not (store / path).exists():
            (store / path).hardlink_to(samples / path)
    (store / MANIFEST).write_text(json.dumps(manifest))
    return store


def replaced(table: pa.Table, column: str, values: pa.Array | pa.ChunkedArray) -> pa.Table:
    """The table with other values in a column."""
    return table.set_column(table.column_names.index(column), column, values.cast(table.schema.field(column).type))
