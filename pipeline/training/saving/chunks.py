"""Tensors in files, whole or in chunks: what a rank holds of a sharded state, written, checked, and read back.

The files are safetensors: numbers and a JSON header, so that reading one cannot execute anything. (PyTorch's own
distributed checkpoints keep their index as a pickle, which can.) A chunk's place in its tensor is part of its key,
hence a state is read with any sharding, whatever the one that it was written with.
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
from torch.distributed._shard.sharded_tensor.api import ShardedTensor

from pipeline.errors import LocalError, StrataError

SUFFIX = ".safetensors"
BLOCK = 2**24  # bytes of a tensor and of its file that are compared at a time


@dataclass(frozen=True)
class Chunk:
    """A box of a tensor of shape `shape`: it begins at `offsets` and is as large as `tensor`."""

    name: str
    shape: tuple[int, ...]
    offsets: tuple[int, ...]
    tensor: Tensor
    replicated: bool
    """Every rank holds the same."""

    @property
    def key(self) -> str:
        """In a file: the tensor's name, and unless this is all of it, `@` and the offsets."""
        return self.name if self.shape == self.tensor.shape else f"{self.name}@{','.join(map(str, self.offsets))}"


def chunks_of(state: dict[str, Any], prefix: str = "") -> Iterator[Chunk]:
    """What this rank holds of a tree of tensors; a tensor's name is its path in the tree, joined by dots."""
    for name, value in state.items():
        if isinstance(value, dict):
            yield from chunks_of(value, f"{prefix}{name}.")
        elif isinstance(value, ShardedTensor):
            shape = tuple(value.metadata().size)
            for shard in value.local_shards():
                offsets = tuple(shard.metadata.shard_offsets)
                assert len(offsets) == shard.tensor.dim()
                yield Chunk(prefix + name, shape, offsets, shard.tensor.detach(), replicated=False)
        else:
            assert isinstance(value, Tensor), f"{prefix}{name} is no tensor"
            yield Chunk(prefix + name, tuple(value.shape), (0,) * value.dim(), value.detach(), replicated=True)


def write_tensors(path: Path, tensors: dict[str, Tensor]) -> str:
    """Writes a file, flushes it to the disk, compares what the disk then holds, and returns its SHA-256.

    Raises OSError or SafetensorError if it cannot be written, or is not what was written.
    """
    save_file(tensors, path)
    path.chmod(path.parent.stat().st_mode & 0o666)  # safetensors lets the owner alone read it
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
    """Because NaN does not equal itself; as NumPy's, which takes no threads of torch's away from the training."""
    found: np.ndarray = tensor.reshape(-1).view(torch.uint8).numpy()
    return found


def _equal(left: np.ndarray, right: np.ndarray) -> bool:
    """A block after another, because NumPy takes as much memory for the answer as for what it compares."""
    blocks = range(0, max(len(left), len(right)), BLOCK)
    return all(np.array_equal(left[at : at + BLOCK], right[at : at + BLOCK]) for at in blocks)


class StoredTensors:
    """The tensors in a folder of files, each put together from its chunks.

    Safe with files from anywhere. Raises StrataError if a file is not what `write_tensors` writes.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._open = ExitStack()
        self._chunks: dict[str, list[tuple[Any, str, tuple[int, ...], tuple[int, ...]]]] = {}
        """By tensor: file, key, offsets and shape of each chunk."""
        self.shapes: dict[str, tuple[int, ...]] = {}
        """Of each tensor, by name."""
        for path in sorted(folder.glob(f"*{SUFFIX}")):
            try:
                file = self._open.enter_context(safe_open(path, "pt"))
                for key in file.keys():  # noqa: SIM118 (it is no dict)
                    self._add(file, key, tuple(file.get_slice(key).get_shape()))
            except Exception as error:  # safetensors raises errors of several kinds, all of them about the file
                self._open.close()
                raise StrataError(f"cannot be read ({error})", where=path, fix="use another checkpoint") from None

    def _add(self, file: Any, key: str, shape: tuple[int, ...]) -> None:
        name, _, place = key.partition("@")
        offsets = tuple(map(int, place.split(","))) if place else (0,) * len(shape)
        self._chunks.setdefault(name, []).append((file, key, offsets, shape))
        end = tuple(offset + size for offset, size in zip(offsets, shape, strict=True))
        self.shapes[name] = tuple(map(max, zip(self.shapes.get(name, end), end, strict=True)))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()

    def read(self, name: str, offsets: tuple[int, ...] = (), sizes: tuple[int, ...] = ()) -> Tensor:
        """A tensor, or the box of it that begins at `offsets` and has `sizes`; of the type that it was written with.

        Raises LocalError if the files do not hold all of it.
        """
        file, key, _, shape = self._chunks[name][0]
        nothing: Tensor = file.get_slice(key)[tuple(slice(0, 0) for _ in shape)]
        box = nothing.new_empty(sizes or self.shapes[name])
        self.copy_into(name, box, offsets or (0,) * box.dim())
        return box

    def copy_into(self, name: str, target: Tensor, offsets: tuple[int, ...]) -> None:
        """Fills `target` with the box of the tensor that begins at `offsets` and is as large; no more is read.

        Raises LocalError if the files do not hold all of it.
        """
        copied = 0
        for file, key, begin, shape in self._chunks[name]:
            box = list(zip(begin, shape, offsets, target.shape, strict=True))
            common = [(max(b, o), min(b + size, o + wanted)) for b, size, o, wanted in box]
            if all(low < high for low, high in common):
                stored = tuple(slice(low - b, high - b) for (low, high), b in zip(common, begin, strict=True))
                here = tuple(slice(low - o, high - o) for (low, high), o in zip(common, offsets, strict=True))
                part = target[here]
                part.copy_(file.get_slice(key)[stored])
                copied += part.numel()
        if copied != target.numel():
            raise LocalError(
                f"cannot be loaded (it lacks a part of `{name}`)", where=self._folder, fix="use another checkpoint"
            )


def load_state(folder: Path, state: dict[str, Any]) -> None:
    """Loads into the tensors of `state`, in place, and converts between types of numbers where they differ.

    Each rank reads what it holds. Raises StrataError if the files do not hold all of it.
    """
    with StoredTensors(folder) as stored, torch.no_grad():
        for chunk in chunks_of(state):
            found = stored.shapes.get(chunk.name)
            if found != chunk.shape:
                problem = f"it has no `{chunk.name}`"
                if found is not None:
                    problem = f"`{chunk.name}` is {list(found)} in it, but {list(chunk.shape)} here"
                raise StrataError(
                    f"cannot be loaded ({problem})",
                    where=folder,
                    fix="use a checkpoint of a run with the same spec and model",
                )
            stored.copy_into(chunk.name, chunk.tensor, chunk.offsets)
