#!/usr/bin/env python3
"""Simulates the event logs of a short-video feed, with the true probabilities beside them.

python scripts/simulate_logs.py --spec feature_specs/short_video.yaml --out demo/raw
"""

from pipeline.command import command
from pipeline.commands.simulate import main

if __name__ == "__main__":
    command(main)
