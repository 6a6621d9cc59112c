#!/usr/bin/env python3
"""Measures training on the reference workload: samples/s, share of the matrix product rate, reading, two ranks.

.venv/bin/python scripts/bench_train.py --json bench_train.json

Each run is scripts/train.py in a new process, from Parquet on disk to the optimiser's step. In each round every mode
runs once, so that a slow minute of the machine affects all of them. A line of metrics.jsonl is a window. The table has
the median over the windows, without the first ones of each run, and in brackets the least and the greatest.
"""

import json
import os
import tempfile
from collections import defaultdict
from pathlib import Path
from statistics import median
from typing import Annotated

import tyro

from pipeline.atomic import replace_file
from pipeline.commands.command_line import run_script
from reference.run import MODEL, Mode, python, trained


def main(
    rows: int = 400_000,
    table_rows: int = 100_000,
    batch_size: int = 8192,
    rounds: int = 2,
    cores: int = 2,
    quick: bool = False,
    json_file: Annotated[Path | None, tyro.conf.arg(name="json")] = None,
) -> None:
    """Trains on the reference workload in every mode, and prints one table.

    Args:
        rows: Rows for training.
        table_rows: Rows of each of the 20 tables of single ids.
        batch_size: Rows of a global batch.
        rounds: Runs of each mode.
        cores: Cores for every process.
        quick: 8,000 rows, one round: about a minute. Do not quote its figures.
        json_file: Where to write the same figures as JSON.
    """
    if quick:
        rows, table_rows, rounds = 8_000, 10_000, 1
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])  # inherited by all processes started from here
    modes = {
        "default": Mode(1, cores),
        "ranks": Mode(cores, 1),
        "fp32": Mode(1, cores, ("--dense.precision", "fp32")),
    }
    windows: dict[str, list[float]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        words = ["reference/workload.py", "--out", folder, "--rows", rows, "--table-rows", table_rows]
        python(words, cores)
        for number in range(rounds):
            for name, mode in modes.items():
                lines = trained(folder, f"run-{number}-{name}", mode, batch_size)
                windows[name] += [line["samples_per_s"] for line in lines]
                windows["wait"] += [line["data_wait"] for line in lines]
            words = ["reference/measure.py", folder / "spec.yaml", folder / "samples", batch_size, *MODEL]
            measured = json.loads(python(words, cores))
            for what in ("batches", "float32", "bfloat16"):
                windows[what] += measured[what]
    flops = measured["flops"]
    print_table(windows, flops, batch_size, cores)
    if json_file:
        figures = figures_of(windows, flops)
        replace_file(json_file, json.dumps(figures, indent=1).encode())


def figures_of(windows: dict[str, list[float]], flops: float) -> dict[str, float]:
    middle = {what: median(found) for what, found in windows.items()}
    return {
        "samples_per_s": middle["default"],
        "samples_per_s_fp32": middle["fp32"],
        "matmul_share": middle["default"] * flops / (max(middle["float32"], middle["bfloat16"]) * 1e9),
        "matmul_share_fp32": middle["fp32"] * flops / (middle["float32"] * 1e9),
        "batch_samples_per_s": middle["batches"],
        "two_rank_efficiency": middle["ranks"] / middle["default"],
        "data_wait": middle["wait"],
    }


def print_table(windows: dict[str, list[float]], flops: float, batch_size: int, cores: int) -> None:
    figures = figures_of(windows, flops)
    share, share_fp32 = figures["matmul_share"], figures["matmul_share_fp32"]
    lines = {
        "default": (
            f"training, 1 rank with {cores} threads",
            "samples/s",
            f"{flops / 1e6:.1f} MFLOP a sample: {share:.0%} of the faster product rate",
        ),
        "fp32": ("the same in fp32", "samples/s", f"{share_fp32:.0%} of the fp32 product rate"),
        "ranks": (
            f"{cores} ranks with 1 thread each",
            "samples/s",
            f"{figures['two_rank_efficiency']:.2f} of one rank",
        ),
        "batches": (
            "Parquet to ready tensors, one process",
            "samples/s",
            f"training waits {figures['data_wait']:.1%} of its time for them",
        ),
        "float32": ("matrix products in fp32", "GFLOP/s", ""),
        "bfloat16": ("matrix products in bf16", "GFLOP/s", ""),
    }
    print(f"| batches of {batch_size:,} rows, {cores} cores | median (least–greatest) | |")
    print("| --- | --- | --- |")
    for what, (name, unit, note) in lines.items():
        found = windows[what]
        print(f"| {name} | {median(found):,.0f} ({min(found):,.0f}–{max(found):,.0f}) {unit} | {note} |")


if __name__ == "__main__":
    run_script(main, "--json bench_train.json")
