"""Starting from the model of an earlier run although vocabularies have grown since: rows go where their values went."""

import hashlib
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from torch import Tensor

from models.config import ModelConfig
from models.ranker import table_weight
from pipeline.errors import StrataError
from pipeline.manifest import Manifest, check_file
from pipeline.spec.spec import Spec
from pipeline.training.config import CONFIG, load_config
from pipeline.training.processes import Rank
from pipeline.training.saving.checkpoints import NAME, best_checkpoint, check_together, read_progress
from pipeline.training.saving.tensor_files import StoredTensors, TensorShard, load_state, local_shards
from pipeline.training.stepping.optimisers import Optimisers, first_row, undivided_sums

VOCABULARIES = "checkpoints/vocabularies"
BLOCK_ROWS = 65_536  # of a table of the earlier run, at most, in memory at a time


@dataclass(frozen=True)
class Ancestor:
    """A checkpoint of an earlier run, and the run."""

    run: Path
    checkpoint: Path


def design(spec: Spec) -> str:
    """Tells apart specs whose models differ in what a weight stands for, though they may have the same shapes."""
    features = [(name, feature.model_dump(include={"kind", "table"})) for name, feature in spec.features.items()]
    tables = [(name, table.encode, table.dim, table.pooling) for name, table in spec.tables.items()]
    objectives = [(name, objective.kind) for name, objective in spec.objectives.items()]
    scenes = [(name, list(scene.weights)) for name, scene in spec.scenes.items()]
    return hashlib.sha256(repr((features, tables, objectives, scenes)).encode()).hexdigest()


def find_ancestor(path: Path, spec: Spec, config: ModelConfig, rank: Rank) -> Ancestor:
    """`path` is a run, of which the best checkpoint is meant, or one of its checkpoints. Every rank calls it.

    Raises StrataError if it is neither, has another model or spec, or a file of the checkpoint is damaged.
    """
    path = path.resolve()
    is_checkpoint = NAME.fullmatch(path.name)
    ancestor = Ancestor(path.parent.parent, path) if is_checkpoint else Ancestor(path, best_checkpoint(path))
    check_together(ancestor.checkpoint, rank)
    if read_progress(ancestor.checkpoint).design != design(spec):
        raise StrataError(
            "was trained with other features, tables, objectives or scenes, or in another order",
            where=ancestor.run,
            fix="train a new model",
        )
    if load_config(ancestor.run).model != config:
        raise StrataError("was trained with another --model", where=ancestor.run, fix=f"see its {CONFIG}")
    return ancestor


def keep_vocabularies(samples: Path, manifest: Manifest, run: Path) -> None:
    """Copies the vocabularies that the rows of the tables stand for: the store will learn others from later days."""
    (run / VOCABULARIES).mkdir(parents=True, exist_ok=True)
    for table, vocabulary in manifest.learned.vocabularies.items():
        source, copy = samples / vocabulary.path, run / VOCABULARIES / f"{table}.parquet"
        shutil.copyfile(source, copy)
        check_file(copy, vocabulary.sha256, of=source)


def inherit(
    ancestor: Ancestor, samples: Path, manifest: Manifest, model: dict[str, Any], optimisers: Optimisers
) -> str:
    """Loads weights and optimiser states into `model`, a state, and `optimisers`; returns what to say about it.

    The row of a value in a vocabulary is taken over wherever the value stands now; rows of new values stay as they
    were initialised. Rows of other tables keep their number. Raises StrataError if the two models do not fit together.
    """
    new_rows = 0
    optimiser_states = optimisers.state()
    weights = {table: table_weight(table) for table in manifest.spec.tables}
    with StoredTensors(ancestor.checkpoint) as stored:
        for table, weight in weights.items():
            origins = _origins(ancestor, table, stored.shapes[f"model.{weight}"][0], samples, manifest)
            new_rows += int((origins < 0).sum())
            rows = local_shards({"model": {weight: model[weight]}})
            inherit_table(stored, rows, local_shards({weight: optimiser_states["tables"][weight]}), origins)
    dense = {name: value for name, value in model.items() if name not in weights.values()}
    load_state(ancestor.checkpoint, {"model": dense, "optimisers": {"adam": optimiser_states["adam"]}})
    return f"initialised from {ancestor.checkpoint}; {new_rows:,} rows of its tables are new"


@torch.no_grad()
def inherit_table(
    stored: StoredTensors,
    weights: Iterable[TensorShard],
    sums: Iterable[TensorShard],
    origins: Tensor,
    block_rows: int = BLOCK_ROWS,
) -> None:
    """Fills what this rank holds of a table, and Adagrad's sums of it, by at most `block_rows` rows at a time.

    `origins` are those of all its rows, as `_origins` gives them.
    """
    for chunk in weights:
        first = chunk.offsets[0]
        _fill(chunk.tensor, origins[first : first + len(chunk.tensor)], partial(_weights, stored, chunk), block_rows)
    for chunk in sums:
        first = first_row(chunk, len(origins))
        before = partial(undivided_sums, stored, chunk.name)
        _fill(chunk.tensor, origins[first : first + len(chunk.tensor)], before, block_rows)


def _weights(stored: StoredTensors, chunk: TensorShard, first: int, last: int) -> Tensor:
    """The rows `first` to `last`, exclusive, of the columns that a chunk has."""
    return stored.read(chunk.name, (first, chunk.offsets[1]), (last - first, chunk.tensor.shape[1]))


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


def _origins(ancestor: Ancestor, table: str, rows_before: int, samples: Path, manifest: Manifest) -> Tensor:
    """For each row of a table the row that it had in the earlier run, or -1 if it is new; [rows]."""
    rows = manifest.learned.table_rows[table]
    vocabulary = manifest.learned.vocabularies.get(table)
    if vocabulary is None:
        if rows != rows_before:
            raise StrataError(
                f"table `{table}` has {rows_before:,} rows in it, but {rows:,} now, and no vocabulary to "
                "tell which is which",
                where=ancestor.run,
                fix="train a new model",
            )
        return torch.arange(rows)
    path = ancestor.run / VOCABULARIES / f"{table}.parquet"
    if not path.is_file():
        raise StrataError(f"lacks {VOCABULARIES}/{path.name}", where=ancestor.run, fix="use a run of this version")
    before, now = pq.read_table(path), pq.read_table(samples / vocabulary.path)
    place = pc.index_in(now["value"], value_set=before["value"].combine_chunks())
    known = torch.from_numpy(place.is_valid().to_numpy())
    origins = torch.full((rows,), -1)
    origins[0] = 0  # the row of values outside the vocabulary
    index_now = torch.from_numpy(now["index"].to_numpy().astype("int64"))
    index_before = torch.from_numpy(before["index"].to_numpy().astype("int64"))
    found = torch.from_numpy(place.drop_null().to_numpy().astype("int64"))
    origins[index_now[known]] = index_before[found]
    return origins
