#!/usr/bin/env python3
"""Writes the reference workload of training: a spec, and a sample store of random rows.

.venv/bin/python scripts/reference/workload.py --out ../reference

20 single ids (tables of 100,000 rows), 2 lists of 20 ids on average (tables of 1,000,000 rows), all of dimension 16 and
with Zipf's distribution, 8 numbers; 3 binary and 2 regression objectives, whose labels depend on the numbers.
"""

import hashlib
from pathlib import Path

import numpy as np
import polars as pl

from pipeline.atomic import replace_file
from pipeline.columns import (
    SAMPLE_ID,
    TIME,
    USER,
    WEIGHT,
    feature_column,
    label_column,
    mask_column,
    sample_columns,
    scene_column,
)
from pipeline.commands.command_line import run_script
from pipeline.manifest import MANIFEST, LabelStatistics, Learned, Manifest, Normaliser, RawCounts, SampleFile, SplitName
from pipeline.spec.parts import samples_fingerprint
from pipeline.spec.spec import Spec

IDS = [f"id_{number}" for number in range(20)]
LISTS = ["list_0", "list_1"]
NUMBERS = [f"number_{number}" for number in range(8)]
BINARY = ["click", "like", "share"]
REGRESSION = ["dwell", "play_time"]
LIST_TABLE_ROWS, DIM = 1_000_000, 16
MEAN_LENGTH = 20
ZIPF = 1.1
FILE_ROWS, GROUP_ROWS = 131_072, 8192
DATES: dict[SplitName, str] = {"train": "2026-03-01", "valid": "2026-03-02", "test": "2026-03-03"}


def main(out: Path, rows: int = 1_000_000, table_rows: int = 100_000) -> None:
    """Writes `spec.yaml` and `samples/` into a folder.

    Args:
        out: The folder.
        rows: Rows for training.
        table_rows: Rows of each of the 20 tables of single ids.
    """
    spec = spec_of(table_rows)
    write_store(out / "samples", spec, rows)
    replace_file(out / "spec.yaml", spec.model_dump_json(exclude_unset=True).encode())  # JSON is YAML


def spec_of(table_rows: int) -> Spec:
    """The spec. All tables are hashed: nothing is learned from the rows."""
    columns = {"row": "int64", "user": "int64", "time": "int64"} | dict.fromkeys(IDS, "int64")
    columns |= dict.fromkeys(LISTS, "string") | dict.fromkeys((*NUMBERS, *REGRESSION), "float64")
    columns |= dict.fromkeys(BINARY, "bool")
    sizes = dict.fromkeys(IDS, table_rows) | dict.fromkeys(LISTS, LIST_TABLE_ROWS)
    content = {
        "name": "reference",
        "logs": {
            "impression": {
                "files": "log",
                "columns": columns,
                "id": ["row"],
                "user": "user",
                "video": "id_0",
                "time": "time",
                "outcomes": [*BINARY, *REGRESSION],
            }
        },
        "tables": {name: {"encode": "hash", "rows": rows, "dim": DIM} for name, rows in sizes.items()},
        "features": {name: {"kind": "id", "table": name} for name in IDS}
        | {name: {"kind": "id_list", "table": name, "max_length": 2 * MEAN_LENGTH} for name in LISTS}
        | {name: {"kind": "dense", "normalise": []} for name in NUMBERS},
        "objectives": {name: {"kind": "binary", "label": name} for name in BINARY}
        | {name: {"kind": "regression", "label": name, "unit": "s"} for name in REGRESSION},
        "scenes": {"feed": {"where": "true", "weights": dict.fromkeys([*BINARY, *REGRESSION], 1.0)}},
    }
    return Spec.model_validate(content)


def write_store(store: Path, spec: Spec, train_rows: int) -> None:
    """Writes a sample store as scripts/build_samples.py does. The manifest is written last."""
    rng = np.random.default_rng(0)
    files = []
    sizes: dict[SplitName, int] = {"train": train_rows, "valid": GROUP_ROWS, "test": GROUP_ROWS}
    for split, rows in sizes.items():
        for part, start in enumerate(range(0, rows, FILE_ROWS)):
            frame = _rows(min(FILE_ROWS, rows - start), start, spec, rng)
            path = f"split={split}/date={DATES[split]}/part-{part:04d}.parquet"
            (store / path).parent.mkdir(parents=True, exist_ok=True)
            frame.write_parquet(store / path, row_group_size=GROUP_ROWS, compression="lz4")
            content = (store / path).read_bytes()
            digest = hashlib.sha256(content).hexdigest()
            files.append(
                SampleFile(
                    path=path, split=split, date=DATES[split], rows=frame.height, bytes=len(content), sha256=digest
                )
            )
    labels: dict[SplitName, LabelStatistics] = {
        split: LabelStatistics(rows=sum(f.rows for f in files if f.split == split), mean=None, min=None, max=None)
        for split in DATES
    }
    manifest = Manifest(
        spec=spec,
        fingerprint=samples_fingerprint(spec),
        raw_folder="none: simulated as samples",
        created="",
        files=files,
        learned=Learned(
            table_rows={name: table.rows for name, table in spec.tables.items() if table.encode == "hash"},
            vocabularies={},
            boundaries={},
            normalisers=dict[str, Normaliser](),
            baselines={},
        ),
        labels=dict.fromkeys(spec.objectives, labels),
        raw=dict[str, RawCounts](),
        events={},
        without_profile={},
        filtered=0,
        quarantine=[],
    )
    replace_file(store / MANIFEST, manifest.model_dump_json(indent=1).encode())


def _rows(rows: int, first: int, spec: Spec, rng: np.random.Generator) -> pl.DataFrame:
    numbers = rng.normal(size=(rows, len(NUMBERS))).astype(np.float32)
    row = np.arange(first, first + rows)
    columns: dict[str, object] = {SAMPLE_ID: row, USER: row, TIME: row, WEIGHT: np.ones(rows, np.float32)}
    columns[scene_column("feed")] = np.full(rows, True)
    for at, name in enumerate([*BINARY, *REGRESSION]):
        signal = numbers[:, at] + numbers[:, at + 1]
        if name in BINARY:
            label = (rng.random(rows) < 1 / (1 + np.exp(1 - signal))).astype(np.float32)
        else:
            label = np.exp(signal + rng.normal(size=rows)).astype(np.float32)
        columns[label_column(name)] = label
        columns[mask_column(name)] = np.full(rows, True)
    for name in IDS:
        columns[feature_column(name)] = _zipf(rows, spec.tables[name].rows, rng)  # type: ignore[union-attr]
    for name in LISTS:
        lengths = rng.integers(0, 2 * MEAN_LENGTH + 1, rows)
        ids = pl.DataFrame({"row": np.repeat(row, lengths), "id": _zipf(int(lengths.sum()), LIST_TABLE_ROWS, rng)})
        lists = ids.group_by("row", maintain_order=True).agg("id")
        asked = pl.DataFrame({"row": row}).join(lists, on="row", how="left", maintain_order="left")
        columns[feature_column(name)] = asked["id"].fill_null(pl.lit([], pl.List(pl.Int32)))
    columns |= {feature_column(name): numbers[:, at] for at, name in enumerate(NUMBERS)}
    return pl.DataFrame(columns).select(sample_columns(spec))


def _zipf(count: int, rows: int, rng: np.random.Generator) -> np.ndarray:
    """Rows 1 to rows - 1 of a table, the k-th with a probability that goes with k^-ZIPF, [count] int32."""
    ends = np.cumsum(np.arange(1, rows, dtype=np.float64) ** -ZIPF)
    drawn: np.ndarray = 1 + np.searchsorted(ends, rng.random(count) * ends[-1])
    return drawn.astype(np.int32)


if __name__ == "__main__":
    run_script(main, "--out ../reference")
