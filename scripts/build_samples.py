#!/usr/bin/env python3
"""Builds labelled samples from raw logs, or brings a sample store up to date with them.

python scripts/build_samples.py --spec feature_specs/short_video.yaml --raw demo/raw --out demo/samples
"""

from pipeline.command import command
from pipeline.commands.build import main

if __name__ == "__main__":
    command(main)
