"""A store is brought up to date while it is read: a reader finishes on the files of the manifest that it opened."""

import hashlib
import subprocess
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from pipeline.batches.reader import BatchReader
from pipeline.batches.row_groups import stored_tables
from pipeline.columns import SAMPLE_ID
from pipeline.manifest import Manifest, load_manifest, read_manifest
from pipeline.samples.build import build_samples
from pipeline.samples.division import Options
from pipeline.samples.store import replaced_files
from pipeline.simulation.config import SimulationConfig
from pipeline.simulation.simulate import simulate_logs
from pipeline.spec.file import load_spec
from pipeline.storage import Folder

LOG = SimulationConfig(users=80, videos=50, new_videos=5, days=3, impressions=900)
Build = Callable[[Path | str, int], Manifest]


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory, spec_path: Path) -> Path:
    place = tmp_path_factory.mktemp("log") / "raw"
    simulate_logs(LOG, load_spec(spec_path), place)
    return place


@pytest.fixture
def specs(spec_path: Path, tmp_path: Path) -> dict[int, Path]:
    """Versions of the spec; each makes other files and other vocabularies."""
    paths = {}
    for version, positions in enumerate((9, 5, 4), start=1):
        paths[version] = tmp_path / f"spec-{version}.yaml"
        text = spec_path.read_text()
        assert text.count("\nsplit: {") == 1
        paths[version].write_text(text.replace("\nsplit: {", f"\nfilter: position < {positions}\nsplit: {{"))
    return paths


@pytest.fixture
def build(raw: Path, specs: dict[int, Path]) -> Build:
    """`build(store, version)` brings a store up to date with a version of the spec."""
    return lambda store, version: build_samples(specs[version], raw, store, Options(workers=1))


def is_all_there(manifest: Manifest, store: Folder) -> bool:
    """Every file that a reader of the manifest may open is there, as it was written."""
    sums = {file.path: file.sha256 for file in manifest.files}
    sums |= {vocabulary.path: vocabulary.sha256 for vocabulary in manifest.learned.vocabularies.values()}
    return all(store.exists(p) and hashlib.sha256(store.read(p)).hexdigest() == sums[p] for p in sums)


def test_a_reader_finishes_on_the_files_that_it_opened(build: Build, tmp_path: Path) -> None:
    store = tmp_path / "samples"
    build(store, 1)
    opened = load_manifest(store)
    reader = BatchReader(store, opened, "train", batch_size=64, shuffle_rows=128)
    undisturbed = [table[SAMPLE_ID].to_pylist() for table in reader.tables([SAMPLE_ID], epoch=1)]
    stored = pa.concat_tables(stored_tables(store, opened, "test", [SAMPLE_ID], rows=100))

    reader = BatchReader(store, opened, "train", batch_size=64, shuffle_rows=128)
    steps = reader.tables([SAMPLE_ID], epoch=1)
    read = [next(steps)[SAMPLE_ID].to_pylist()]
    assert load_manifest(store).paths() == opened.paths()
    assert not build(store, 2).paths() & opened.paths()
    read += [table[SAMPLE_ID].to_pylist() for table in steps]
    assert read == undisturbed
    # One that opened the manifest, and begins to read only now.
    assert pa.concat_tables(stored_tables(store, opened, "test", [SAMPLE_ID], rows=100)).equals(stored)


@pytest.mark.parametrize("place", ["local", "memory"])
def test_replaced_files_stay_until_the_build_after(build: Build, tmp_path: Path, place: str) -> None:
    out = str(tmp_path / "samples") if place == "local" else f"memory://{tmp_path.name}/samples"
    store = Folder.at(out)
    first = build(out, 1)
    assert replaced_files(first, store) == []
    second = build(out, 2)
    assert {file.name for file in replaced_files(second, store)} == first.paths() - second.paths()
    assert is_all_there(first, store)
    third = build(out, 3)
    assert {file.name for file in replaced_files(third, store)} == second.paths() - third.paths()
    assert is_all_there(second, store)
    assert not any(store.exists(path) for path in first.paths() - second.paths() - third.paths())
    assert is_all_there(read_manifest(store), store)


def test_a_build_that_replaces_nothing_takes_no_file_from_a_reader(build: Build, tmp_path: Path) -> None:
    store = tmp_path / "samples"
    first = build(store, 1)
    for _ in range(3):
        second = build(store, 2)
        assert is_all_there(first, Folder.at(store))
    assert {file.name for file in replaced_files(second, Folder.at(store))} == first.paths() - second.paths()


def test_files_that_come_back_are_those_of_the_store_before(build: Build, tmp_path: Path) -> None:
    store = tmp_path / "samples"
    first, second, again = (build(store, version) for version in (1, 2, 1))
    assert again.files == first.files
    assert is_all_there(first, Folder.at(store))
    assert is_all_there(second, Folder.at(store))


def test_the_command_says_what_stays(
    raw: Path, specs: dict[int, Path], tmp_path: Path, command: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    said = [
        command("build_samples.py", "--spec", specs[version], "--raw", raw, "--out", tmp_path / "samples").stdout
        for version in (1, 2)
    ]
    replaced = replaced_files(load_manifest(tmp_path / "samples"), Folder.at(tmp_path / "samples"))
    line = (
        f"{len(replaced)} files ({sum(f.size for f in replaced) / 1e6:.1f} MB) of the store before stay for its readers"
    )
    assert line in said[1]
    assert "stay for its readers" not in said[0]
