#!/usr/bin/env python3
"""Builds labelled samples from raw logs.

python scripts/build_samples.py --spec feature_specs/short_video.yaml --raw demo/raw --out demo/samples
"""

from pathlib import Path
from typing import get_args

from pipeline.command import command
from pipeline.engines import EngineName
from pipeline.manifest import SplitName
from pipeline.samples.build import build_samples
from pipeline.samples.plan import Options


def main(
    spec: Path,
    raw: str,
    out: str,
    engine: EngineName = "local",
    ray_address: str | None = None,
    workers: int | None = None,
    memory: float = 2.0,
    partitions: int | None = None,
) -> None:
    """Build labelled samples from raw logs: Parquet by split and day, with a manifest that says what is in them.

    Args:
        spec: The spec: raw schema, features, scenes and objectives (YAML).
        raw: The folder that holds the raw logs.
        out: The folder to create; it must not exist yet.
        engine: Where the work is done: `local` is this machine.
    """
    options = Options(engine, ray_address, workers, memory, partitions)
    manifest = build_samples(spec, raw, out, options)
    splits = [f"{split} {manifest.rows(split):,} of {manifest.period(split)}" for split in get_args(SplitName)]
    print(f"{out}: {sum(file.rows for file in manifest.files):,} samples ({'; '.join(splits)})")


if __name__ == "__main__":
    command(main)
