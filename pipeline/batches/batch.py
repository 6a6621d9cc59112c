"""A batch: rows of the sample store as the tensors that the model and the loss take.

Letters: B rows, D dense features, O objectives, S scenes; each in the order of the spec.
"""

from dataclasses import dataclass, fields

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor
from torch.nn.functional import pad
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor
from torchrec.streamable import Pipelineable

from pipeline.spec import WEIGHT, IdFeature, Spec, feature_column, label_column, mask_column, scene_column


@dataclass(frozen=True)
class Batch(Pipelineable):
    """B rows. A label is NaN where its mask is false."""

    sparse: KeyedJaggedTensor
    """The sparse features, by their names in the spec."""
    dense: Tensor
    """[B, D] float32"""
    labels: Tensor
    """[B, O] float32, in the objectives' own units"""
    masks: Tensor
    """[B, O] bool: the row is in the objective's sample space"""
    scenes: Tensor
    """[B, S] bool"""
    weight: Tensor
    """[B] float32: the sample weight"""

    def __len__(self) -> int:
        return len(self.weight)

    def to(self, device: torch.device, non_blocking: bool = True) -> "Batch":
        return Batch(*(getattr(self, field.name).to(device, non_blocking=non_blocking) for field in fields(self)))

    def record_stream(self, stream: torch.Stream) -> None:
        """Keeps the memory of a batch that was copied on another stream from being reused too early."""
        for field in fields(self):
            getattr(self, field.name).record_stream(stream)


def model_columns(spec: Spec) -> list[str]:
    """The columns of the sample store that a batch is made of."""
    return [
        WEIGHT,
        *map(feature_column, spec.features),
        *map(label_column, spec.objectives),
        *map(mask_column, spec.objectives),
        *map(scene_column, spec.scenes),
    ]


def to_batch(rows: pa.Table, spec: Spec, size: int | None = None) -> Batch:
    """The tensors of rows that have the columns of `model_columns`.

    Row-wise sharding over gloo needs batches of equal size on all ranks: fewer rows than `size` are followed by rows
    without ids, in no scene, which touch neither loss nor gradient.
    """
    rows = rows.combine_chunks()
    batch = Batch(
        sparse=_jagged(rows, spec),
        dense=_stack(rows, [feature_column(name) for name in spec.dense_features], np.float32),
        labels=_stack(rows, [label_column(name) for name in spec.objectives], np.float32),
        masks=_stack(rows, [mask_column(name) for name in spec.objectives], np.bool_),
        scenes=_stack(rows, [scene_column(name) for name in spec.scenes], np.bool_),
        weight=torch.from_numpy(_numpy(rows, WEIGHT).astype(np.float32)),
    )
    return batch if size is None else _pad(batch, size - len(batch))


def _pad(batch: Batch, missing: int) -> Batch:
    lengths_FB = batch.sparse.lengths().view(len(batch.sparse.keys()), -1)
    lengths = pad(lengths_FB, (0, missing)).view(-1)
    below = (0, 0, 0, missing)
    return Batch(
        sparse=KeyedJaggedTensor(batch.sparse.keys(), batch.sparse.values(), lengths=lengths),
        dense=pad(batch.dense, below),
        labels=pad(batch.labels, below),
        masks=pad(batch.masks, below),
        scenes=pad(batch.scenes, below),
        weight=pad(batch.weight, (0, missing)),
    )


def _jagged(rows: pa.Table, spec: Spec) -> KeyedJaggedTensor:
    """All sparse features, one after the other; the lengths of feature f are the f-th run of B lengths."""
    values, lengths = [], []
    for name, feature in spec.sparse_features.items():
        if isinstance(feature, IdFeature):
            values.append(_numpy(rows, feature_column(name)))
            lengths.append(np.ones(rows.num_rows, np.int32))
        else:
            lists = _chunk(rows, feature_column(name))
            values.append(lists.flatten().to_numpy(zero_copy_only=False))
            lengths.append(np.diff(lists.offsets.to_numpy()).astype(np.int32))
    return KeyedJaggedTensor(
        keys=list(spec.sparse_features),
        values=torch.from_numpy(np.concatenate(values, dtype=np.int64)),
        lengths=torch.from_numpy(np.concatenate(lengths)),
    )


def _stack(rows: pa.Table, columns: list[str], dtype: type[np.generic]) -> Tensor:
    """Columns side by side [B, len(columns)]; a null number becomes NaN."""
    stacked = np.empty((rows.num_rows, len(columns)), dtype)
    for at, column in enumerate(columns):
        stacked[:, at] = _numpy(rows, column)
    return torch.from_numpy(stacked)


def _numpy(rows: pa.Table, column: str) -> np.ndarray:
    values = _chunk(rows, column)
    if values.null_count:
        values = pc.fill_null(values, float("nan"))
    flat: np.ndarray = values.to_numpy(zero_copy_only=False)
    return flat


def _chunk(rows: pa.Table, column: str) -> pa.Array:
    """A column of a table without chunks, which has none at all if it has no rows."""
    chunked = rows.column(column)
    return chunked.chunk(0) if chunked.num_chunks else pa.array([], chunked.type)
