"""Measures one thing in a process of its own, for scripts/bench_train.py; prints a number per window."""

import sys
import time
from collections.abc import Callable
from itertools import chain, count
from pathlib import Path

import torch
import tyro
from torch.utils.flop_counter import FlopCounterMode

from models.config import ModelConfig
from models.embeddings import pooled_width
from models.ranker import Network
from models.towers import OutputLayout
from pipeline.batches.reader import BatchReader
from pipeline.manifest import load_manifest
from pipeline.spec_file import load_spec
from pipeline.training.config import LoopConfig

WINDOWS, WARM_UP = 7, 2
SIZE = 2048  # of square matrices, large enough for the libraries' best


def batches(store: str, batch_size: str) -> None:
    """Samples/s from Parquet to ready tensors."""
    size, shuffle_rows = int(batch_size), LoopConfig().shuffle_rows
    reader = BatchReader(Path(store), load_manifest(Path(store)), "train", size, shuffle_rows)
    rows, began, windows = 0, time.perf_counter(), 0
    for batch in chain.from_iterable(map(reader.batches, count())):
        rows += int(batch.weight.count_nonzero())  # without the rows that fill batches up
        if rows < 2 * shuffle_rows:  # batches come in bursts, one per buffer
            continue
        windows += 1
        if windows > WARM_UP:
            print(rows / (time.perf_counter() - began))
        if windows == WARM_UP + WINDOWS:
            return
        rows, began = 0, time.perf_counter()


def products(precision: str) -> None:
    """GFLOP/s of matrix products."""
    left, right = torch.randn(2, SIZE, SIZE, dtype=getattr(torch, precision)).unbind()
    for window in range(WARM_UP + WINDOWS):
        began, repeats = time.perf_counter(), 3
        for _ in range(repeats):
            left @ right
        if window >= WARM_UP:
            print(repeats * 2 * SIZE**3 / (time.perf_counter() - began) / 1e9)


def flops(spec_path: str, *flags: str) -> None:
    """Floating-point operations of the dense part for one row, forward and backward: its matrix products."""
    spec, config, rows = load_spec(Path(spec_path)), tyro.cli(ModelConfig, args=[_inner(flag) for flag in flags]), 64
    width = pooled_width(spec) + len(spec.dense_features)
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        network = Network(width, OutputLayout.from_spec(spec, config.towers), config)
        network(torch.randn(rows, width, requires_grad=True)).sum().backward()
    print(counter.get_total_flops() / rows)


def _inner(flag: str) -> str:
    """A flag of scripts/train.py as one of the model's own."""
    return flag.replace("--model.", "--")


if __name__ == "__main__":
    measures: dict[str, Callable[..., None]] = {"batches": batches, "products": products, "flops": flops}
    measures[sys.argv[1]](*sys.argv[2:])
