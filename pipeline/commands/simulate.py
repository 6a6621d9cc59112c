"""Simulates the event logs of a short-video feed, with the true probabilities beside them.

python scripts/simulate_logs.py --spec feature_specs/short_video.yaml --out demo/raw
"""

from pathlib import Path
from typing import Annotated

import tyro

from pipeline.simulation.config import SimulationConfig
from pipeline.simulation.simulate import simulate_logs
from pipeline.spec.file import load_spec


def main(spec: Path, out: Path, config: Annotated[SimulationConfig, tyro.conf.arg(name="")]) -> None:
    """Simulates the event logs of a short-video feed, with the true probabilities beside them.

    Args:
        spec: The spec whose raw tables to write, such as feature_specs/short_video.yaml.
        out: A new folder for the logs.
        config: What to simulate.
    """
    counts = simulate_logs(config, load_spec(spec), out)
    rows = ", ".join(f"{count.total() - count['late']:,} {table}" for table, count in counts.items())
    print(f"{out}: wrote the rows {rows}")
