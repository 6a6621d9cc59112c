"""A batch: rows of the sample store as tensors for the model and the loss.

Letters: B rows, N rows of a table, F sparse features, D dense features, O objectives, S scenes; the last four in the
order of the spec.
"""

from dataclasses import dataclass, fields

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor
from torchrec.streamable import Pipelineable

from pipeline.batches.row_groups import as_one_array
from pipeline.columns import WEIGHT, feature_column, label_column, mask_column, scene_column
from pipeline.spec.features import IdFeature
from pipeline.spec.spec import Spec


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
    """[B, O] bool: whether the row is in the objective's sample space"""
    scenes: Tensor
    """[B, S] bool"""
    weight: Tensor
    """[B] float32: the sample weight"""

    def __len__(self) -> int:
        return len(self.weight)

    def to(self, device: torch.device, non_blocking: bool = True) -> "Batch":
        return Batch(*(getattr(self, field.name).to(device, non_blocking=non_blocking) for field in fields(self)))

    def pin_memory(self) -> "Batch":
        """A copy in pinned memory, which a GPU reads without the host."""
        return Batch(*(getattr(self, field.name).pin_memory() for field in fields(self)))

    def record_stream(self, stream: torch.Stream) -> None:
        """Keeps the memory of a batch, copied on another stream, until `stream` no longer needs it."""
        for field in fields(self):
            getattr(self, field.name).record_stream(stream)


def model_columns(spec: Spec) -> list[str]:
    """The columns of the sample store that make up a batch."""
    return [
        WEIGHT,
        *map(feature_column, spec.features),
        *map(label_column, spec.objectives),
        *map(mask_column, spec.objectives),
        *map(scene_column, spec.scenes),
    ]


@dataclass(frozen=True)
class IdLists:
    """N lists of ids: list i is `values[ends[i] : ends[i + 1]]`; `ends` is [N + 1]."""

    values: np.ndarray
    ends: np.ndarray


@dataclass(frozen=True)
class RowArrays:
    """The rows of a table as arrays, from which batches are joined."""

    ids: np.ndarray
    """[features with a single id, N] int32"""
    lists: list[IdLists]
    """The other sparse features."""
    dense: np.ndarray
    labels: np.ndarray
    masks: np.ndarray
    scenes: np.ndarray
    weight: np.ndarray

    @classmethod
    def from_table(cls, table: pa.Table, spec: Spec, order: np.ndarray) -> "RowArrays":
        """The rows `order` of a table with the columns of `model_columns`. A missing number becomes NaN."""
        singles = [name for name, feature in spec.sparse_features.items() if isinstance(feature, IdFeature)]
        others = [name for name in spec.sparse_features if name not in singles]
        ids = np.empty((len(singles), len(order)), np.int32)
        for at, name in enumerate(singles):
            ids[at] = _numbers(table, feature_column(name)).take(order)
        return cls(
            ids=ids,
            lists=[_lists(table, feature_column(name), order) for name in others],
            dense=_stack(table, [feature_column(name) for name in spec.dense_features], np.float32, order),
            labels=_stack(table, [label_column(name) for name in spec.objectives], np.float32, order),
            masks=_stack(table, [mask_column(name) for name in spec.objectives], np.bool_, order),
            scenes=_stack(table, [scene_column(name) for name in spec.scenes], np.bool_, order),
            weight=_numbers(table, WEIGHT).take(order).astype(np.float32, copy=False),
        )


def join(parts: list[tuple[RowArrays, int, int]], spec: Spec, size: int) -> Batch:
    """A batch of the rows `start` to `stop` of each part (rows, start, stop), one part after another.

    It is filled up to `size` rows, because row-wise sharding over gloo needs batches of equal size on all ranks. The
    rows that fill it have no ids and are in no scene, so that they touch neither loss nor gradient.
    """

    def joined(field: str) -> Tensor:
        arrays = [getattr(rows, field)[start:stop] for rows, start, stop in parts]
        filling = np.zeros_like(arrays[0], shape=(size - sum(map(len, arrays)), *arrays[0].shape[1:]))
        return torch.from_numpy(np.concatenate([*arrays, filling]))

    return Batch(_jagged(parts, spec, size), *map(joined, ("dense", "labels", "masks", "scenes", "weight")))


def to_batch(rows: pa.Table, spec: Spec) -> Batch:
    """The rows of a whole table as a batch."""
    count = rows.num_rows
    return join([(RowArrays.from_table(rows, spec, np.arange(count)), 0, count)], spec, count)


def _jagged(parts: list[tuple[RowArrays, int, int]], spec: Spec, size: int) -> KeyedJaggedTensor:
    """All sparse features, one after another; the lengths of feature f are the f-th run of B lengths.

    `length_per_key` is counted here, where the ids are on the host. TorchRec would have to ask the device for it.
    """
    ids = iter(np.concatenate([rows.ids[:, start:stop] for rows, start, stop in parts], axis=1))
    lists = zip(*(rows.lists for rows, _, _ in parts), strict=True)
    count = sum(stop - start for _, start, stop in parts)
    values, lengths_FB = [], np.zeros((len(spec.sparse_features), size), np.int32)
    for lengths, feature in zip(lengths_FB, spec.sparse_features.values(), strict=True):
        if isinstance(feature, IdFeature):
            values.append(next(ids))
            lengths[:count] = 1
        else:
            slices = [(part, start, stop) for part, (_, start, stop) in zip(next(lists), parts, strict=True)]
            values += [part.values[part.ends[start] : part.ends[stop]] for part, start, stop in slices]
            np.concatenate([np.diff(part.ends[start : stop + 1]) for part, start, stop in slices], out=lengths[:count])
    return KeyedJaggedTensor(
        keys=list(spec.sparse_features),
        values=torch.from_numpy(np.concatenate(values, dtype=np.int64)),
        lengths=torch.from_numpy(lengths_FB.reshape(-1)),
        length_per_key=lengths_FB.sum(axis=1).tolist(),
    )


def _stack(table: pa.Table, columns: list[str], dtype: type[np.generic], order: np.ndarray) -> np.ndarray:
    """Columns side by side [N, len(columns)]."""
    stacked = np.empty((len(order), len(columns)), dtype)
    for at, column in enumerate(columns):
        stacked[:, at] = _numbers(table, column).take(order)
    return stacked


def _numbers(table: pa.Table, column: str) -> np.ndarray:
    values = as_one_array(table.column(column))
    if values.null_count:
        values = pc.fill_null(values, float("nan"))
    numbers: np.ndarray = values.to_numpy(zero_copy_only=False)
    return numbers


def _lists(table: pa.Table, column: str, order: np.ndarray) -> IdLists:
    """The lists `order` of a column.

    Arrow takes lists id by id, but binary values as a whole. So the lists are passed to it as binary values.
    """
    lists = as_one_array(table.column(column))
    values = lists.values.to_numpy(zero_copy_only=False).astype(np.int32, copy=False)
    ends = lists.offsets.to_numpy().astype(np.int64) * values.itemsize
    buffers = [None, pa.py_buffer(ends), pa.py_buffer(values)]
    taken = pa.LargeBinaryArray.from_buffers(pa.large_binary(), len(lists), buffers).take(pa.array(order))
    _, taken_ends, taken_values = taken.buffers()
    return IdLists(
        values=np.frombuffer(taken_values or b"", np.int32),
        ends=np.frombuffer(taken_ends, np.int64, len(order) + 1) // values.itemsize,
    )
