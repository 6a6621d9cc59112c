#!/usr/bin/env python3
"""Trains a model on a sample store.

torchrun --nproc-per-node 2 scripts/train.py --spec feature_specs/short_video.yaml --samples demo/samples --out demo/run
"""

from pipeline.command import command
from pipeline.commands.train import main
from pipeline.training.processes import is_first_rank

if __name__ == "__main__":
    command(main, quiet=not is_first_rank())
