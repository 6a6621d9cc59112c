"""A small, messy log in the three formats, and its samples; all of it read only."""

from pathlib import Path

import polars as pl
import pytest

from pipeline.manifest import Manifest, load_manifest
from pipeline.samples.build import build_samples
from pipeline.simulation.config import LogFormat, SimulationConfig
from pipeline.simulation.simulate import simulate_logs
from pipeline.spec.file import load_spec

MESSY = SimulationConfig(
    users=200,
    videos=100,
    new_videos=5,
    days=5,
    impressions=4000,
    late_rate=0.05,
    duplicate_rate=0.05,
    malformed_rate=0.05,
    disorder=0.2,
)


@pytest.fixture(scope="session")
def messy_spec(spec_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The short-video spec in a zone whose days begin at 16:00 UTC, with a shorter window for the counters."""
    path = tmp_path_factory.mktemp("spec") / "spec.yaml"
    text = spec_path.read_text().replace("timezone: UTC", "timezone: Asia/Shanghai")
    path.write_text(text.replace("days: [7]", "days: [2]").replace("_7d", "_2d"))
    return path


@pytest.fixture(scope="session")
def messy_folders(messy_spec: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """By format the folder with the log in `raw` and the store in `samples`."""
    folders = {}
    formats: list[tuple[LogFormat, bool]] = [("parquet", False), ("csv", False), ("jsonl", True)]
    for format_, gzip in formats:
        folder = tmp_path_factory.mktemp(format_)
        simulate_logs(MESSY.model_copy(update={"format": format_, "gzip": gzip}), load_spec(messy_spec), folder / "raw")
        build_samples(messy_spec, folder / "raw", folder / "samples")
        folders[format_] = folder
    return folders


@pytest.fixture(scope="session")
def messy_raw(messy_folders: dict[str, Path]) -> Path:
    return messy_folders["parquet"] / "raw"


@pytest.fixture(scope="session")
def messy_store(messy_folders: dict[str, Path]) -> Path:
    return messy_folders["parquet"] / "samples"


@pytest.fixture(scope="session")
def messy_manifest(messy_store: Path) -> Manifest:
    return load_manifest(messy_store)


@pytest.fixture(scope="session")
def messy_samples(messy_store: Path) -> pl.DataFrame:
    return pl.read_parquet(messy_store / "split=*" / "*" / "*.parquet", hive_partitioning=True)
