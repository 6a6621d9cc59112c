#!/usr/bin/env python3
"""Does what every sample builder must do at least: reads the raw files, and writes as many bytes as the store has.

.venv/bin/python scripts/sample_peers/floor.py --raw demo/raw --out floor.bin --size 100000000
"""

import os
from pathlib import Path

import polars as pl

from pipeline.commands.command_line import run_script

BLOCK_BYTES = 1 << 23


def main(raw: Path, out: Path, size: int) -> None:
    """Reads all columns of all raw tables, and writes and flushes a file of `size` bytes.

    Args:
        raw: The folder that holds the raw logs, as Parquet.
        out: The file to write.
        size: Its size in bytes.
    """
    for table in ("impression", "stay", "click", "play", "like", "user", "video"):
        pl.read_parquet(raw / table / "*.parquet")
    block = os.urandom(BLOCK_BYTES)  # no file system can make this smaller
    with out.open("wb") as file:
        for start in range(0, size, BLOCK_BYTES):
            file.write(block[: size - start])
        file.flush()
        os.fsync(file.fileno())


if __name__ == "__main__":
    run_script(main, "--raw demo/raw --out floor.bin --size 100000000")
