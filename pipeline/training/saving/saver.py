"""Saves checkpoints while training goes on: a state is copied at once, and a thread writes the copy.

A checkpoint is made in three steps:

1. Each rank copies its shards to the memory of the host. The training waits for this, and before it for the thread,
   if that is still writing the checkpoint before.
2. The thread of each rank writes its file below `.step-*.partial`, flushes it, reads it back and computes its checksum.
3. The threads tell each other whether they succeeded, over a process group of their own. If all did, the first rank
   adds progress.json and SHA256SUMS, renames the folder, and deletes old checkpoints. If one did not, the folder is
   deleted, and every rank raises the same error when it next waits.
"""

import shutil
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch
import torch.distributed as dist
from safetensors import SafetensorError
from torch import Tensor

from pipeline.errors import StrataError
from pipeline.training.processes import Rank
from pipeline.training.saving.checkpoints import Progress, checkpoint_path, commit
from pipeline.training.saving.tensor_files import SUFFIX, local_shards, write_tensors


class Saver:
    """Saves the checkpoints of a run, one after another. Every rank has one. Leaving its `with` block waits for it."""

    def __init__(self, run: Path, rank: Rank, keep: int) -> None:
        """Every rank must call it at the same time. It writes nothing yet."""
        self._run = run
        self._rank = rank
        self._keep = keep
        self._copies: dict[str, Tensor] = {}  # by key in the file; used again for each checkpoint
        self._saving: Future[None] | None = None
        self._group = dist.new_group(backend="gloo")  # messages of the threads must not mix with the training's
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoints")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.wait()
        finally:
            self._thread.shutdown()

    @property
    def failed(self) -> bool:
        """Whether `wait` would raise at once. The ranks may learn of a failure at different times."""
        return self._saving is not None and self._saving.done() and self._saving.exception() is not None

    def save(self, state: dict[str, Any], progress: Progress) -> None:
        """Starts to save `state` as it is now. Every rank calls it. Raises what `wait` raises."""
        self.wait()
        for shard in local_shards(state):
            if self._rank.first or not shard.replicated:
                if shard.key not in self._copies:
                    pinned = shard.tensor.is_cuda
                    self._copies[shard.key] = torch.empty_like(shard.tensor, device="cpu", pin_memory=pinned)
                self._copies[shard.key].copy_(shard.tensor)
        self._saving = self._thread.submit(self._write, progress.model_copy())

    def wait(self) -> None:
        """Waits until no checkpoint is being written. Raises StrataError if the last one could not be written."""
        if self._saving is not None:
            saving, self._saving = self._saving, None
            saving.result()

    def _write(self, progress: Progress) -> None:
        target = checkpoint_path(self._run, progress.step)
        aside = target.with_name(f".{target.name}.partial")
        name, digest, problem = f"rank-{self._rank.rank:05d}{SUFFIX}", "", None
        try:
            aside.mkdir(parents=True, exist_ok=True)
            digest = write_tensors(aside / name, self._copies)
        except Exception as error:  # of any kind: the other ranks must learn of it, or they wait for ever
            problem = error
        try:
            digests = self._agree((name, digest), problem, target)
            if self._rank.first:
                try:
                    commit(aside, self._run, progress, dict(digests), self._keep)
                except Exception as error:
                    problem = error
            self._agree(None, problem, target)
        except BaseException:
            if self._rank.first:
                shutil.rmtree(aside, ignore_errors=True)
            raise

    def _agree(self, value: Any, problem: Exception | None, target: Path) -> list[Any]:
        """The values of all ranks, in their order. Raises StrataError on every rank if one has a problem."""
        of_ranks: list[Any] = [None] * self._rank.ranks
        dist.all_gather_object(of_ranks, (value, problem and str(problem)), group=self._group)
        if problem and not isinstance(problem, (OSError, SafetensorError, StrataError)):
            raise problem  # a mistake in Strata
        for rank, (_, reason) in enumerate(of_ranks):
            if reason:
                raise StrataError(
                    f"cannot be written (rank {rank}: {reason})",
                    where=target,
                    fix="make room for it, and go on with --resume",
                ) from problem
        return [of_rank for of_rank, _ in of_ranks]
