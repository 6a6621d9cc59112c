"""An interaction log of 12 rows, and building its samples."""

from pathlib import Path

import polars as pl

from pipeline.manifest import Manifest


def stored_rows(store: Path, manifest: Manifest) -> pl.DataFrame:
    """All samples in the order of the store, which is that of the manifest's files."""
    return pl.concat(pl.read_parquet(store / file.path, hive_partitioning=False) for file in manifest.files)


SMALL = """\
name: small
logs:
  impression:
    files: log.csv
    columns: {uid: int64, user_id: string, video: int64, ts: int64, click: int64, seconds: float64}
    id: [uid, video, ts]
    user: uid
    video: video
    time: ts
    outcomes: [click, seconds]
tables: {video: {encode: vocab, dim: 4}, account: {encode: vocab, dim: 4}}
features:
  video: {kind: id, table: video}
  account: {kind: id, table: account, source: user_id}
objectives:
  click: {kind: binary, label: click}
  watch: {kind: regression, label: seconds, baseline_by: video}
scenes:
  feed: {where: video < 9, weights: {click: 1, watch: 1}}
  other: {where: video = 9, weights: {click: 1}}
"""


DAY_MS = 86_400_000


SMALL_LOG = {  # uid, user_id, video, ts, click, seconds; on three days, one for each split
    "train": [
        (1, "a", 5, 1, 1, 10),
        (1, "a", 5, 2, 0, 30),
        (2, "b", 6, 3, 0, 7),
        (2, "b", 6, 4, 0, 8),
        (2, "b", 6, 5, 0, 50),
        (2, "b", 9, 6, 0, 500),
    ],
    "valid": [(1, "a", 5, DAY_MS, 1, 5), (2, "b", 9, DAY_MS + 1, 0, 5), (3, "c", 5, DAY_MS + 2, 0, 0)],
    "test": [(1, "a", 5, 2 * DAY_MS, 1, 5), (2, "b", 9, 2 * DAY_MS + 1, 0, 5), (3, "c", 5, 2 * DAY_MS + 2, 0, 0)],
}


def small(folder: Path, spec: str = SMALL, log: dict[str, list[tuple[object, ...]]] = SMALL_LOG) -> tuple[Path, Path]:
    """The spec's file and the raw folder of a small log."""
    (folder / "spec.yaml").write_text(spec)
    (folder / "raw").mkdir()
    lines = ["uid,user_id,video,ts,click,seconds", *(",".join(map(str, row)) for rows in log.values() for row in rows)]
    (folder / "raw" / "log.csv").write_text("\n".join(lines))
    return folder / "spec.yaml", folder / "raw"
