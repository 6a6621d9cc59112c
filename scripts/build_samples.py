#!/usr/bin/env python3
"""Builds labelled samples from raw logs, or brings a sample store up to date with them.

.venv/bin/python scripts/build_samples.py --spec feature_specs/short_video.yaml --raw demo/raw --out demo/samples
"""

from pipeline.commands.build import EXAMPLE, main
from pipeline.commands.command_line import run_script

if __name__ == "__main__":
    run_script(main, EXAMPLE)
