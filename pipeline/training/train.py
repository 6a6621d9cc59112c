"""A training run: prepares the folder, shards the model, and steps until the epochs or the patience are over."""

import sys
from datetime import date, timedelta
from pathlib import Path

import torch

from models.losses import Objectives
from models.ranker import Ranker
from pipeline.errors import StrataError
from pipeline.manifest import Manifest, load_manifest
from pipeline.spec.file import load_spec
from pipeline.spec.parts import changed_parts, samples_fingerprint
from pipeline.training.config import CONFIG, TrainConfig, load_config
from pipeline.training.interrupts import Interrupts
from pipeline.training.loop import Loop
from pipeline.training.processes import Job, Rank, process_group
from pipeline.training.saving.checkpoints import Progress, newest_sound, read_progress, sweep
from pipeline.training.saving.saver import Saver
from pipeline.training.saving.tensor_files import load_state
from pipeline.training.stepping.optimisers import Optimisers
from pipeline.training.tables.plan import TablePlan, plan_together
from pipeline.training.tables.sharding import shard
from pipeline.training.warm_start import Ancestor, design, find_ancestor, inherit, keep_vocabularies
from pipeline.training.watching.record import Record


def train(config: TrainConfig) -> Progress:
    """Runs to the end and returns where it stands; every rank calls it.

    Raises StrataError if the spec, the samples or the folder do not fit. On Ctrl-C or SIGTERM it saves a checkpoint
    and raises SystemExit with status 128 + the signal.
    """
    manifest = _check_samples(config)
    job = Job(config.out)
    _check_run(config, job)
    with (
        process_group(config.device) as rank,
        Interrupts() as interrupts,
        Saver(config.out, rank, config.checkpoints.keep) as saver,
    ):
        start, damaged = newest_sound(config.out, rank)
        ancestor = None
        if config.init_from and not start:
            ancestor = find_ancestor(config.init_from, manifest.spec, config.model, rank)
        manifest = _training_days(manifest, config, start, ancestor)
        ranker, plan = _plan(config, manifest, rank)
        model = shard(ranker, plan, config.tables, rank, config.loop.seed)
        optimisers = Optimisers(model, config.dense, config.tables)
        days = manifest.days("train") or [""]
        fresh = Progress(
            encoding=manifest.encoding(),
            rows=manifest.content("train"),
            design=design(manifest.spec),
            first_day=days[0],
            last_day=days[-1],
        )
        progress = read_progress(start) if start else fresh
        inherited = inherit(ancestor, config.samples, manifest, model.state_dict(), optimisers) if ancestor else ""
        if start:
            if (progress.encoding, progress.rows) != (fresh.encoding, fresh.rows):
                raise StrataError("was trained on other samples", where=config.out, fix="choose another --out")
            load_state(start, {"model": model.state_dict()})
            optimisers.load(start)
        objectives = Objectives(manifest.spec, ranker.layout)
        loop = Loop(
            config=config,
            manifest=manifest,
            rank=rank,
            model=model,
            objectives=objectives,
            optimisers=optimisers,
            progress=progress,
            saver=saver,
        )
        if rank.first:  # after all checks above: a failed start leaves no folder behind
            job.begin()
            config.out.mkdir(parents=True, exist_ok=True)
            config.save()
            keep_vocabularies(config.samples, manifest, config.out)
            sweep(config.out, damaged)
        with Record(config.out if rank.first else None, progress.step, loop.total_steps) as record:
            for path, reason in damaged.items():
                record.say(f"{path} is damaged ({reason}), and is now called {path.name}.damaged")
            if start:
                record.say(f"resuming from {start}")
            if ancestor:
                record.say(inherited)
            precision = str(loop.precision).removeprefix("torch.")
            more = "one process; `torchrun --nproc-per-node N` uses more"
            processes = f"{rank.ranks} processes" if rank.ranks > 1 else more
            record.say(f"{processes} (on {rank.device.type}, the dense network in {precision})")
            loop.run(record, interrupts)
        if loop.interrupted_by:
            sys.exit(128 + loop.interrupted_by)
    return loop.progress


def plan_tables(config: TrainConfig) -> str:
    """Where the tables would go, and why; every rank calls it, and nothing is written.

    Raises StrataError if the spec and the samples do not fit together, or the model does not fit into memory.
    """
    manifest = _check_samples(config)
    with process_group(config.device) as rank:
        return _plan(config, manifest, rank)[1].text


def _plan(config: TrainConfig, manifest: Manifest, rank: Rank) -> tuple[Ranker, TablePlan]:
    """The model, with tables that take no memory yet, and the plan for them."""
    torch.manual_seed(config.loop.seed)
    ranker = Ranker(manifest.spec, manifest.learned.table_rows, config.model, torch.device("meta"))
    return ranker, plan_together(ranker, manifest.spec, config.samples, config.tables, config.loop.batch_size, rank)


def _check_samples(config: TrainConfig) -> Manifest:
    """The manifest of the samples, with the run's own spec.

    Raises StrataError if that spec makes other samples of the logs.
    """
    spec = load_spec(config.spec)
    manifest = load_manifest(config.samples)
    if samples_fingerprint(spec) != manifest.fingerprint:
        parts = changed_parts(manifest.spec, spec)
        differ = [key for folder, keys in parts.items() if folder for key in keys]
        raise StrataError(
            f"built with another version of the spec than {config.spec} ({', '.join(differ)})",
            where=config.samples,
            fix="build the samples again",
        )
    return manifest.model_copy(update={"spec": spec})


def _check_run(config: TrainConfig, job: Job) -> None:
    """Refuses a folder in which this run can neither begin nor go on."""
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


def _training_days(manifest: Manifest, config: TrainConfig, start: Path | None, ancestor: Ancestor | None) -> Manifest:
    """The manifest without the training days that are not wanted. Raises StrataError if none is left."""
    since = config.since.isoformat() if config.since else ""
    if start:
        since = read_progress(start).first_day
    elif ancestor and not since:
        seen = date.fromisoformat(read_progress(ancestor.checkpoint).last_day)
        since = (seen + timedelta(days=1)).isoformat()
    wanted = manifest.trained_on(since)
    if since and not wanted.rows("train"):
        raise StrataError(
            f"has no training rows of {since} or later",
            where=config.samples,
            fix="build samples of more days, or pass an earlier --since",
        )
    return wanted
