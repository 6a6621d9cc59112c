"""Checkpoints: written aside by all ranks, renamed by the first, so that one is complete or absent.

A checkpoint holds tensors only (the model, the optimisers' states) and beside them `progress.json`, which says
where in the run it was taken. It can be loaded on another number of ranks or with another sharding plan.
"""

import shutil
import warnings
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from pydantic import BaseModel, ConfigDict
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save

from pipeline.errors import StrataError

PROGRESS = "progress.json"


class Progress(BaseModel):
    """Where a run stands: `step` steps are done, of which `epoch_step` in the current epoch."""

    model_config = ConfigDict(extra="forbid")

    encoding: str
    """`Manifest.encoding` of the samples that the model was trained on."""
    step: int = 0
    epoch: int = 0
    epoch_step: int = 0
    valid_loss: float | None = None
    """Of this very step, if it was validated."""
    best_loss: float | None = None
    validations_without_gain: int = 0


def complete_checkpoints(run: Path) -> list[Path]:
    """The run's checkpoints, oldest first; half-written ones have another name and are not among them."""
    return sorted(path.parent for path in (run / "checkpoints").glob(f"step-*/{PROGRESS}"))


def read_progress(checkpoint: Path) -> Progress:
    return Progress.model_validate_json((checkpoint / PROGRESS).read_text())


def best_checkpoint(run: Path) -> Path:
    """The checkpoint with the lowest validation loss; the newest, if none was validated.

    Raises StrataError if the run has none.
    """
    found = complete_checkpoints(run)
    if not found:
        raise StrataError("has no complete checkpoint", where=run, fix="train it first with scripts/train.py")
    validated = [(loss, path) for path in found if (loss := read_progress(path).valid_loss) is not None]
    return min(validated)[1] if validated else found[-1]


def save_checkpoint(run: Path, state: dict[str, Any], progress: Progress) -> Path:
    """Every rank calls it. Afterwards only the newest and the best checkpoint are left."""
    target = run / "checkpoints" / f"step-{progress.step:08d}"
    aside = target.with_name(f".{target.name}.partial")
    first = dist.get_rank() == 0
    if first:
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
    dist.barrier()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # DCP calls ShardedTensor functions that it deprecates itself
        save(state, checkpoint_id=aside)
    if first:
        (aside / PROGRESS).write_text(progress.model_dump_json(indent=1))
        shutil.rmtree(target, ignore_errors=True)
        aside.rename(target)
        for old in set(complete_checkpoints(run)) - {target, best_checkpoint(run)}:
            shutil.rmtree(old)
    dist.barrier()
    return target


def stored_sizes(checkpoint: Path) -> dict[str, torch.Size]:
    """The shapes of a checkpoint's tensors by name, as in `model.bottom.0.weight`."""
    stored = FileSystemReader(checkpoint).read_metadata().state_dict_metadata
    return {name: tensor.size for name, tensor in stored.items() if isinstance(tensor, TensorStorageMetadata)}


def load_checkpoint(checkpoint: Path, state: dict[str, Any], *, alone: bool = False) -> None:
    """Loads into the tensors of `state`, in place; `alone` without a process group.

    Raises StrataError if the checkpoint does not hold all of them.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", (FutureWarning, UserWarning))
            load(state, checkpoint_id=checkpoint, no_dist=alone)
    except CheckpointException as error:
        reasons = str(error).strip().splitlines()
        raise StrataError(f"cannot be loaded ({reasons[-1]})", where=checkpoint, fix="use a checkpoint of a run with "
                          "the same spec and model") from None  # fmt: skip
