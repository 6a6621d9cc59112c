"""Building stores, and what is in them."""

import shutil
from pathlib import Path

import pytest

from pipeline.simulation.simulate import simulate_logs
from pipeline.spec.file import load_spec
from tests.samples.stores import DATES, LOG, build, edited


@pytest.fixture(scope="module")
def whole_log(tmp_path_factory: pytest.TempPathFactory, spec_path: Path) -> Path:
    """Six days; the rows that came late lie in the files of the day after."""
    raw = tmp_path_factory.mktemp("whole") / "raw"
    simulate_logs(LOG, load_spec(spec_path), raw)
    return raw


@pytest.fixture
def log(whole_log: Path, tmp_path: Path) -> Path:
    """A copy to change."""
    return shutil.copytree(whole_log, tmp_path / "raw")


@pytest.fixture(scope="module")
def dated_spec(tmp_path_factory: pytest.TempPathFactory, spec_path: Path) -> Path:
    path = tmp_path_factory.mktemp("spec") / "spec.yaml"
    path.write_text(edited(spec_path.read_text(), "split: {valid_days: 1, test_days: 1}", DATES))
    return path


@pytest.fixture(scope="module")
def built(whole_log: Path, dated_spec: Path) -> Path:
    """The store of `whole_log`; read only."""
    out = whole_log.parent / "samples"
    build(dated_spec, whole_log, out)
    return out


@pytest.fixture
def store(built: Path, tmp_path: Path) -> Path:
    """A copy to bring up to date."""
    return shutil.copytree(built, tmp_path / "samples")
