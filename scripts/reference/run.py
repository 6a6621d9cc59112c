"""Runs scripts in new processes, for the benchmarks of training."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

SCRIPTS = Path(__file__).parents[1]
MODEL = [
    "--model.head",
    "ple",
    "--model.levels",
    "2",
    "--model.shared-experts",
    "2",
    "--model.own-experts",
    "2",
    "--model.expert",
    "256",
    "128",
    "--model.tower",
    "64",
]
WARM_UP = 2  # windows
WINDOW_ROWS = 50_000


@dataclass(frozen=True)
class Mode:
    """How to run scripts/train.py: the number of ranks, the threads of each, and further options."""

    ranks: int
    threads: int
    flags: tuple[str, ...] = ()


def trained(folder: Path, run: str, mode: Mode, batch_size: int) -> list[dict[str, float]]:
    """The training lines of metrics.jsonl of one run, without the warm-up. Each line is a window."""
    options = [
        "--spec",
        folder / "spec.yaml",
        "--samples",
        folder / "samples",
        "--out",
        folder / run,
        *MODEL,
        "--loop.epochs",
        1,
        "--loop.batch-size",
        batch_size,
        "--loop.log-every",
        max(1, WINDOW_ROWS // batch_size),
        *mode.flags,
    ]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", mode.ranks]
    subprocess.run(
        list(map(str, [*torchrun, SCRIPTS / "train.py", *options])),
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"OMP_NUM_THREADS": str(mode.threads)},
    )
    lines = map(json.loads, (folder / run / "metrics.jsonl").read_text().splitlines())
    found = [line for line in lines if line["split"] == "train"]
    return found[WARM_UP:-1] or found[-1:]  # the last window is shorter than the others


def python(words: list[object], threads: int) -> str:
    """Runs a script below scripts/ and returns what it prints. Its failure ends the benchmark."""
    script, *arguments = map(str, words)
    done = subprocess.run(
        [sys.executable, str(SCRIPTS / script), *arguments],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": str(threads)},
    )
    return done.stdout
