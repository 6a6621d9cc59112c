"""The checkpoints of a run: folders `checkpoints/step-*`. Each is complete or absent, and its checksums prove it.

A checkpoint holds the tensors of the model and of the optimisers, one file from each rank; `progress.json`, which says
where in the run it was taken; and `SHA256SUMS` of all of these, in the format of `sha256sum -c`. Reading a checkpoint
cannot execute anything. A folder that is being written or deleted has a name that begins with a dot.
"""

import hashlib
import os
import re
import shutil
from pathlib import Path

import torch.distributed as dist
from pydantic import BaseModel, ConfigDict

from pipeline.atomic import replace_file
from pipeline.errors import StrataError
from pipeline.json_files import load_json
from pipeline.storage import Folder, flush_folder
from pipeline.training.processes import Rank
from pipeline.training.saving.tensor_files import SUFFIX

PROGRESS = "progress.json"
SUMS = "SHA256SUMS"
NAME = re.compile(r"step-(\d{8,})")


class Progress(BaseModel):
    """Where a run stands: `step` steps are done, of which `epoch_step` in the current epoch.

    The position in the data and the random states follow from these numbers: the order of the rows is a function of
    seed and epoch, and every step seeds its generators by seed, step and rank (`Loop._step`).
    """

    model_config = ConfigDict(extra="forbid")

    manifest: str
    """`Manifest.digest` of the run: its spec, its samples and all that was learned."""
    step: int = 0
    epoch: int = 0
    epoch_step: int = 0
    skipped: int = 0
    """Steps that changed nothing because their loss or gradient was not finite."""
    skipped_in_a_row: int = 0
    """How many of the last steps were skipped in a row."""
    valid_loss: float | None = None
    """The loss of the validation at this step, if there was one."""
    best_loss: float | None = None
    validations_without_gain: int = 0


def checkpoint_path(run: Path, step: int) -> Path:
    return run / "checkpoints" / f"step-{step:08d}"


def complete_checkpoints(run: Path) -> list[Path]:
    """The run's checkpoints, oldest first. Half-written ones have other names and are left out."""
    found = {int(name[1]): path for path in (run / "checkpoints").glob("*") if (name := NAME.fullmatch(path.name))}
    return [found[step] for step in sorted(found)]


def read_progress(checkpoint: Path) -> Progress:
    """Raises StrataError if its file is damaged."""
    if reason := _damage(checkpoint, PROGRESS, _sums(checkpoint)):
        raise _damaged(checkpoint, reason)
    return load_json(Progress, Folder.at(checkpoint), PROGRESS, what="a checkpoint", fix="train the model again")


def best_checkpoint(run: Path) -> Path:
    """The checkpoint with the lowest validation loss; the newest, if none was validated.

    Raises StrataError if the run has none, or if one is too damaged to tell.
    """
    found = complete_checkpoints(run)
    if not found:
        raise StrataError("has no complete checkpoint", where=run, fix="train it first with scripts/train.py")
    return _best({path: read_progress(path) for path in found})


def _best(progress: dict[Path, Progress]) -> Path:
    validated = [(at.valid_loss, at.step, path) for path, at in progress.items() if at.valid_loss is not None]
    return min(validated)[2] if validated else max(progress, key=lambda path: progress[path].step)


def check(checkpoint: Path) -> None:
    """Raises StrataError, naming the file, if one is missing or is not what its checksum says."""
    if reason := damage(checkpoint):
        raise _damaged(checkpoint, reason)


def check_together(checkpoint: Path, rank: Rank) -> None:
    """The same check by all ranks together, each of a share of the files."""
    if reason := _damage_together(checkpoint, rank):
        raise _damaged(checkpoint, reason)


def _damage_together(checkpoint: Path, rank: Rank) -> str | None:
    reasons: list[str | None] = [None] * rank.ranks
    dist.all_gather_object(reasons, damage(checkpoint, rank.rank, rank.ranks))
    return next(filter(None, reasons), None)


def damage(checkpoint: Path, rank: int = 0, ranks: int = 1) -> str | None:
    """What is wrong with a rank's share of the files; None if nothing is."""
    sums = _sums(checkpoint)
    names = sorted({PROGRESS, *sums, *(path.name for path in checkpoint.glob(f"*{SUFFIX}"))})
    return next((reason for name in names[rank::ranks] if (reason := _damage(checkpoint, name, sums))), None)


def _damage(checkpoint: Path, name: str, sums: dict[str, str]) -> str | None:
    try:
        with (checkpoint / name).open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        return f"{name}: {error.strerror}"
    return None if digest == sums.get(name) else f"{name} is not what {SUMS} says"


def _sums(checkpoint: Path) -> dict[str, str]:
    """Digests by file. A damaged line names another file or none, so that some file fails its check either way."""
    path = checkpoint / SUMS
    lines = path.read_text(errors="replace").splitlines() if path.is_file() else []
    return {name or SUMS: digest for digest, _, name in (line.partition("  ") for line in lines)}


def _damaged(checkpoint: Path, reason: str) -> StrataError:
    return StrataError(
        f"is damaged ({reason})",
        where=checkpoint,
        fix="restore its files, or delete the folder to use the run's next best checkpoint",
    )


def newest_sound(run: Path, rank: Rank) -> tuple[Path | None, dict[Path, str]]:
    """The newest checkpoint that is not damaged, or None if the run has none; and what is wrong with newer ones.

    Every rank calls it, checks a share of the files, and gets the same answer. Raises StrataError if the run has
    checkpoints and all are damaged.
    """
    of_first_rank = [complete_checkpoints(run)]
    dist.broadcast_object_list(of_first_rank)
    damaged: dict[Path, str] = {}
    for checkpoint in reversed(of_first_rank[0]):
        reason = _damage_together(checkpoint, rank)
        if not reason:
            return checkpoint, damaged
        damaged[checkpoint] = reason
    if damaged:
        reasons = ", ".join(f"{path.name}: {reason}" for path, reason in damaged.items())
        raise StrataError(
            f"all checkpoints are damaged ({reasons})",
            where=run,
            fix="restore one from a copy, or train again with another --out",
        )
    return None, damaged


def sweep(run: Path, damaged: dict[Path, str]) -> None:
    """Deletes what killed processes left behind, and renames damaged checkpoints so that no later run tries them."""
    for path in (run / "checkpoints").glob(".step-*"):
        _remove(path)
    for path in damaged:
        aside = path.with_name(f"{path.name}.damaged")
        _remove(aside)
        path.rename(aside)


def commit(aside: Path, run: Path, progress: Progress, digests: dict[str, str], keep: int) -> None:
    """Makes a checkpoint of the folder `aside`, which holds all ranks' tensors; then deletes old checkpoints.

    The newest `keep` checkpoints and the best are kept. Raises StrataError or OSError if the disk is full.
    """
    content = progress.model_dump_json(indent=1).encode()
    replace_file(aside / PROGRESS, content)
    digests = digests | {PROGRESS: hashlib.sha256(content).hexdigest()}
    replace_file(aside / SUMS, "".join(f"{digest}  {name}\n" for name, digest in digests.items()).encode())
    target = checkpoint_path(run, progress.step)
    if target.exists():
        _delete(target)
    aside.rename(target)
    for folder in (target.parent, run):  # the new one must survive a power cut before an old one is deleted
        flush_folder(str(folder))
    for path in _superfluous(run, keep):
        _delete(path)


def _superfluous(run: Path, keep: int) -> list[Path]:
    """All but the newest and the best. One whose progress cannot be read stays: it may be the best."""
    found = complete_checkpoints(run)
    known = {path: read_progress(path) for path in found if not _damage(path, PROGRESS, _sums(path))}
    return [path for path in found[:-keep] if path in known and path != _best(known)]


def _delete(checkpoint: Path) -> None:
    """Renames the folder first: a half-deleted checkpoint must not look like a complete one."""
    aside = checkpoint.with_name(f".{checkpoint.name}.old")
    _remove(aside)
    os.rename(checkpoint, aside)
    _remove(aside)


def _remove(folder: Path) -> None:
    """A folder and all in it; of a symbolic link nothing but the link."""
    if folder.is_symlink():
        folder.unlink()
    elif folder.exists():
        shutil.rmtree(folder)
