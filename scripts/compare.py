#!/usr/bin/env python3
"""Holds runs against each other on the same rows; the first is the reference.

.venv/bin/python scripts/compare.py demo/run demo/mmoe --out demo/comparison
"""

from pipeline.commands.command_line import run_script
from pipeline.commands.compare import EXAMPLE, main

if __name__ == "__main__":
    run_script(main, EXAMPLE)
