import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import pytest
from torch.distributed import TCPStore

from tests.training import rank_process

# A small model on all samples, in 20 steps. The tables learn fast enough to matter.
SMALL = (
    "--loop.epochs 1 --loop.batch-size 370 --loop.log-every 1 --model.expert 16 --model.tower 8 "
    "--model.shared-experts 2 --tables.learning-rate 0.1 --device cpu"
)


@dataclass
class Launched:
    """Processes that train. Their statuses are those of `Popen`: minus the number of the signal that ended one."""

    processes: list[ForkServerProcess]
    stores: list[TCPStore]
    output_file: Path

    def statuses(self) -> list[int | None]:
        return [process.exitcode for process in self.processes]

    def wait(self, seconds: float = 120) -> list[int | None]:
        """Waits until all have ended by themselves."""
        for process in self.processes:
            process.join(seconds)
        return self.statuses()

    def kill_when(self, ready: Callable[[], bool], number: int = signal.SIGKILL, rank: int = 0) -> None:
        """Sends a signal to a rank as soon as `ready` is true. It is asked every ms."""
        process = self.processes[rank]
        while process.is_alive() and not ready():
            time.sleep(0.001)
        assert process.pid is not None
        os.kill(process.pid, number)

    def output(self) -> str:
        return self.output_file.read_text()


@pytest.fixture(scope="session")
def arguments(samples: Path, spec_path: Path) -> Callable[..., list[str]]:
    """`arguments(out, "--model.head mmoe")` are the arguments of a small run, changed by the given options."""

    def complete(out: Path, options: str = "") -> list[str]:
        line = f" --spec {spec_path} --samples {samples} --out {out} {SMALL} {options}"
        values = dict(option.partition(" ")[::2] for option in line.split(" --")[1:])
        return [word for name, value in values.items() for word in (f"--{name}", *value.split())]

    return complete


@pytest.fixture(scope="session")
def launch(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Launched]:
    """`launch(2, [words, ...])` starts ranks that train several runs; `launch(0, [words])` a process without torchrun.

    They are forked from a process that has imported everything already: importing takes longer than these runs.
    `file_sizes` are the largest files, in bytes, that each rank can write.
    """
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(["pipeline.training.train", "tests.training.rank_process"])

    def launch(ranks: int, runs: list[list[str]], file_sizes: tuple[int, ...] = ()) -> Launched:
        output = tmp_path_factory.mktemp("launched") / "output.txt"
        stores = [TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False) for _ in runs]
        processes = []
        for rank in range(max(1, ranks)):
            place = {"MASTER_ADDR": "127.0.0.1", "TORCHELASTIC_USE_AGENT_STORE": "True", "WORLD_SIZE": str(ranks)}
            place |= {"RANK": str(rank), "LOCAL_RANK": str(rank)}
            size = file_sizes[rank] if file_sizes else 0
            words = (place if ranks else {}, runs, [store.port for store in stores], output, size)
            processes.append(server.Process(target=rank_process.train, args=words, daemon=True))
            processes[-1].start()
        return Launched(processes, stores, output)

    return launch


@pytest.fixture(scope="session")
def train_all(launch: Callable[..., Launched]) -> Callable[[int, list[list[str]]], None]:
    """Trains several runs in one set of processes; `torchrun --nproc-per-node` would start a set for each run."""

    def train_all(ranks: int, runs: list[list[str]]) -> None:
        launched = launch(ranks, runs)
        while None in launched.statuses() and not any(launched.statuses()):
            time.sleep(0.05)
        for process in launched.processes:
            process.kill()  # ranks that wait for one that failed
        assert launched.wait() == [0] * ranks, launched.output()

    return train_all
