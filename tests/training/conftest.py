import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from torch.distributed import TCPStore

TRAIN_ALL = Path(__file__).parent / "train_all.py"
# A small model on all of the samples, in 20 steps; the tables' rate is one at which they matter.
SMALL = (
    "--loop.epochs 1 --loop.batch-size 370 --loop.log-every 1 --model.expert 16 --model.tower 8 "
    "--model.shared-experts 2 --tables.learning-rate 0.1 --device cpu"
)


@pytest.fixture(scope="session")
def arguments(samples: Path, spec_path: Path) -> Callable[..., list[str]]:
    """`arguments(out, "--model.head mmoe")`: those of a small training run."""

    def complete(out: Path, options: str = "") -> list[str]:
        return ["--spec", str(spec_path), "--samples", str(samples), "--out", str(out), *f"{SMALL} {options}".split()]

    return complete


@pytest.fixture(scope="session")
def train_all(environment: dict[str, str]) -> Callable[[int, list[list[str]]], None]:
    """Trains several runs in one set of processes, as `torchrun --nproc-per-node` would each of them."""

    def train_all(ranks: int, runs: list[list[str]]) -> None:
        stores = [TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False) for _ in runs]
        words = [sys.executable, str(TRAIN_ALL), json.dumps(runs), *(str(store.port) for store in stores)]
        with tempfile.TemporaryFile("w+") as errors:
            processes = []
            for rank in map(str, range(ranks)):
                place = {"WORLD_SIZE": str(ranks), "LOCAL_WORLD_SIZE": str(ranks), "MASTER_ADDR": "127.0.0.1"}
                place |= {"RANK": rank, "LOCAL_RANK": rank}
                processes.append(subprocess.Popen(words, env=environment | place, stderr=errors))
            while any(process.poll() is None for process in processes) and not any(p.returncode for p in processes):
                time.sleep(0.05)
            for process in processes:
                process.kill()  # those that would wait for one that failed
            errors.seek(0)
            assert [process.wait() for process in processes] == [0] * ranks, errors.read()

    return train_all
