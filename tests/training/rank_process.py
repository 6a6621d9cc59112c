"""What a process of the fixture `launch` does: scripts/train.py, once or several times, as a rank of torchrun would."""

import os
import resource
import runpy
import sys
from pathlib import Path

import torch

TRAIN = Path(__file__).parents[2] / "scripts" / "train.py"


def train(place: dict[str, str], runs: list[list[str]], ports: list[int], output_file: Path, file_size: int) -> None:
    """Trains each run with its command line; the ranks of a run meet at the store of its port."""
    output = os.open(output_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.environ.update(place)
    torch.set_num_threads(1)
    if file_size:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_size, file_size))
    for arguments, port in zip(runs, ports, strict=True):
        os.environ["MASTER_PORT"] = str(port)
        sys.argv = [str(TRAIN), *arguments]
        runpy.run_path(str(TRAIN), run_name="__main__")
        sys.stdout.flush()
