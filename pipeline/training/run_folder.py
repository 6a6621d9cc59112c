"""A run's folder: what it keeps of its samples to stand on its own, and whether a run can begin or go on in it.

`manifest.json` is the manifest of the samples as the run found them: the run's own spec, the files that it reads, and
all that was learned. `vocabularies/<table>.parquet` are the vocabularies.
"""

import shutil
from functools import partial
from pathlib import Path

from pipeline.atomic import replace_file
from pipeline.batches.mapping import Encoding
from pipeline.errors import StrataError
from pipeline.json_files import load_json
from pipeline.manifest import MANIFEST, Manifest
from pipeline.spec.file import load_spec
from pipeline.spec.parts import changed_parts
from pipeline.storage import Folder
from pipeline.training.config import CONFIG, TrainConfig, load_config
from pipeline.training.processes import Job
from pipeline.training.saving.checkpoints import Progress, complete_checkpoints, read_progress

TRAIN_AGAIN = "train the model again"


def check_folder(config: TrainConfig, job: Job) -> None:
    """Raises StrataError if this run can neither begin nor go on in its folder."""
    begun = job.has_begun()
    if not (config.out / CONFIG).exists():
        if config.out.exists() and not begun and (not config.out.is_dir() or any(config.out.iterdir())):
            raise StrataError("is not empty and is no run", where=config.out, fix="choose another --out")
        return
    if not config.resume and not begun:
        raise StrataError(
            "already holds a run", where=config.out, fix="pass --resume to go on with it, or choose another --out"
        )
    before = load_config(config.out)
    for name in ("init_from", "since"):
        now = getattr(config, name)
        if getattr(before, name) != (now.resolve() if isinstance(now, Path) else now):
            raise StrataError(
                f"was begun with another --{name.replace('_', '-')}", where=config.out, fix=f"see its {CONFIG}"
            )
    if before.model != config.model:
        raise StrataError("was trained with another --model", where=config.out, fix=f"see its {CONFIG}")
    for name in ("batch_size", "shuffle_rows", "seed"):  # the order of the rows depends on them
        if getattr(before.loop, name) != getattr(config.loop, name):
            raise StrataError(
                f"was trained with another --loop.{name.replace('_', '-')}", where=config.out, fix=f"see its {CONFIG}"
            )


def kept_in(run: Path, source: Encoding) -> Encoding:
    """The encoding as a run keeps it, with the vocabularies in the run's folder. Writes nothing."""
    learned = source.manifest.learned
    vocabularies = {
        table: vocabulary.model_copy(update={"path": f"vocabularies/{table}.parquet"})
        for table, vocabulary in learned.vocabularies.items()
    }
    kept = learned.model_copy(update={"vocabularies": vocabularies})
    return Encoding(run, source.manifest.model_copy(update={"learned": kept}))


def begin_folder(config: TrainConfig, source: Encoding) -> None:
    """Writes `config.json` and, for a new run, what it keeps of its samples.

    The manifest comes last: a run without it has taken no step. Raises StrataError, before anything is written, if a
    vocabulary of the samples is damaged.
    """
    is_new = source.folder != config.out
    kept = kept_in(config.out, source).manifest
    vocabularies = kept.learned.vocabularies if is_new else {}
    paths = {vocabulary.path: source.vocabulary_path(table) for table, vocabulary in vocabularies.items()}
    config.out.mkdir(parents=True, exist_ok=True)
    config.save()
    for name, path in paths.items():
        with path.open("rb") as file:
            Folder.at(config.out).write(name, partial(shutil.copyfileobj, file))
    if is_new:
        replace_file(config.out / MANIFEST, kept.as_file())


def load_encoding(run: Path) -> Encoding:
    """What the run keeps of its samples. Raises StrataError if it is not there, or not of this version."""
    if not (run / MANIFEST).is_file():
        raise StrataError(f"lacks {MANIFEST}, as runs of earlier versions do", where=run, fix=TRAIN_AGAIN)
    return Encoding(run, load_json(Manifest, Folder.at(run), MANIFEST, what="a manifest", fix=TRAIN_AGAIN))


def read_own_progress(checkpoint: Path, encoding: Encoding) -> Progress:
    """Raises StrataError if the checkpoint is damaged, or was trained on other samples than the run's manifest says."""
    progress = read_progress(checkpoint)
    if progress.manifest != encoding.manifest.digest():
        raise StrataError(
            f"was trained on other samples than {encoding.folder / MANIFEST} says",
            where=checkpoint,
            fix=f"restore that file from a copy, or {TRAIN_AGAIN}",
        )
    return progress


def encoding_to_resume(config: TrainConfig) -> Encoding | None:
    """What a run that goes on was begun with, whatever its store has become since; None for a new run.

    Raises StrataError if the spec is another one now, or files that the run reads are gone.
    """
    if not (config.out / MANIFEST).is_file() and not complete_checkpoints(config.out):
        return None
    kept = load_encoding(config.out)
    spec = load_spec(config.spec)
    if spec.fingerprint() != kept.manifest.spec.fingerprint():
        names = [name for names in changed_parts(kept.manifest.spec, spec).values() for name in names]
        raise StrataError(
            f"was begun with another spec than {config.spec} ({', '.join(names)})",
            where=config.out,
            fix="resume it with its own spec, or start a new run in another --out",
        )
    if not config.samples.is_dir():
        raise StrataError("no such folder", where=config.samples, fix="pass --samples")
    files = [file for file in kept.manifest.files if file.split != "test"]
    gone = sum(_size(config.samples / file.path) != file.bytes for file in files)
    if gone:
        raise StrataError(
            f"the samples in {config.samples} were built again since: {gone} of {len(files)} files of this run are "
            "gone",
            where=config.out,
            fix=f"start a new run with --init-from {config.out}",
        )
    return kept


def _size(path: Path) -> int | None:
    return path.stat().st_size if path.is_file() else None
