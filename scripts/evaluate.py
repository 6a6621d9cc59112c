#!/usr/bin/env python3
"""Evaluates a trained model on a split of its samples.

.venv/bin/python scripts/evaluate.py --run demo/run --samples demo/samples --split test --out demo/report
"""

from pipeline.commands.command_line import run_script
from pipeline.commands.evaluate import EXAMPLE, main

if __name__ == "__main__":
    run_script(main, EXAMPLE)
