"""Tensors in files: each rank writes its shards of a state, and any rank reads back any part of a tensor.

The files are safetensors: numbers and a JSON header, so that reading one cannot execute anything. (PyTorch's own
distributed checkpoints keep their index as a pickle, and reading a pickle can.) The key of a shard says where in its
tensor it lies. Hence a state can be read with another sharding than it was written with.
"""

import hashlib
import os
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from pipeline.errors import LocalError, StrataError
from pipeline.training.private_apis import ShardedTensor

SUFFIX = ".safetensors"
BLOCK = 2**24  # bytes that are compared at a time


@dataclass(frozen=True)
class TensorShard:
    """The part of a tensor of shape `shape` that begins at `offsets` and is as large as `tensor`; it may be all."""

    name: str
    shape: tuple[int, ...]
    offsets: tuple[int, ...]
    tensor: Tensor
    replicated: bool
    """Whether every rank holds the same."""

    @property
    def key(self) -> str:
        """The key in a file: the tensor's name, then, unless this is the whole tensor, `@` and the offsets."""
        return self.name if self.shape == self.tensor.shape else f"{self.name}@{','.join(map(str, self.offsets))}"


def local_shards(state: dict[str, Any], prefix: str = "") -> Iterator[TensorShard]:
    """This rank's shards of a tree of tensors. A tensor's name is its path in the tree, joined by dots."""
    for name, value in state.items():
        if isinstance(value, dict):
            yield from local_shards(value, f"{prefix}{name}.")
        elif isinstance(value, ShardedTensor):
            shape = tuple(value.metadata().size)
            for shard in value.local_shards():
                offsets = tuple(shard.metadata.shard_offsets)
                assert len(offsets) == shard.tensor.dim()
                yield TensorShard(prefix + name, shape, offsets, shard.tensor.detach(), replicated=False)
        else:
            assert isinstance(value, Tensor), f"{prefix}{name} is no tensor"
            yield TensorShard(prefix + name, tuple(value.shape), (0,) * value.dim(), value.detach(), replicated=True)


def write_tensors(path: Path, tensors: dict[str, Tensor]) -> str:
    """Writes a file, flushes it, compares the disk's content with the tensors, and returns its SHA-256.

    Raises OSError or SafetensorError if the file cannot be written or the disk holds something else.
    """
    save_file(tensors, path)
    path.chmod(path.parent.stat().st_mode & 0o666)  # safetensors makes it readable for its owner only
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)  # read from the disk, not from memory
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    with safe_open(path, "pt") as written:
        for key, tensor in tensors.items():
            if not _equal(_bytes(written.get_tensor(key)), _bytes(tensor)):
                raise OSError(f"the disk holds something else than was written to {path.name}")
    return digest


def _bytes(tensor: Tensor) -> np.ndarray:
    """The bytes of a tensor: NaN does not equal itself, but its bytes do.

    They are compared by NumPy, which takes no threads of PyTorch away from the training.
    """
    found: np.ndarray = tensor.reshape(-1).view(torch.uint8).numpy()
    return found


def _equal(left: np.ndarray, right: np.ndarray) -> bool:
    """Compares block by block: NumPy's answer takes as much memory as what it compares."""
    blocks = range(0, max(len(left), len(right)), BLOCK)
    return all(np.array_equal(left[at : at + BLOCK], right[at : at + BLOCK]) for at in blocks)


class StoredTensors:
    """The tensors in a folder of files, each put together from its shards.

    Files of any origin are safe to open. Raises StrataError if one is not a file as `write_tensors` writes it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._open = ExitStack()
        self._shards: dict[str, list[tuple[Any, str, tuple[int, ...], tuple[int, ...]]]] = {}
        """File, key, offsets and shape of each shard, by tensor."""
        self.shapes: dict[str, tuple[int, ...]] = {}
        """The shape of each tensor, by name."""
        for path in sorted(folder.glob(f"*{SUFFIX}")):
            try:
                file = self._open.enter_context(safe_open(path, "pt"))
                for key in file.keys():  # noqa: SIM118 (it is no dictionary)
                    self._add(file, key, tuple(file.get_slice(key).get_shape()))
            except Exception as error:  # safetensors raises several kinds of errors, all about the file
                self._open.close()
                raise StrataError(f"cannot be read ({error})", where=path, fix="use another checkpoint") from None

    def _add(self, file: Any, key: str, shape: tuple[int, ...]) -> None:
        name, _, place = key.partition("@")
        offsets = tuple(map(int, place.split(","))) if place else (0,) * len(shape)
        self._shards.setdefault(name, []).append((file, key, offsets, shape))
        end = tuple(offset + size for offset, size in zip(offsets, shape, strict=True))
        self.shapes[name] = tuple(map(max, zip(self.shapes.get(name, end), end, strict=True)))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()

    def read(self, name: str, offsets: tuple[int, ...] = (), sizes: tuple[int, ...] = ()) -> Tensor:
        """A tensor, or its part that begins at `offsets` and has `sizes`, in the type in which it was written.

        Raises LocalError if the files do not hold all of it.
        """
        file, key, _, shape = self._shards[name][0]
        empty: Tensor = file.get_slice(key)[tuple(slice(0, 0) for _ in shape)]  # reads no more than the type
        found = empty.new_empty(sizes or self.shapes[name])
        self.copy_into(name, found, offsets or (0,) * found.dim())
        return found

    def copy_into(self, name: str, target: Tensor, offsets: tuple[int, ...]) -> None:
        """Fills `target` with the part of the tensor that begins at `offsets` and is as large. Nothing else is read.

        Raises LocalError if the files do not hold all of it.
        """
        copied = 0
        for file, key, start, shape in self._shards[name]:
            # In each dimension, the places that both the shard and the wanted part cover.
            bounds = zip(start, shape, offsets, target.shape, strict=True)
            common = [(max(s, o), min(s + size, o + wanted)) for s, size, o, wanted in bounds]
            if all(low < high for low, high in common):
                stored = tuple(slice(low - s, high - s) for (low, high), s in zip(common, start, strict=True))
                here = tuple(slice(low - o, high - o) for (low, high), o in zip(common, offsets, strict=True))
                part = target[here]
                part.copy_(file.get_slice(key)[stored])
                copied += part.numel()
        if copied != target.numel():
            raise LocalError(
                f"cannot be loaded (it lacks a part of `{name}`)", where=self._folder, fix="use another checkpoint"
            )


def load_state(folder: Path, state: dict[str, Any]) -> None:
    """Loads a state into its tensors, in place; a stored number of another type is converted.

    Each rank reads its own shards. Raises StrataError if the files do not hold all of them.
    """
    with StoredTensors(folder) as stored, torch.no_grad():
        for shard in local_shards(state):
            found = stored.shapes.get(shard.name)
            if found != shard.shape:
                problem = f"it has no `{shard.name}`"
                if found is not None:
                    problem = f"`{shard.name}` is {list(found)} in it, but {list(shard.shape)} here"
                raise StrataError(
                    f"cannot be loaded ({problem})",
                    where=folder,
                    fix="use a checkpoint of a run with the same spec and model",
                )
            stored.copy_into(shard.name, shard.tensor, shard.offsets)
