#!/usr/bin/env python3
"""Builds labelled samples from raw logs.

python scripts/build_samples.py --spec feature_specs/short_video.yaml --raw demo/raw --out demo/samples
"""

from pathlib import Path
from typing import Literal

import tyro

from pipeline.errors import one_line_errors
from pipeline.samples.build import build_samples


def main(spec: Path, raw: Path, out: Path, engine: Literal["local"] = "local") -> None:
    """Build labelled samples from raw logs: Parquet by split and day, with a manifest that says what is in them.

    Args:
        spec: The spec: raw schema, features, scenes and objectives (YAML).
        raw: The folder that holds the raw logs.
        out: The folder to create; it must not exist yet.
        engine: Where the work is done: `local` is this machine.
    """
    with one_line_errors():
        manifest = build_samples(spec, raw, out)
        rows = ", ".join(f"{split} {manifest.rows(split)}" for split in ("train", "valid", "test"))
        print(f"{out}: {sum(file.rows for file in manifest.files)} samples ({rows})")


if __name__ == "__main__":
    tyro.cli(main)
