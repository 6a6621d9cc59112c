#!/usr/bin/env python3
"""Evaluates a trained model on a split of its samples.

python scripts/evaluate.py --run demo/run --samples demo/samples --split test --out demo/report
"""

from pipeline.command import command
from pipeline.commands.evaluate import main

if __name__ == "__main__":
    command(main)
