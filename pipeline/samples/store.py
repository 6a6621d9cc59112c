"""Writes the sample store: Hive-partitioned Parquet, with the manifest last."""

import hashlib
from pathlib import Path

import polars as pl

from pipeline.manifest import SampleFile, SplitName, Vocabulary
from pipeline.samples.checker import DAY
from pipeline.spec import (
    SAMPLE_ID,
    TIME,
    USER,
    WEIGHT,
    Spec,
    feature_column,
    label_column,
    mask_column,
    scene_column,
)

ROWS_PER_FILE = 1_000_000
# Small enough that the rows of many groups mix when training shuffles whole groups, large enough to read fast.
ROWS_PER_GROUP = 2048


def sample_columns(spec: Spec) -> list[str]:
    """The columns of the store, in their order."""
    return [
        *(SAMPLE_ID, USER, TIME, WEIGHT),
        *map(scene_column, spec.scenes),
        *map(label_column, spec.objectives),
        *map(mask_column, spec.objectives),
        *map(feature_column, spec.features),
    ]


def write_samples(samples: pl.DataFrame, split_of_day: dict[object, SplitName], folder: Path) -> list[SampleFile]:
    """Writes `split=S/date=D/part-0000.parquet` and so on; rows in the order of time, then of sample_id."""
    files = []
    for (day,), rows in sorted(samples.partition_by(DAY, as_dict=True, include_key=False).items()):
        split = split_of_day[day]
        target = folder / f"split={split}" / f"date={day}"
        target.mkdir(parents=True)
        for part, piece in enumerate(rows.sort(TIME, SAMPLE_ID).iter_slices(ROWS_PER_FILE)):
            path = target / f"part-{part:04d}.parquet"
            piece.write_parquet(path, row_group_size=ROWS_PER_GROUP, compression="zstd", compression_level=1)
            files.append(
                SampleFile(
                    path=str(path.relative_to(folder)),
                    split=split,
                    date=str(day),
                    rows=piece.height,
                    bytes=path.stat().st_size,
                    sha256=_checksum(path),
                )
            )
    return files


def write_vocabularies(vocabularies: dict[str, pl.DataFrame], folder: Path) -> dict[str, Vocabulary]:
    """Writes `vocabularies/<table>.parquet`."""
    (folder / "vocabularies").mkdir()
    written = {}
    for name, vocabulary in vocabularies.items():
        path = folder / "vocabularies" / f"{name}.parquet"
        vocabulary.write_parquet(path)
        written[name] = Vocabulary(path=str(path.relative_to(folder)), sha256=_checksum(path))
    return written


def write_rejected(rejected: dict[str, pl.DataFrame], folder: Path) -> None:
    """Writes `rejected/<table>.parquet` for the tables that have any: table, file, reason, record."""
    (folder / "rejected").mkdir()
    for name, rows in rejected.items():
        if rows.height:
            rows.write_parquet(folder / "rejected" / f"{name}.parquet")


def _checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
