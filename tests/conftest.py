"""A small simulated log and its samples, made once; and the commands, run as a user runs them."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.manifest import Manifest, load_manifest
from pipeline.samples.build import build_samples
from pipeline.simulation.config import SimulationConfig
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
