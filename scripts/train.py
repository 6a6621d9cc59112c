#!/usr/bin/env python3
"""Trains a model on a sample store.

torchrun --nproc-per-node 2 scripts/train.py --spec feature_specs/short_video.yaml --samples demo/samples --out demo/run
"""

import tyro

from pipeline.errors import one_line_errors
from pipeline.training.config import TrainConfig
from pipeline.training.processes import is_first_rank
from pipeline.training.train import train


def main() -> None:
    """Parse the command line, train, and say where the result is."""
    with one_line_errors(quiet=not is_first_rank()):
        config = tyro.cli(TrainConfig, console_outputs=is_first_rank())
        progress = train(config)
        if is_first_rank():
            print(f"{config.out}: {progress.step} steps, lowest validation loss {progress.best_loss:.4f}")


if __name__ == "__main__":
    main()
