"""One rank of several runs, one after the other: importing torch and torchrec takes longer than these runs.

RANK=0 WORLD_SIZE=2 MASTER_ADDR=... python train_all.py '[["--spec", ...], ...]' PORT...

As under torchrun, each run has a store, at its own port, of the process that started the ranks.
"""

import json
import os
import sys

import tyro

from pipeline.training.config import TrainConfig
from pipeline.training.train import train

if __name__ == "__main__":
    os.environ["TORCHELASTIC_USE_AGENT_STORE"] = "True"
    for arguments, port in zip(json.loads(sys.argv[1]), sys.argv[2:], strict=True):
        os.environ["MASTER_PORT"] = port
        train(tyro.cli(TrainConfig, args=arguments))
