import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.manifest import Manifest

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def trained(
    tmp_path_factory: pytest.TempPathFactory, command: Run, samples: Path, spec_path: Path, manifest: Manifest
) -> Path:
    """A run of two ranks with every table sharded by rows; read only."""
    out = tmp_path_factory.mktemp("trained") / "run"
    by_rows = [word for table in manifest.spec.tables for word in (table, "row_wise")]
    options = (
        "--loop.epochs 4 --loop.batch-size 256 --loop.log-every 10 --loop.patience 0 --device cpu --model.expert 32 "
        "--dense.learning-rate 3e-3 --tables.learning-rate 0.05"
    )
    done = command(
        "train.py",
        "--spec",
        spec_path,
        "--samples",
        samples,
        "--out",
        out,
        *options.split(),
        "--tables.overrides",
        *by_rows,
        ranks=2,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{out}: ")
    return out
