"""A training run: prepares the folder, shards the model, and steps until the epochs or the patience are over."""

import sys
from datetime import date, timedelta

import torch
import torch.distributed as dist

from models.losses import Objectives
from models.ranker import Ranker
from pipeline.batches.mapping import Encoding
from pipeline.errors import StrataError
from pipeline.manifest import Manifest, load_manifest
from pipeline.spec.file import load_spec
from pipeline.spec.parts import changed_parts, samples_fingerprint
from pipeline.training.config import TrainConfig
from pipeline.training.interrupts import Interrupts
from pipeline.training.loop import Loop
from pipeline.training.processes import Job, Rank, process_group
from pipeline.training.run_folder import begin_folder, check_folder, encoding_to_resume, kept_in, read_own_progress
from pipeline.training.saving.checkpoints import Progress, newest_sound, sweep
from pipeline.training.saving.saver import Saver
from pipeline.training.saving.tensor_files import load_state
from pipeline.training.stepping.optimisers import Optimisers
from pipeline.training.tables.plan import TablePlan, plan_together
from pipeline.training.tables.sharding import shard
from pipeline.training.warm_start import Predecessor, find_predecessor, warm_start
from pipeline.training.watching.record import Record


def train(config: TrainConfig) -> Progress:
    """Runs to the end and returns where it stands; every rank calls it.

    Raises StrataError if the spec, the samples or the folder do not fit. On Ctrl-C or SIGTERM it saves a checkpoint
    and raises SystemExit with status 128 + the signal.
    """
    job = Job(config.out)
    check_folder(config, job)
    source = encoding_to_resume(config) or _check_samples(config)
    with (
        process_group(config.device) as rank,
        Interrupts() as interrupts,
        Saver(config.out, rank, config.checkpoints.keep) as saver,
    ):
        source = _from_first_rank(source)
        start, damaged = newest_sound(config.out, rank)
        predecessor = None
        if config.init_from and not start:
            predecessor = find_predecessor(config.init_from, source.manifest.spec, config.model, rank)
        if source.folder != config.out:  # a new run
            source = _training_days(source, config, predecessor)
        own = kept_in(config.out, source)
        manifest = own.manifest
        ranker, plan = _plan(config, manifest, rank)
        model = shard(ranker, plan, config.tables, rank, config.loop.seed)
        optimisers = Optimisers(model, config.dense, config.tables)
        progress = read_own_progress(start, own) if start else Progress(manifest=manifest.digest())
        started = warm_start(predecessor, source, model.state_dict(), optimisers) if predecessor else ""
        if start:
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
            begin_folder(config, source)
            sweep(config.out, damaged)
        with Record(config.out if rank.first else None, progress.step, loop.total_steps) as record:
            for path, reason in damaged.items():
                record.say(f"{path} is damaged ({reason}), and is now called {path.name}.damaged")
            if start:
                record.say(f"resuming from {start}")
            if predecessor:
                record.say(started)
            record.say(f"training on {manifest.rows('train'):,} rows of {manifest.period('train')}")
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
    manifest = _check_samples(config).manifest
    with process_group(config.device) as rank:
        return _plan(config, manifest, rank)[1].text


def _plan(config: TrainConfig, manifest: Manifest, rank: Rank) -> tuple[Ranker, TablePlan]:
    """The model, with tables that take no memory yet, and the plan for them."""
    torch.manual_seed(config.loop.seed)
    ranker = Ranker(manifest.spec, manifest.learned.table_rows, config.model, torch.device("meta"))
    return ranker, plan_together(ranker, manifest.spec, config.samples, config.tables, config.loop.batch_size, rank)


def _check_samples(config: TrainConfig) -> Encoding:
    """The encoding of the samples, with the run's own spec.

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
    return Encoding(config.samples, manifest.model_copy(update={"spec": spec}))


def _from_first_rank(source: Encoding) -> Encoding:
    """The first rank's, for all: the store may have been brought up to date while the ranks read its manifest."""
    shared = [source]
    dist.broadcast_object_list(shared)
    return shared[0]


def _training_days(source: Encoding, config: TrainConfig, predecessor: Predecessor | None) -> Encoding:
    """The manifest without the training days that are not wanted, and with those of the predecessors.

    Raises StrataError if no training day is left.
    """
    since = config.since.isoformat() if config.since else ""
    if predecessor and not since:
        last = date.fromisoformat(predecessor.encoding.manifest.days("train")[-1])
        since = (last + timedelta(days=1)).isoformat()
    wanted = source.manifest.trained_since(since)
    if since and not wanted.rows("train"):
        raise StrataError(
            f"has no training rows of {since} or later",
            where=config.samples,
            fix="build samples of more days, or pass an earlier --since",
        )
    if predecessor:
        earlier = predecessor.encoding.manifest
        before = tuple(sorted({*earlier.trained_before, *earlier.days("train")}))
        wanted = wanted.model_copy(update={"trained_before": before})
    return Encoding(source.folder, wanted)
