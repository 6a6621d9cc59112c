#!/usr/bin/env python3
"""Trains a model on a sample store.

.venv/bin/python scripts/train.py --spec feature_specs/short_video.yaml --samples demo/samples --out demo/run
"""

from pipeline.commands.command_line import run_script
from pipeline.commands.train import EXAMPLE, main

if __name__ == "__main__":
    run_script(main, EXAMPLE)
