"""Starts from the model of an earlier run, though vocabularies have grown since: rows go where their values went."""

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from models.config import ModelConfig
from models.ranker import table_weight
from pipeline.batches.mapping import NEW, Encoding, earlier_rows
from pipeline.errors import StrataError
from pipeline.spec.spec import Spec
from pipeline.training.config import CONFIG, load_config
from pipeline.training.processes import Rank
from pipeline.training.run_folder import load_encoding, read_own_progress
from pipeline.training.saving.checkpoints import NAME, best_checkpoint, check_together
from pipeline.training.saving.tensor_files import StoredTensors, TensorShard, load_state, local_shards
from pipeline.training.stepping.optimisers import Optimisers, first_row, undivided_sums

BLOCK_ROWS = 65_536  # of a table of the earlier run, at most, in memory at a time


@dataclass(frozen=True)
class Predecessor:
    """A checkpoint of an earlier run, and what the numbers of that run stand for."""

    checkpoint: Path
    encoding: Encoding


def signature(spec: Spec) -> str:
    """Tells apart specs whose models differ in what a weight stands for, though they may have the same shapes."""
    features = [(name, feature.model_dump(include={"kind", "table"})) for name, feature in spec.features.items()]
    tables = [(name, table.encode, table.dim, table.pooling) for name, table in spec.tables.items()]
    objectives = [(name, objective.kind) for name, objective in spec.objectives.items()]
    scenes = [(name, list(scene.weights)) for name, scene in spec.scenes.items()]
    return hashlib.sha256(repr((features, tables, objectives, scenes)).encode()).hexdigest()


def find_predecessor(path: Path, spec: Spec, config: ModelConfig, rank: Rank) -> Predecessor:
    """`path` is a run, of which the best checkpoint is meant, or one of its checkpoints. Every rank calls it.

    Raises StrataError if it is neither, has another model or spec, or a file of the checkpoint is damaged.
    """
    path = path.resolve()
    run, checkpoint = (path.parent.parent, path) if NAME.fullmatch(path.name) else (path, best_checkpoint(path))
    check_together(checkpoint, rank)
    encoding = load_encoding(run)
    read_own_progress(checkpoint, encoding)
    if signature(encoding.manifest.spec) != signature(spec):
        raise StrataError(
            "was trained with other features, tables, objectives or scenes, or in another order",
            where=run,
            fix="train a new model",
        )
    if load_config(run).model != config:
        raise StrataError("was trained with another --model", where=run, fix=f"see its {CONFIG}")
    return Predecessor(checkpoint, encoding)


def warm_start(predecessor: Predecessor, now: Encoding, model: dict[str, Any], optimisers: Optimisers) -> str:
    """Loads weights and optimiser states into `model`, a state, and `optimisers`; returns what to say about it.

    A row takes over the row that its value, or the middle of its interval, had in the earlier run. Rows of new values
    stay as they were initialised. Raises StrataError if the two models do not fit together.
    """
    new_rows = 0
    optimiser_states = optimisers.state()
    sizes = now.manifest.learned.table_rows
    weights = {table: table_weight(table) for table in now.manifest.spec.tables}
    with StoredTensors(predecessor.checkpoint) as stored:
        for table, weight in weights.items():
            mapped = earlier_rows(table, now, predecessor.encoding)
            origins = torch.arange(sizes[table]) if mapped is None else torch.from_numpy(mapped)
            new_rows += int((origins == NEW).sum())
            rows = local_shards({"model": {weight: model[weight]}})
            fill_table(stored, rows, local_shards({weight: optimiser_states["tables"][weight]}), origins)
    dense = {name: value for name, value in model.items() if name not in weights.values()}
    load_state(predecessor.checkpoint, {"model": dense, "optimisers": {"adam": optimiser_states["adam"]}})
    return f"initialised from {predecessor.checkpoint}; {new_rows:,} rows of its tables are new"


@torch.no_grad()
def fill_table(
    stored: StoredTensors,
    weights: Iterable[TensorShard],
    sums: Iterable[TensorShard],
    origins: Tensor,
    block_rows: int = BLOCK_ROWS,
) -> None:
    """Fills what this rank holds of a table, and Adagrad's sums of it, by at most `block_rows` rows at a time.

    `origins` has for each row of the whole table its row in the earlier run, or NEW; int64 [rows].
    """
    for shard in weights:
        first = shard.offsets[0]
        _fill(shard.tensor, origins[first : first + len(shard.tensor)], partial(_weights, stored, shard), block_rows)
    for shard in sums:
        first = first_row(shard, len(origins))
        before = partial(undivided_sums, stored, shard.name)
        _fill(shard.tensor, origins[first : first + len(shard.tensor)], before, block_rows)


def _weights(stored: StoredTensors, shard: TensorShard, first: int, last: int) -> Tensor:
    """The rows `first` to `last`, exclusive, of the columns that a shard has."""
    return stored.read(shard.name, (first, shard.offsets[1]), (last - first, shard.tensor.shape[1]))


def _fill(rows: Tensor, origins: Tensor, before: Callable[[int, int], Tensor], block_rows: int) -> None:
    """Copies into every one of `rows` that has an origin that row of the earlier table.

    `before(first, last)` reads its rows `first` to `last`, exclusive. Blocks of at most `block_rows` follow each other,
    so none is read twice.
    """
    ordered, order = origins.sort()
    low = int(torch.searchsorted(ordered, 0))
    while low < len(ordered):
        first = int(ordered[low])
        high = int(torch.searchsorted(ordered, first + block_rows))
        block = before(first, int(ordered[high - 1]) + 1)
        rows[order[low:high].to(rows.device)] = block[ordered[low:high] - first].to(rows)
        low = high
