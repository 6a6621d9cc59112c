"""Measures what scripts/bench_train.py compares training with, and prints it as JSON. A rate is a list of windows.

python scripts/reference/measure.py SPEC SAMPLES BATCH_SIZE [--model.FLAG VALUE ...]
"""

import json
import sys
import time
from collections.abc import Iterator
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
from pipeline.spec.file import load_spec
from pipeline.spec.spec import Spec
from pipeline.training.config import LoopConfig

WINDOWS, WARM_UP = 7, 2
SIZE = 2048  # of square matrices, large enough for the libraries' best


def batches(store: Path, batch_size: int) -> Iterator[float]:
    """Samples/s from Parquet to ready tensors, shuffled as in training."""
    manifest, buffer_rows = load_manifest(store), LoopConfig().shuffle_rows
    reader = BatchReader(store, manifest, "train", batch_size, buffer_rows)
    window_rows = 2 * min(buffer_rows, manifest.rows("train"))  # batches come in bursts, one per buffer
    rows, began, windows = 0, time.perf_counter(), 0
    for batch in chain.from_iterable(map(reader.batches, count())):
        rows += int(batch.weight.count_nonzero())  # without the rows that fill batches up
        if rows < window_rows:
            continue
        windows += 1
        if windows > WARM_UP:
            yield rows / (time.perf_counter() - began)
        if windows == WARM_UP + WINDOWS:
            return
        rows, began = 0, time.perf_counter()


def products(precision: torch.dtype) -> Iterator[float]:
    """GFLOP/s of matrix products."""
    left, right = torch.randn(2, SIZE, SIZE, dtype=precision).unbind()
    for window in range(WARM_UP + WINDOWS):
        began, repeats = time.perf_counter(), 3
        for _ in range(repeats):
            left @ right
        if window >= WARM_UP:
            yield repeats * 2 * SIZE**3 / (time.perf_counter() - began) / 1e9


def flops(spec: Spec, flags: list[str]) -> float:
    """Floating-point operations of the dense part for one row, forward and backward: its matrix products."""
    config, rows = tyro.cli(ModelConfig, args=[flag.replace("--model.", "--") for flag in flags]), 64
    width = pooled_width(spec) + len(spec.dense_features)
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        network = Network(width, OutputLayout.from_spec(spec, config.towers), config)
        network(torch.randn(rows, width, requires_grad=True)).sum().backward()
    return float(counter.get_total_flops()) / rows


if __name__ == "__main__":
    spec_path, store, batch_size, *flags = sys.argv[1:]
    measured = {
        "batches": list(batches(Path(store), int(batch_size))),
        "float32": list(products(torch.float32)),
        "bfloat16": list(products(torch.bfloat16)),
        "flops": flops(load_spec(Path(spec_path)), flags),
    }
    print(json.dumps(measured))
