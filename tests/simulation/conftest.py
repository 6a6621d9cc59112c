"""The spec of the simulated logs, small options, and a reader of the files."""

from pathlib import Path

import polars as pl
import pytest

from pipeline.simulation.config import SimulationConfig
from pipeline.spec.file import load_spec
from pipeline.spec.spec import Spec

SPECS = Path(__file__).parents[2] / "feature_specs"
SMALL = SimulationConfig(users=200, videos=100, new_videos=5, days=3, impressions=5_000)
CLEAN = {"late_rate": 0.0, "duplicate_rate": 0.0, "malformed_rate": 0.0, "disorder": 0.0}


@pytest.fixture(scope="module")
def spec() -> Spec:
    return load_spec(SPECS / "short_video.yaml")


def table(raw: Path, name: str) -> pl.DataFrame:
    return pl.read_parquet(raw / name / "*.parquet")
