#!/usr/bin/env python3
"""Simulates the event logs of a short-video feed, with the true probabilities beside them.

.venv/bin/python scripts/simulate_logs.py --spec feature_specs/short_video.yaml --out demo/raw
"""

from pipeline.commands.command_line import run_script
from pipeline.commands.simulate import EXAMPLE, main

if __name__ == "__main__":
    run_script(main, EXAMPLE)
