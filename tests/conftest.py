"""A small simulated log and its samples, made once; and the commands, run as a user runs them."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from pipeline.manifest import Manifest, load_manifest
from pipeline.samples.build import build_samples
from pipeline.simulation.config import LogFormat, SimulationConfig
from pipeline.simulation.simulate import simulate_logs
from pipeline.spec.file import load_spec

ROOT = Path(__file__).parent.parent
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def spec_path() -> Path:
    return ROOT / "feature_specs" / "short_video.yaml"


@pytest.fixture(scope="session")
def raw_log(tmp_path_factory: pytest.TempPathFactory, spec_path: Path) -> Path:
    """Five days of 12,000 impressions; read only."""
    out = tmp_path_factory.mktemp("log") / "raw"
    config = SimulationConfig(users=200, videos=100, new_videos=5, days=5, impressions=12_000)
    simulate_logs(config, load_spec(spec_path), out)
    return out


@pytest.fixture(scope="session")
def samples(raw_log: Path, spec_path: Path) -> Path:
    """The samples of `raw_log`; read only."""
    out = raw_log.parent / "samples"
    build_samples(spec_path, raw_log, out)
    return out


@pytest.fixture(scope="session")
def manifest(samples: Path) -> Manifest:
    return load_manifest(samples)


@pytest.fixture(scope="session")
def environment() -> dict[str, str]:
    """Of the commands: one thread each, and torchrun's own variables left out."""
    inherited = {name: value for name, value in os.environ.items() if name not in ("RANK", "WORLD_SIZE")}
    return inherited | {"OMP_NUM_THREADS": "1", "POLARS_MAX_THREADS": "1", "PYTHONPATH": str(ROOT)}


@pytest.fixture(scope="session")
def command(environment: dict[str, str]) -> Run:
    """`command("evaluate.py", "--run", run, ...)` runs a script, with `ranks=2` under torchrun."""

    def run(script: str, *arguments: object, ranks: int = 0) -> subprocess.CompletedProcess[str]:
        torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"] if ranks else []
        words = [sys.executable, *torchrun, ROOT / "scripts" / script, *arguments]
        return subprocess.run([*map(str, words)], env=environment, capture_output=True, text=True, check=False)

    return run


# ------------------------------------------ a small, messy log in the three formats, and its samples; all read only

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
