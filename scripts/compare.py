#!/usr/bin/env python3
"""Holds runs against each other on the same rows; the first is the reference.

python scripts/compare.py demo/run demo/mmoe --out demo/comparison
"""

from pipeline.command import command
from pipeline.commands.compare import main

if __name__ == "__main__":
    command(main)
