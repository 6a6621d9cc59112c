"""From raw logs to the sample store: the stages in their order, each over all that it has to do.

A build finds what earlier ones have finished (`kept/results.py`). So the same command starts a build, resumes one that
was killed, adds a day and takes in a changed spec.
"""

import sys
from collections import defaultdict
from collections.abc import Callable, Iterable
from datetime import date
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

from pipeline.engines import Engine, engine
from pipeline.errors import StrataError
from pipeline.manifest import Manifest
from pipeline.progress import Stages, stages
from pipeline.raw.reading import RawFile, find_files
from pipeline.samples.division import DIVISION, Division, KeptDivision, Options, divide
from pipeline.samples.finish import BuildResults, finish
from pipeline.samples.kept.lock import flush_meanwhile, locked
from pipeline.samples.kept.repair import forget_damaged
from pipeline.samples.kept.results import WORK, DamagedResult, Done
from pipeline.samples.split import split_days
from pipeline.samples.stages.attribute import attribute
from pipeline.samples.stages.deal import deal, deal_tasks
from pipeline.samples.stages.draft import Day, draft_partition
from pipeline.samples.stages.learn import learn, learn_tasks
from pipeline.samples.stages.pieces import Cell, Pieces, pieces_by_cell
from pipeline.samples.stages.profiles import ProfileTask, prepare_profile
from pipeline.samples.stages.sum_counters import (
    CountFile,
    SumDayTask,
    Summed,
    SumWindowsTask,
    files_by_day,
    in_window,
    sum_day,
    sum_windows,
)
from pipeline.samples.stages.units import UnitDone, units
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
    store = Folder.at(out)
    with locked(store), engine(options.engine, division.workers, options.ray_address) as processes:
        store.write(DIVISION, KeptDivision(partitions=division.partitions).model_dump_json().encode())
        build = partial(
            _build,
            spec=spec,
            spec_path=spec_path,
            files=files,
            raw=Folder.at(raw),
            store=store,
            partitions=division.partitions,
            quarantine=options.quarantine,
            processes=processes,
        )
        try:
            return build()
        except DamagedResult as error:
            for line in forget_damaged(store, error):
                print(line, file=sys.stderr, flush=True)
            return build()


def _build(
    *,
    spec: Spec,
    spec_path: Path,
    files: dict[str, list[RawFile]],
    raw: Folder,
    store: Folder,
    partitions: int,
    quarantine: bool,
    processes: Engine,
) -> Manifest:
    """All stages in their order. Raises DamagedResult if what an earlier build left is damaged."""
    with stages(total=9 if spec.counters else 7) as progress:
        run = _Runner(store, processes, progress).run
        dealt = run("dealing rows to partitions", deal, deal_tasks(spec, files, store, partitions, quarantine))
        pieces = pieces_by_cell(dealt)
        of_partition = _profile_tasks(spec, store, pieces, partitions)
        different = {task.results.folder.path: task for tasks in of_partition.values() for task in tasks.values()}
        profiles = run("preparing profiles", prepare_profile, different.values())
        results = {name: {p: task.results for p, task in tasks.items()} for name, tasks in of_partition.items()}
        attributed = run("attributing events to impressions", attribute, units(store, spec, pieces, results))
        if not any(done.attributed.receipt.rows for done in attributed):
            read = sum(done.receipt.read for done in dealt if done.task.name == "impression")
            raise StrataError(f"none of the {read} impressions is usable", where=raw, fix="compare it with the spec")
        days_summed, windows = _sum_counters(store, spec, attributed, run)
        days = _days_of_partitions(spec, attributed, windows)
        drafts = list(chain(*run("drafting samples", draft_partition, days)))
        splits = split_days({day for done in drafts for day in done.receipt.days}, spec.split, raw)
        train = {day for day, split in splits.items() if split == "train"}
        built = BuildResults(
            spec=spec,
            spec_path=spec_path,
            raw=raw,
            store=store,
            splits=splits,
            dealt=dealt,
            profiles=profiles,
            units=attributed,
            days_summed=days_summed,
            windows=windows,
            drafts=drafts,
        )
        built.check()
        learned = run("learning vocabularies and normalisers", learn, learn_tasks(store, spec, drafts, train))
        # Not the tasks of learning themselves: each of them names all drafts.
        parts = {done.task.name: (done.task.results, done.receipt) for done in learned}
        to_write = [
            EncodeTask(store, spec, draft, parts, {day: splits[day] for day in draft.receipt.days}) for draft in drafts
        ]
        encoded = run("encoding", write_samples, to_write)
        progress.begin("finishing")
        return finish(built, learned, encoded)


def prepare(
    spec_path: Path, raw: Path | str, out: Path | str, options: Options
) -> tuple[Spec, dict[str, list[RawFile]], Division]:
    """The spec, checked; the raw files of every table; and how the work is divided. Reads no row."""
    spec = load_spec(spec_path)
    check_lineage(spec, spec_path)
    store = Folder.at(out)
    if store.exists() and not store.exists(WORK) and store.files():
        raise StrataError("already exists and is not empty", where=out, fix="choose another --out, or delete it")
    files = {name: find_files(name, table, Folder.at(raw)) for name, table in spec.logs.tables().items()}
    every = [file for of_table in files.values() for file in of_table]
    return spec, files, divide(options, spec.logs, files["impression"], every, store)


class _Runner:
    """Gives the tasks of one stage after the other to the engine."""

    def __init__(self, store: Folder, processes: Engine, progress: Stages) -> None:
        self._store, self._processes, self._progress = store, processes, progress

    def run(self, stage: str, function: Callable[[Task], Result], tasks: Iterable[Task]) -> list[Result]:
        self._progress.begin(stage)
        flush_meanwhile(self._store)
        return list(self._processes.map(function, tasks))


def _profile_tasks(
    spec: Spec, store: Folder, pieces: dict[str, dict[Cell, Pieces]], partitions: int
) -> dict[str, dict[int, ProfileTask]]:
    """By profile and partition. Every partition reads a profile of users in part, and another as a whole."""
    tasks: dict[str, dict[int, ProfileTask]] = {}
    for name, profile in spec.logs.profiles.items():
        of_users = profile.key == spec.logs.impression.user
        of_partition = {p: pieces.get(name, {}).get((p, None), ()) for p in (range(partitions) if of_users else [0])}
        prepared = {p: ProfileTask(store, spec, name, of_part) for p, of_part in of_partition.items()}
        tasks[name] = {p: prepared[p if of_users else 0] for p in range(partitions)}
    return tasks


def _sum_counters(
    store: Folder, spec: Spec, attributed: list[UnitDone], run: Callable[..., list[Any]]
) -> tuple[list[Done[SumDayTask, Summed]], list[Done[SumWindowsTask, Summed]]]:
    """Counters that do not go by user: their sums by day, and over the windows before every day."""
    counters = spec.counters
    if not counters:
        return [], []
    shared = [by for by, key in counters.by.items() if key != spec.logs.impression.user]
    files = {by: files_by_day(attributed, by) for by in shared}
    day_tasks = [SumDayTask(store, spec, by, day, tuple(of_day)) for by in shared for day, of_day in files[by].items()]
    days_summed: list[Done[SumDayTask, Summed]] = run("counting over earlier days", sum_day, day_tasks)
    sums: dict[str, dict[date, list[CountFile]]] = defaultdict(dict)
    for done in days_summed:
        sums[done.task.by][done.task.day] = [CountFile(0, done.task.results, "counts", done.receipt.digest)]
    window_tasks = [
        SumWindowsTask(store, spec, by, day, in_window(sums[by], day, max(counters.days)))
        for by in shared
        for day in sorted({done.attributed.task.day for done in attributed})
    ]
    return days_summed, run("counting over windows", sum_windows, [task for task in window_tasks if task.files])


def _days_of_partitions(
    spec: Spec, attributed: list[UnitDone], windows: list[Done[SumWindowsTask, Summed]]
) -> list[list[Day]]:
    """By partition its days, each with the counters before it."""
    user = spec.logs.impression.user
    keys = spec.counters.by.items() if spec.counters else []
    longest = max(spec.counters.days) if spec.counters else 0
    found = {(done.task.by, done.task.day): done for done in windows}
    of_partition: dict[int, list[UnitDone]] = defaultdict(list)
    for done in attributed:
        of_partition[done.attributed.task.partition].append(done)
    days: list[list[Day]] = []
    for of_one in of_partition.values():
        own = {by: files_by_day(of_one, by) for by, key in keys if key == user}
        days.append([])
        for done in of_one:
            day = done.attributed.task.day
            by_user = {by: in_window(files, day, longest) for by, files in own.items()}
            days[-1].append(Day(done, by_user, {by: found.get((by, day)) for by, key in keys if key != user}))
    return days
