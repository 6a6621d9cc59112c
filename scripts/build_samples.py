#!/usr/bin/env python3
"""Builds labelled samples from raw logs.

python scripts/build_samples.py --spec feature_specs/short_video.yaml --raw demo/raw --out demo/samples
"""

from pathlib import Path
from typing import Literal, get_args

from pipeline.command import command
from pipeline.manifest import SplitName
from pipeline.samples.build import build_samples


def main(spec: Path, raw: Path, out: Path, engine: Literal["local"] = "local") -> None:
    """Build labelled samples from raw logs: Parquet by split and day, with a manifest that says what is in them.

    Args:
        spec: The spec: raw schema, features, scenes and objectives (YAML).
        raw: The folder that holds the raw logs.
        out: The folder to create; it must not exist yet.
        engine: Where the work is done: `local` is this machine.
    """
    manifest = build_samples(spec, raw, out)
    splits = [f"{split} {manifest.rows(split):,} of {manifest.period(split)}" for split in get_args(SplitName)]
    print(f"{out}: {sum(file.rows for file in manifest.files):,} samples ({'; '.join(splits)})")


if __name__ == "__main__":
    command(main)
