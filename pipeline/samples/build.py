"""From raw logs to the sample store: the stages in their order, each over all that it has to do.

A run finds what earlier ones have finished (see work.py), so the same command starts a build, resumes one that was
killed, adds a day and takes in a changed spec.
"""

import sys
from collections import defaultdict
from collections.abc import Callable, Iterable
from datetime import date
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TypeVar

from pipeline.engines import Engine, engine
from pipeline.errors import StrataError
from pipeline.manifest import Manifest
from pipeline.progress import Stages, stages
from pipeline.raw.reading import RawFile, find_files
from pipeline.samples.finish import Outcome, finish
from pipeline.samples.kept.lock import alone, flush_meanwhile
from pipeline.samples.kept.repair import forget_damaged
from pipeline.samples.kept.results import WORK, DamagedResult, Done, Results
from pipeline.samples.plan import PLAN, KeptPlan, Options, Plan, plan, split_days
from pipeline.samples.stages.attribute import UnitDone, attribute, units
from pipeline.samples.stages.deal import deal, deal_tasks
from pipeline.samples.stages.draft import Day, draft_partition
from pipeline.samples.stages.learn import learn, learn_tasks
from pipeline.samples.stages.pieces import Cell, Pieces, pieces_by_cell
from pipeline.samples.stages.profiles import Prepared, ProfileTask, prepare_profile
from pipeline.samples.stages.sum_counters import (
    DailyTask,
    Part,
    Summed,
    WindowTask,
    in_window,
    parts_by_day,
    sum_day,
    sum_windows,
)
from pipeline.samples.stages.write import EncodeTask, write_samples
from pipeline.spec.file import load_spec
from pipeline.spec.spec import Spec
from pipeline.sql.lineage import check_lineage
from pipeline.storage import Folder

Task = TypeVar("Task")
Result = TypeVar("Result")


def build_samples(spec_path: Path, raw: Path | str, out: Path | str, options: Options | None = None) -> Manifest:
    """Builds the samples of the logs in `raw` into the store `out`, or brings an earlier build there up to date.

    Raises StrataError, and leaves `out` as its readers know it, if the spec is wrong, a file is missing or damaged,
    there are too few days to split, or an objective has no usable label.
    """
    options = options or Options()
    spec, files, division = prepare(spec_path, raw, out, options)
    logs, store = Folder.at(raw), Folder.at(out)
    with alone(store), engine(options.engine, division.workers, options.ray_address) as workers:
        store.write(PLAN, KeptPlan(partitions=division.partitions).model_dump_json().encode())
        build = partial(_build, spec, spec_path, files, logs, store, division.partitions, options.quarantine, workers)
        try:
            return build()
        except DamagedResult as error:
            for line in forget_damaged(store, error):
                print(line, file=sys.stderr, flush=True)
            return build()


def _build(
    spec: Spec,
    spec_path: Path,
    files: dict[str, list[RawFile]],
    logs: Folder,
    store: Folder,
    partitions: int,
    quarantine: bool,
    workers: Engine,
) -> Manifest:
    """All stages. Raises DamagedResult if what an earlier build left is damaged."""
    with stages(total=9 if spec.counters else 7) as progress:
        work = _Work(store, workers, progress)
        tasks = deal_tasks(spec, files, store, partitions, quarantine)
        dealt = work.do("dealing rows to partitions", deal, tasks)
        pieces = pieces_by_cell(dealt)
        profiles, of_profiles = _profiles(spec, store, pieces, partitions, work)
        done_units = work.do("attributing events to impressions", attribute, units(store, spec, pieces, of_profiles))
        if not any(done.attributed.receipt.rows for done in done_units):
            read = sum(done.receipt.read for done in dealt if done.task.name == "impression")
            raise StrataError(f"none of the {read} impressions is usable", where=logs, fix="compare it with the spec")
        dailies, windows = _windows(store, spec, done_units, work)
        drafts = list(chain(*work.do("drafting samples", draft_partition, _days(spec, done_units, windows))))
        splits = split_days({day for done in drafts for day in done.receipt.days}, spec.split, logs)
        train = {day for day, split in splits.items() if split == "train"}
        outcome = Outcome(spec, spec_path, logs, store, splits, dealt, profiles, done_units, dailies, windows, drafts)
        outcome.check()
        learned = work.do("learning vocabularies and normalisers", learn, learn_tasks(store, spec, drafts, train))
        # Not the tasks of learning themselves, each of which names all drafts.
        parts = {done.task.name: (done.task.results, done.receipt) for done in learned}
        encoding = [
            EncodeTask(store, spec, draft, parts, {d: splits[d] for d in draft.receipt.days}) for draft in drafts
        ]
        encoded = work.do("encoding", write_samples, encoding)
        progress.begin("finishing")
        return finish(outcome, learned, encoded)


def prepare(
    spec_path: Path, raw: Path | str, out: Path | str, options: Options
) -> tuple[Spec, dict[str, list[RawFile]], Plan]:
    """The spec, checked; the raw files of every table; and how the work is divided. Reads no row."""
    spec = load_spec(spec_path)
    check_lineage(spec, spec_path)
    store = Folder.at(out)
    if store.exists() and not store.exists(WORK) and store.files():
        raise StrataError("already exists and is not empty", where=out, fix="choose another --out, or delete it")
    files = {name: find_files(name, table, Folder.at(raw)) for name, table in spec.logs.tables().items()}
    every = [file for of_table in files.values() for file in of_table]
    return spec, files, plan(options, spec.logs, files["impression"], every, store)


class _Work:
    """Gives the tasks of one stage after the other to the engine."""

    def __init__(self, store: Folder, workers: Engine, progress: Stages) -> None:
        self._store, self._engine, self._progress = store, workers, progress

    def do(self, stage: str, function: Callable[[Task], Result], tasks: Iterable[Task]) -> list[Result]:
        self._progress.begin(stage)
        flush_meanwhile(self._store)
        return list(self._engine.map(function, tasks))


def _profiles(
    spec: Spec, store: Folder, pieces: dict[str, dict[Cell, Pieces]], partitions: int, work: _Work
) -> tuple[list[Done[ProfileTask, Prepared]], dict[str, dict[int, Results]]]:
    """The profiles; those of users by partition, others as a whole, which every partition then reads."""
    tasks: dict[str, dict[int, ProfileTask]] = {}
    for name, profile in spec.logs.profiles.items():
        of_users = profile.key == spec.logs.impression.user
        of_partition = {p: pieces.get(name, {}).get((p, None), ()) for p in (range(partitions) if of_users else [0])}
        prepared = {p: ProfileTask(store, spec, name, of_part) for p, of_part in of_partition.items()}
        tasks[name] = {p: prepared[p if of_users else 0] for p in range(partitions)}
    different = {task.results.folder.path: task for of_name in tasks.values() for task in of_name.values()}
    done = work.do("preparing profiles", prepare_profile, different.values())
    return done, {name: {p: task.results for p, task in of_name.items()} for name, of_name in tasks.items()}


def _windows(
    store: Folder, spec: Spec, done_units: list[UnitDone], work: _Work
) -> tuple[list[Done[DailyTask, Summed]], list[Done[WindowTask, Summed]]]:
    """Counters that do not go by user: their sums by day, and over the windows before every day."""
    counters = spec.counters
    if not counters:
        return [], []
    shared = [by for by, key in counters.by.items() if key != spec.logs.impression.user]
    by_day = {by: parts_by_day(done_units, by) for by in shared}
    sums = [DailyTask(store, spec, by, day, tuple(parts)) for by in shared for day, parts in by_day[by].items()]
    dailies = work.do("counting over earlier days", sum_day, sums)
    summed: dict[str, dict[date, list[Part]]] = defaultdict(dict)
    for done in dailies:
        summed[done.task.by][done.task.day] = [Part(0, done.task.results, "counts", done.receipt.digest)]
    days = sorted({done.attributed.task.day for done in done_units})
    tasks = [
        WindowTask(store, spec, by, d, in_window(summed[by], d, max(counters.days))) for by in shared for d in days
    ]
    return dailies, list(work.do("counting over windows", sum_windows, (task for task in tasks if task.parts)))


def _days(spec: Spec, done_units: list[UnitDone], windows: list[Done[WindowTask, Summed]]) -> list[list[Day]]:
    """By partition its days, each with the counters before it."""
    user = spec.logs.impression.user
    keys = spec.counters.by.items() if spec.counters else []
    longest = max(spec.counters.days) if spec.counters else 0
    found = {(done.task.by, done.task.day): done for done in windows}
    of_partition: dict[int, list[UnitDone]] = defaultdict(list)
    for done in done_units:
        of_partition[done.attributed.task.partition].append(done)
    days: list[list[Day]] = []
    for of_one in of_partition.values():
        own = {by: parts_by_day(of_one, by) for by, key in keys if key == user}
        days.append([])
        for done in of_one:
            day = done.attributed.task.day
            by_user = {by: in_window(parts, day, longest) for by, parts in own.items()}
            days[-1].append(Day(done, by_user, {by: found.get((by, day)) for by, key in keys if key != user}))
    return days
