"""Trains a peer's PLE on the reference workload, for scripts/bench_peers.py.

Prints the samples/s of each window but the first. The rows are in memory before the clock starts. The peer's own loop
and loader train, with Adam as its documentation shows or with PyTorch's fused Adam, and without regularisation.
"""

import io
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import torch
import tyro
from torch.optim.optimizer import register_optimizer_step_post_hook

from models.config import ModelConfig
from pipeline.columns import feature_column, label_column
from pipeline.manifest import load_manifest
from pipeline.spec.features import DenseFeature, IdListFeature
from pipeline.spec.spec import Spec

ADAM: dict[str, dict[str, Any]] = {"plain": {"lr": 1e-3}, "fused": {"lr": 1e-3, "fused": True}}
STEPS = 2  # of a window
Arrays = dict[str, np.ndarray]


def torch_rechub(
    spec: Spec, config: ModelConfig, x: Arrays, y: np.ndarray, batch_size: int, adam: dict[str, Any]
) -> None:
    """One epoch of torch-rechub's trainer."""
    from torch_rechub.basic.features import DenseFeature as Number
    from torch_rechub.basic.features import SequenceFeature, SparseFeature
    from torch_rechub.models.multi_task import PLE
    from torch_rechub.trainers import MTLTrainer
    from torch_rechub.utils.data import DataGenerator

    features = []
    for name, feature in spec.features.items():
        if isinstance(feature, DenseFeature):
            features.append(Number(name))
            continue
        rows, dim = size(spec, feature.table)
        several = isinstance(feature, IdListFeature)
        features.append(
            SequenceFeature(name, rows, dim, pooling="mean", padding_idx=0)
            if several
            else SparseFeature(name, rows, dim)
        )
    tasks = ["classification" if part.kind == "binary" else part.kind for part in spec.objectives.values()]
    model = PLE(
        features,
        tasks,
        config.levels,
        config.own_experts,
        config.shared_experts,
        {"dims": list(config.expert)},
        [{"dims": list(config.tower)}] * len(tasks),
    )
    loader, _, _ = DataGenerator(x, y).generate_dataloader(batch_size=batch_size)
    MTLTrainer(model, tasks, optimizer_params=adam).train_one_epoch(loader)


def deepctr_torch(
    spec: Spec, config: ModelConfig, x: Arrays, y: np.ndarray, batch_size: int, adam: dict[str, Any]
) -> None:
    """One epoch of DeepCTR-Torch's `fit`, which takes ids and numbers as one matrix of float32."""
    # The package wants it only to ask an index for a newer version whenever it is imported, and carries on without.
    sys.modules["requests"] = ModuleType("requests")
    from deepctr_torch.inputs import DenseFeat, SparseFeat, VarLenSparseFeat
    from deepctr_torch.models.multitask import PLE

    columns = []
    for name, feature in spec.features.items():
        if isinstance(feature, DenseFeature):
            columns.append(DenseFeat(name))
            continue
        ids = SparseFeat(name, *size(spec, feature.table))
        columns.append(VarLenSparseFeat(ids, feature.max_length) if isinstance(feature, IdListFeature) else ids)
    tasks = [part.kind for part in spec.objectives.values()]
    model = PLE(
        columns,
        config.shared_experts,
        config.own_experts,
        config.levels,
        config.expert,
        config.gate,
        config.tower,
        l2_reg_linear=0,
        l2_reg_embedding=0,
        task_types=tasks,
        task_names=list(spec.objectives),
    )
    losses = ["binary_crossentropy" if task == "binary" else "mse" for task in tasks]
    model.compile(torch.optim.Adam(model.parameters(), **adam), losses)
    model.fit({name: values.astype(np.float32) for name, values in x.items()}, y, batch_size, verbose=0)


def size(spec: Spec, table: str) -> tuple[int, int]:
    """Rows and dimension of a table of the reference workload, all of which are hashed."""
    found = spec.tables[table]
    assert found.encode == "hash"
    return found.rows, found.dim


def arrays(store: Path, spec: Spec, rows: int) -> tuple[Arrays, np.ndarray]:
    """The first rows for training: features, [N] each or, lists with zeros at their ends, [N, L]; labels [N, Y]."""
    files = [store / file.path for file in load_manifest(store).files if file.split == "train"]
    names = [*map(feature_column, spec.features), *map(label_column, spec.objectives)]
    table = ds.dataset(files).head(rows, columns=names).combine_chunks()
    x = {}
    for name, feature in spec.features.items():
        column = table[feature_column(name)].chunk(0)
        x[name] = filled(column, feature.max_length) if isinstance(feature, IdListFeature) else column.to_numpy()
    return x, np.stack([table[label_column(name)].to_numpy() for name in spec.objectives], axis=1)


def filled(lists: pa.ListArray, width: int) -> np.ndarray:
    """[N, width]: the ids of each list, then zeros."""
    ids = np.zeros((len(lists), width), np.int32)
    ids[np.arange(width) < np.diff(lists.offsets.to_numpy())[:, None]] = lists.flatten().to_numpy()
    return ids


def main(peer: str, store: str, batch_size: int, windows: int, adam: str, *flags: str) -> None:
    """Trains for `windows` + 1 windows. `flags` are model options of scripts/train.py."""
    spec = load_manifest(Path(store)).spec
    config = tyro.cli(ModelConfig, args=[flag.replace("--model.", "--") for flag in flags])
    x, y = arrays(Path(store), spec, (1 + windows) * STEPS * batch_size)
    ends: list[float] = []
    register_optimizer_step_post_hook(lambda *_: ends.append(time.perf_counter()))
    with redirect_stdout(io.StringIO()):  # both peers print their progress
        PEERS[peer](spec, config, x, y, batch_size, ADAM[adam])
    for start, end in pairwise(ends[STEPS - 1 :: STEPS]):
        print(STEPS * batch_size / (end - start))


PEERS: dict[str, Callable[[Spec, ModelConfig, Arrays, np.ndarray, int, dict[str, Any]], None]] = {
    "torch_rechub": torch_rechub,
    "deepctr_torch": deepctr_torch,
}

if __name__ == "__main__":
    peer, store, batch_size, windows, adam, *flags = sys.argv[1:]
    main(peer, store, int(batch_size), int(windows), adam, *flags)
