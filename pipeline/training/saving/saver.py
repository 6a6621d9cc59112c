"""Saving while training goes on: the state is copied at once, and written by a thread.

What happens to a checkpoint, in this order:

1. Each rank copies what it holds to the host's memory. Only this holds up the training, and only when the checkpoint
   before is not done yet does it wait for that.
2. Each rank's thread writes its file below `.step-*.partial`, flushes it, reads it back and computes its checksum.
3. The threads tell each other, over a group of their own, that this went well. If it did for all, the first rank adds
   progress.json and SHA256SUMS, renames the folder, and deletes old checkpoints. If not, the folder vanishes, and every
   rank raises the same error when it next waits.
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
from pipeline.training.saving.checkpoints import Progress, checkpoint_path, seal
from pipeline.training.saving.chunks import SUFFIX, chunks_of, write_tensors


class Saver:
    """Saves checkpoints of a run, one after the other. Every rank has one; leaving its `with` block waits for it."""

    def __init__(self, run: Path, rank: Rank, keep: int) -> None:
        """Every rank must call it at the same time; it writes nothing yet."""
        self._run = run
        self._rank = rank
        self._keep = keep
        self._copies: dict[str, Tensor] = {}  # by key of the file, used again for each checkpoint
        self._saving: Future[None] | None = None
        self._group = dist.new_group(backend="gloo")  # of the threads: their messages must not mix with the training's
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
        """Whether `wait` would raise at once. Ranks may learn of it at different times."""
        return self._saving is not None and self._saving.done() and self._saving.exception() is not None

    def save(self, state: dict[str, Any], progress: Progress) -> None:
        """Starts to save `state` as it is now; every rank calls it. Raises what `wait` raises."""
        self.wait()
        for chunk in chunks_of(state):
            if self._rank.first or not chunk.replicated:
                if chunk.key not in self._copies:
                    pinned = chunk.tensor.is_cuda
                    self._copies[chunk.key] = torch.empty_like(chunk.tensor, device="cpu", pin_memory=pinned)
                self._copies[chunk.key].copy_(chunk.tensor)
        self._saving = self._thread.submit(self._write, progress.model_copy())

    def wait(self) -> None:
        """Until the checkpoint in hand, if there is one, is complete. Raises StrataError if it could not be written."""
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
        except Exception as error:  # whatever it is, the other ranks must not wait for this one
            problem = error
        try:
            digests = self._agree((name, digest), problem, target)
            if self._rank.first:
                try:
                    seal(aside, self._run, progress, dict(digests), self._keep)
                except Exception as error:
                    problem = error
            self._agree(None, problem, target)
        except BaseException:
            if self._rank.first:
                shutil.rmtree(aside, ignore_errors=True)
            raise

    def _agree(self, value: Any, problem: Exception | None, target: Path) -> list[Any]:
        """What every rank has to say, in their order. Raises StrataError on all of them if one has a problem."""
        told: list[Any] = [None] * self._rank.ranks
        dist.all_gather_object(told, (value, problem and str(problem)), group=self._group)
        if problem and not isinstance(problem, (OSError, SafetensorError, StrataError)):
            raise problem  # a mistake of ours
        for rank, (_, reason) in enumerate(told):
            if reason:
                raise StrataError(
                    f"cannot be written (rank {rank}: {reason})",
                    where=target,
                    fix="make room for it, and go on with --resume",
                ) from problem
        return [said for said, _ in told]
