#!/usr/bin/env python3
"""Measures sample building: speed, memory, and how long DuckDB and pandas take for the same labels and counters.

.venv/bin/python scripts/bench_samples.py --growth --work ../bench_samples --json bench_samples.json

Needs the extra `bench`, Linux, and for 50 million impressions (`--growth`) some 10 GB of disk. Each run is a new
process on the same cores. It is timed from start to end, with the raw logs in the page cache. In each round everything
runs once, so that a slow minute of the machine affects all of them. pandas is slow and runs in the first round only.
The table has the median and, in brackets, the least and the greatest. For the comparison Strata builds a spec with
only the features that the peers compute. The peers write one file, without the days, the order and the checksums of a
store.
"""

import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Annotated, Literal

import psutil
import tyro

from pipeline.atomic import replace_file
from pipeline.commands.command_line import run_script
from pipeline.manifest import load_manifest
from pipeline.spec.file import load_spec

SCRIPTS = Path(__file__).parent
SPEC = SCRIPTS.parent / "feature_specs" / "short_video.yaml"
SAMPLING_S = 0.3  # one look at 3 GB takes 0.03 s
GROWTH = 5


@dataclass(frozen=True)
class Size:
    """What to simulate. All else is as the simulator has it by default."""

    impressions: int = 10_000_000
    """Impressions on both pages, each with its events."""
    users: int = 100_000
    """Users, however many impressions there are."""
    videos: int = 20_000
    """Videos on the first day."""


@dataclass(frozen=True)
class Run:
    """Wall time of a process in s, and the greatest memory of it and its children at one moment in bytes."""

    seconds: float
    peak: int


QUICK = Size(impressions=200_000, users=2_000, videos=400)


def main(
    size: Annotated[Size, tyro.conf.arg(name="")],
    peer_impressions: int | None = None,
    repeats: int = 3,
    cores: int = 2,
    growth: bool = False,
    quick: bool = False,
    work: Path | None = None,
    json_file: Annotated[Path | None, tyro.conf.arg(name="json")] = None,
) -> None:
    """Builds samples of the short-video spec, measures, and prints one table.

    Args:
        size: The logs.
        peer_impressions: Impressions of the logs for the comparison with the peers. By default the same logs.
        repeats: Rounds.
        cores: Cores for every process.
        growth: Also build the samples of 5 times as many impressions. This is slow, and takes 5 times the disk.
        quick: 200,000 impressions, one round: less than a minute. Do not quote its figures.
        work: A folder for logs and results. Logs of an earlier run are used again. By default a temporary one.
        json_file: Where to write the same figures as JSON.
    """
    if quick:
        size, repeats = QUICK, 1
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])  # inherited by all processes started from here
    with tempfile.TemporaryDirectory() as temporary:
        folder = work or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        smaller = Size(peer_impressions or size.impressions, size.users, size.videos)
        runs, rows, store_bytes = rounds(folder, size, smaller, repeats)
        if growth:
            larger = Size(GROWTH * size.impressions, size.users, size.videos)
            runs["growth"].append(build(folder, SPEC, simulated(folder, larger)))
    figures = figures_of(runs, rows)
    print_table(runs, figures, size, smaller, store_bytes)
    if json_file:
        replace_file(json_file, json.dumps(figures, indent=1).encode())


def rounds(folder: Path, size: Size, smaller: Size, repeats: int) -> tuple[defaultdict[str, list[Run]], int, int]:
    """The runs by what was measured, the samples of a build, and the bytes of its store."""
    raw, raw_of_peers = simulated(folder, size), simulated(folder, smaller)
    labels_only = folder / "labels_only.yaml"
    labels_only.write_text(spec_of_peers())
    runs = defaultdict(list)
    rows = store_bytes = 0
    for number in range(repeats):
        runs["strata"].append(build(folder, SPEC, raw))
        rows = sum(file.rows for file in load_manifest(folder / "samples").files)
        store_bytes = bytes_of(folder / "samples")
        runs["floor"].append(measured("sample_peers/floor.py", raw=raw, out=folder / "floor.bin", size=store_bytes))
        runs["labels"].append(build(folder, labels_only, raw_of_peers))
        for peer in ("duckdb",) if number else ("duckdb", "pandas"):
            out = folder / f"{peer}.parquet"
            runs[peer].append(measured(f"sample_peers/with_{peer}.py", raw=raw_of_peers, out=out))
            # No ratio between programs that do not do the same.
            measured("sample_peers/compare.py", samples=folder / "samples", peer=out)
    return runs, rows, store_bytes


def simulated(folder: Path, size: Size) -> Path:
    """The logs of this size, from an earlier run if they are there."""
    raw = folder / f"raw-{size.impressions}-{size.users}-{size.videos}"
    if not raw.exists():
        measured("simulate_logs.py", spec=SPEC, out=raw, **asdict(size))
    return raw


def spec_of_peers() -> str:
    """The spec with only what the peers compute: labels, counters as features, and one id."""
    spec = load_spec(SPEC).model_dump(mode="json", exclude_unset=True)
    counters = load_spec(SPEC).counters
    assert counters
    spec["columns"] = {}
    spec["tables"] = {"user": spec["tables"]["user"]}
    spec["features"] = {"user_id": spec["features"]["user_id"]}
    spec["features"] |= {column: {"kind": "dense", "normalise": []} for column in counters.columns()}
    for objective in spec["objectives"].values():
        objective.pop("baseline_by", None)
    return json.dumps(spec, indent=1)  # JSON is YAML


def build(folder: Path, spec: Path, raw: Path) -> Run:
    """Builds `samples` in the folder from nothing."""
    samples = folder / "samples"
    shutil.rmtree(samples, ignore_errors=True)
    return measured("build_samples.py", spec=spec, raw=raw, out=samples)


def bytes_of(store: Path) -> int:
    """The size of a store's files, without the hidden ones that a build leaves for the next."""
    files = [path for path in store.rglob("*") if path.is_file()]
    return sum(path.stat().st_size for path in files if not path.relative_to(store).parts[0].startswith("."))


def measured(script: str, **options: object) -> Run:
    """Runs a script below this folder. Its failure ends the benchmark."""
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    start, ended = time.perf_counter(), threading.Event()
    process = subprocess.Popen([sys.executable, SCRIPTS / script, *words], stdout=subprocess.DEVNULL)
    with ThreadPoolExecutor(1) as watcher:
        watched = watcher.submit(peak_memory, process.pid, ended)
        try:
            status = process.wait()
            seconds = time.perf_counter() - start
        finally:
            ended.set()
        peak = watched.result()
    if status:
        sys.exit(status)
    print(f"{script}: {seconds:.1f} s, {peak / 1e9:.2f} GB", file=sys.stderr)
    return Run(seconds, peak)


def peak_memory(pid: int, ended: threading.Event) -> int:
    """The greatest sum, at one moment, of the memory of a process and all below it, in bytes."""
    peak = 0
    while not ended.wait(SAMPLING_S):
        total = 0
        with suppress(psutil.NoSuchProcess):  # ended a moment ago
            process = psutil.Process(pid)
            for each in (process, *process.children(recursive=True)):
                with suppress(psutil.NoSuchProcess):  # a child that ended: it holds nothing any more
                    total += getattr(each.memory_full_info(), memory_kind())
        peak = max(peak, total)
    return peak


def memory_kind() -> Literal["pss", "rss"]:
    """PSS, which counts what processes share once, where the kernel tells it; otherwise RSS."""
    return "pss" if hasattr(psutil.Process().memory_full_info(), "pss") else "rss"


def figures_of(runs: dict[str, list[Run]], rows: int) -> dict[str, float]:
    seconds = {what: median(run.seconds for run in runs) for what, runs in runs.items()}
    peak = {what: median(run.peak for run in runs) for what, runs in runs.items()}
    figures = {
        "impressions_per_s": rows / seconds["strata"],
        "ratio_to_floor": seconds["strata"] / seconds["floor"],
        "speedup_duckdb": seconds["duckdb"] / seconds["labels"],
        "speedup_pandas": seconds["pandas"] / seconds["labels"],
        "peak_gb": peak["strata"] / 1e9,
    }
    if "growth" in runs:
        figures["peak_growth_5x"] = peak["growth"] / peak["strata"]
    return figures


def print_table(
    runs: dict[str, list[Run]], figures: dict[str, float], size: Size, smaller: Size, store_bytes: int
) -> None:
    versions = {peer: importlib.metadata.version(peer) for peer in ("duckdb", "pandas")}
    lines = {
        "strata": ("samples of short_video", f"{figures['impressions_per_s']:,.0f} impressions/s"),
        "floor": (
            f"floor: read the raw files, write {store_bytes / 1e9:.2f} GB",
            f"samples take {figures['ratio_to_floor']:.1f} times as long",
        ),
        "labels": (f"labels and counters of {smaller.impressions:,}: Strata", ""),
        "duckdb": (f"the same in DuckDB {versions['duckdb']}", f"{figures['speedup_duckdb']:.2f} times Strata's time"),
        "pandas": (f"the same in pandas {versions['pandas']}", f"{figures['speedup_pandas']:.2f} times Strata's time"),
    }
    if "growth" in runs:
        growth = f"{figures['peak_growth_5x']:.2f} times the peak"
        lines["growth"] = (f"samples of {GROWTH * size.impressions:,} impressions", growth)
    cores = len(os.sched_getaffinity(0))
    print(
        f"| {size.impressions:,} impressions, {cores} cores | time, s | peak memory ({memory_kind().upper()}), GB | |"
    )
    print("| --- | --- | --- | --- |")
    for what, (name, result) in lines.items():
        seconds = spread([run.seconds for run in runs[what]], 1)
        print(f"| {name} | {seconds} | {spread([run.peak / 1e9 for run in runs[what]], 2)} | {result} |")


def spread(values: list[float], digits: int) -> str:
    """Median and, of several values, the least and the greatest."""
    middle = f"{median(values):.{digits}f}"
    return middle if len(values) == 1 else f"{middle} ({min(values):.{digits}f}–{max(values):.{digits}f})"


if __name__ == "__main__":
    run_script(main, "--growth --work ../bench_samples --json bench_samples.json")
