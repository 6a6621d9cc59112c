"""What a process of the fixture `launch` does: scripts/train.py, once or several times, as a rank of torchrun would."""

import os
import resource
import runpy
import sys
from pathlib import Path

import torch

TRAIN = Path(__file__).parents[2] / "scripts" / "train.py"


def train(place: dict[str, str], runs: list[list[str]], ports: list[int], said: Path, file_size: int) -> None:
    """Of each run the command line, and the port of the store through which its ranks meet."""
    output = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
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
