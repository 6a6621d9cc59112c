#!/usr/bin/env python3
"""Trains a PLE on KuaiRand with several seeds, and compares its test AUC with gradient-boosted trees.

.venv/bin/python scripts/bench_kuairand.py --raw ../shared/data/kuairand_pure
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import mean, stdev
from typing import Annotated, Any

import tyro

from pipeline.atomic import replace_file
from pipeline.commands.command_line import run_script
from pipeline.training.stepping.precision import DensePrecision

SPEC = Path(__file__).parent.parent / "feature_specs" / "kuairand.yaml"
SETTINGS = "--loop.batch-size 512 --loop.epochs 4 --schedule.decay none --model.expert 32 --model.dropout 0.1"
# One LightGBM model per objective over ids, profiles and trailing daily counters: trained to 2022-05-04, validated on
# 05-05, measured on 05-06, duplicates dropped.
TREES = {"click": 0.7324, "long_view": 0.7350, "like": 0.8133, "profile_enter": 0.7258}


def main(
    raw: Path,
    seeds: int = 3,
    processes: int = 2,
    precision: DensePrecision = "auto",
    json_file: Annotated[Path | None, tyro.conf.arg(name="json")] = None,
) -> None:
    """Builds KuaiRand's samples, trains and evaluates once per seed, and prints mean and spread of the test figures.

    Args:
        raw: The folder with KuaiRand-Pure's CSV files.
        seeds: Runs, with the seeds 0, 1, ...
        processes: Ranks of each run.
        precision: Precision of the dense network, as --dense.precision of scripts/train.py.
        json_file: Where to write the same figures as JSON.
    """
    with tempfile.TemporaryDirectory() as folder:
        samples = Path(folder) / "samples"
        run("build_samples.py", f"--spec {SPEC} --raw {raw} --out {samples}")
        runs = [measured(samples, Path(folder), seed, processes, precision) for seed in range(seeds)]
    figures = {}
    print("| objective | trees, AUC | PLE, AUC: mean (spread) | positives |\n| --- | --- | --- | --- |")
    for name, trees in TREES.items():
        values = [objectives[name]["auc"] for objectives in runs]
        figures[f"auc_{name}"] = mean(values)
        print(f"| {name} | {trees:.4f} | {spread(values, 4)} | {runs[0][name]['positives']} |")
    print("\n| play time | training median by duration | PLE: mean (spread) |\n| --- | --- | --- |")
    for metric, label, digits in (("mae", "MAE, s", 2), ("xauc", "XAUC", 4)):
        values = [objectives["play_time"][metric] for objectives in runs]
        figures[f"{metric}_play_time"] = mean(values)
        print(f"| {label} | {runs[0]['play_time'][f'baseline_{metric}']:.{digits}f} | {spread(values, digits)} |")
    if json_file:
        replace_file(json_file, json.dumps(figures, indent=1).encode())


def measured(samples: Path, folder: Path, seed: int, processes: int, precision: str) -> dict[str, Any]:
    """The objectives' test metrics of a run trained from this seed."""
    trained, report = folder / f"run-{seed}", folder / f"report-{seed}"
    launcher = f"-m torch.distributed.run --nproc-per-node {processes}"
    options = f"--spec {SPEC} --samples {samples} --out {trained} --loop.seed {seed} {SETTINGS}"
    options += f" --dense.precision {precision}"
    run("train.py", options, launcher)
    run("evaluate.py", f"--run {trained} --samples {samples} --split test --out {report}")
    objectives: dict[str, Any] = json.loads((report / "metrics.json").read_text())["objectives"]
    return objectives


def run(script: str, options: str, launcher: str = "") -> None:
    """Runs a script of this folder. Its failure ends the benchmark."""
    words = [sys.executable, *launcher.split(), str(Path(__file__).with_name(script)), *options.split()]
    finished = subprocess.run(words, env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=subprocess.DEVNULL)
    if finished.returncode:
        sys.exit(finished.returncode)


def spread(values: list[float], digits: int) -> str:
    return f"{mean(values):.{digits}f} ({stdev(values) if len(values) > 1 else 0:.{digits}f})"


if __name__ == "__main__":
    run_script(main, "--raw ../shared/data/kuairand_pure")
