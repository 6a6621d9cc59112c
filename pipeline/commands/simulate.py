"""Simulates the event logs of a short-video feed, with the true probabilities beside them."""

from pathlib import Path
from typing import Annotated

import tyro

from pipeline.simulation.config import SimulationConfig
from pipeline.simulation.simulate import simulate_logs
from pipeline.spec.file import load_spec

EXAMPLE = "--spec feature_specs/short_video.yaml --out demo/raw"


def main(spec: Path, out: Path, config: Annotated[SimulationConfig, tyro.conf.arg(name="")]) -> None:
    """Simulates the event logs of a short-video feed.

    It reads the raw schema in a spec, and makes a folder for each raw table, and `truth/`: the probabilities from which
    the outcomes were drawn.

    Args:
        spec: The spec whose raw tables to write. They must be those of feature_specs/short_video.yaml.
        out: The new folder for the logs.
        config: What to simulate.
    """
    counts = simulate_logs(config, load_spec(spec), out)
    rows = ", ".join(f"{count.total() - count['late']:,} {table}" for table, count in counts.items())
    print(f"{out}: wrote the rows {rows}")
