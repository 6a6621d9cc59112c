#!/usr/bin/env python3
"""Compares the training speed of Strata, torch-rechub and DeepCTR-Torch on the reference workload.

.venv/bin/python scripts/bench_peers.py --json bench_peers.json

Needs the extra `bench`. All train the same PLE on the same rows (ids, lists of ids, numbers), with the same batch size
on the same cores. Strata is one rank with a thread per core. Each run is a new process. In each round everything runs
once, so that a slow minute of the machine affects all of them. The table has the median over the windows and, in
brackets, the least and the greatest. Strata reads its batches from Parquet while it trains. The peers hold the rows in
memory before the clock starts, and train as their documentation shows, without regularisation.
"""

import importlib.metadata
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

PEERS = ("torch_rechub", "deepctr_torch")
TABLES = {"": 100_000, "_1m": 1_000_000}  # rows of each table of single ids, by the ending of a figure's name
DIFFERENCES = """
- All: Strata computes in the precision it chooses itself, the peers in float32. Both peers update every row of every
  table in each step, by Adam: their tables have dense gradients. Strata updates the rows of a batch, by row-wise
  Adagrad; its other weights by Adam.
- Left out by the peers: masks and weights of labels, the scene. Lists are filled up to their greatest length.
- torch-rechub: batch normalisation in every expert, gate and tower, which has no switch; weight decay is off.
- DeepCTR-Torch: ids are float32 until they are looked up; the penalty on tables, which is on by default, is off."""


def main(
    rows: int = 300_000,
    batch_size: int = 4096,
    peer_windows: int = 4,
    rounds: int = 2,
    cores: int = 2,
    fused: bool = False,
    quick: bool = False,
    json_file: Annotated[Path | None, tyro.conf.arg(name="json")] = None,
) -> None:
    """Trains Strata's PLE and those of the peers on the reference workload, and prints one table.

    Args:
        rows: Rows for Strata's training. The peers train on the first of them.
        batch_size: Rows of a batch.
        peer_windows: Windows of two batches that are measured in each run of a peer.
        rounds: Runs of each program on each size of tables.
        cores: Cores for every process.
        fused: Give the peers the fused Adam of PyTorch, which their documentation does not mention.
        quick: Small tables, few batches, one round: less than a minute. Do not quote its figures.
        json_file: Where to write the same ratios as JSON.
    """
    tables = TABLES
    if quick:
        tables, rows, peer_windows, rounds = {"": 10_000}, 12 * batch_size, 1, 1
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])  # inherited by all processes started from here
    windows = {
        ending: measured(size, rows, batch_size, peer_windows, rounds, cores, "fused" if fused else "plain")
        for ending, size in tables.items()
    }
    figures = {
        f"speedup_{peer}{ending}": median(found["strata"]) / median(found[peer])
        for ending, found in windows.items()
        for peer in PEERS
    }
    print_table(windows, figures, tables, batch_size, cores)
    if json_file:
        replace_file(json_file, json.dumps(figures, indent=1).encode())


def measured(
    table_rows: int, rows: int, batch_size: int, peer_windows: int, rounds: int, cores: int, adam: str
) -> dict[str, list[float]]:
    """Samples/s of all windows, by program."""
    windows: dict[str, list[float]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        python(["reference/workload.py", "--out", folder, "--rows", rows, "--table-rows", table_rows], cores)
        for number in range(rounds):
            lines = trained(folder, f"run-{number}", Mode(1, cores), batch_size)
            windows["strata"] += [line["samples_per_s"] for line in lines]
            for peer in PEERS:
                words = ["reference/peers.py", peer, folder / "samples", batch_size, peer_windows, adam, *MODEL]
                windows[peer] += map(float, python(words, cores).split())
    return windows


def print_table(
    windows: dict[str, dict[str, list[float]]],
    figures: dict[str, float],
    tables: dict[str, int],
    batch_size: int,
    cores: int,
) -> None:
    names = {"strata": "Strata"} | {peer: f"{peer} {importlib.metadata.version(peer)}" for peer in PEERS}
    print(
        f"| batches of {batch_size:,} rows, {cores} cores | samples/s, median (least–greatest) | Strata's, of these |"
    )
    print("| --- | --- | --- |")
    for ending, found in windows.items():
        for who, name in names.items():
            spread = f"{median(found[who]):,.0f} ({min(found[who]):,.0f}–{max(found[who]):,.0f})"
            ratio = f"{figures[f'speedup_{who}{ending}']:.1f} times" if who in PEERS else ""
            print(f"| {name}, tables of {tables[ending]:,} rows | {spread} | {ratio} |")
    print(DIFFERENCES)


if __name__ == "__main__":
    run_script(main, "--json bench_peers.json")
