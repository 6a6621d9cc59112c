"""Kept results are checked when they are read: a build makes damaged ones again, and touches nothing behind a link."""

import os
import shutil
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import polars as pl
import pytest

from pipeline.errors import StrataError
from pipeline.manifest import Manifest
from pipeline.samples.build import build_samples
from pipeline.samples.division import Options
from pipeline.samples.kept.lock import UNCOMMITTED
from pipeline.samples.kept.repair import forget_damaged
from pipeline.samples.kept.results import DamagedResult, Receipt, results
from pipeline.simulation.config import SimulationConfig
from pipeline.simulation.simulate import simulate_logs
from pipeline.spec.file import load_spec
from pipeline.storage import ASIDE, Folder

LOG = SimulationConfig(users=80, videos=50, new_videos=5, days=3, impressions=900)
LATER = ("profiles", "attributed", "profiled", "counted", "daily", "windows", "drafts", "learned", "encoded")
Damage = Callable[[Path], object]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, spec_path: Path) -> tuple[Path, Manifest]:
    """A folder with the log and the store; read only."""
    place = tmp_path_factory.mktemp("built")
    simulate_logs(LOG, load_spec(spec_path), place / "raw")
    return place, build_samples(spec_path, place / "raw", place / "samples", Options(workers=1, partitions=2))


@pytest.fixture
def store(built: tuple[Path, Manifest], tmp_path: Path) -> Path:
    """A copy to damage, in which the times of files stay."""
    return shutil.copytree(built[0] / "samples", tmp_path / "samples")


@pytest.fixture
def build(built: tuple[Path, Manifest], spec_path: Path, store: Path) -> Callable[[], Manifest]:
    return lambda: build_samples(spec_path, built[0] / "raw", store, Options(workers=1))


def undated(manifest: Manifest) -> Manifest:
    """With the checksums of all files."""
    return manifest.model_copy(update={"created": ""})


def flip(path: Path) -> None:
    content = path.read_bytes()
    middle = len(content) // 2
    path.write_bytes(content[:middle] + bytes([content[middle] ^ 4]) + content[middle + 1 :])


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-50])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def lose(path: Path) -> None:
    path.unlink()


def exchange(path: Path) -> None:
    """With a file of the same size and another content."""
    same_name = sorted(path.parents[3].rglob(path.name), key=lambda other: other.stat().st_size)
    equal = [pair for pair in pairwise(same_name) if pair[0].stat().st_size == pair[1].stat().st_size]
    one, other = next(pair for pair in equal if pair[0].read_bytes() != pair[1].read_bytes())
    content = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(content)


# Files, and the first of the stages that are to be done again so that they are read.
@pytest.mark.parametrize(
    ("pattern", "damage", "redo_from"),
    [
        ("dealt/impression/*/rows.arrow", flip, "attributed"),
        ("dealt/click/*/rows.arrow", cut, "attributed"),
        ("dealt/video/*/rows.arrow", lose, "profiles"),
        ("attributed/*/*/*/impressions.arrow", empty, "profiled"),
        ("attributed/*/*/*/events-click.arrow", flip, "counted"),
        ("drafts/*/*/*/run-0.arrow", flip, "encoded"),
        ("drafts/*/*/*/past-clicked_videos.arrow", cut, "encoded"),
        ("drafts/*/*/*/sums.arrow", exchange, "learned"),
        ("learned/video/*/vocabulary.arrow", flip, "encoded"),
        ("encoded/*/*/*/baselines.arrow", flip, None),
        ("encoded/*/*/*/receipt.json", flip, None),
        ("dealt/stay/*/receipt.json", flip, None),
        ("drafts/*/*/*/receipt.json", empty, None),
    ],
)
def test_a_damaged_result_is_named_and_made_again(
    pattern: str,
    damage: Damage,
    redo_from: str | None,
    store: Path,
    built: tuple[Path, Manifest],
    build: Callable[[], Manifest],
    capsys: pytest.CaptureFixture[str],
) -> None:
    for stage in LATER[LATER.index(redo_from) :] if redo_from else ():
        shutil.rmtree(store / ".work" / stage)
    damaged = min((store / ".work").glob(pattern))
    damage(damaged)
    capsys.readouterr()
    assert undated(build()) == undated(built[1])
    said = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("[ ")]
    assert len(said) == (2 if damage is exchange else 1)
    for line in said:
        assert ": a kept result is damaged (" in line
        assert line.endswith("); it is made again")
    assert damage is exchange or said[0].startswith(f"{damaged.parent}: ")
    build()
    assert "damaged" not in capsys.readouterr().err


def test_all_damaged_results_are_found_when_one_is_met(store: Path) -> None:
    folder = Folder.at(store)
    every = sorted({path.parent for path in (store / ".work").rglob("receipt.json")})
    bad = every[::7]
    for path in bad:
        flip(max(path.iterdir(), key=lambda file: file.stat().st_size))
    met = DamagedResult("a kept result is damaged (seen)", where=every[1], fix="")
    lines = forget_damaged(folder, met)
    assert sorted(line.split(": ")[0] for line in lines) == sorted(map(str, {*bad, every[1]}))
    assert [path for path in every if path.exists()] == [path for path in every if path not in {*bad, every[1]}]


def test_every_byte_that_a_task_left_is_checked(tmp_path: Path) -> None:
    kept = results(Folder.at(tmp_path), "stage", "unit", "key")
    frame = pl.DataFrame({"a": [1, 2, 3]})
    batch = frame.to_arrow().to_batches()[0]

    def make() -> Receipt:
        kept.write("frame", frame)
        kept.write_batches("rows", batch.schema, [batch, batch.slice(1)])
        return Receipt()

    assert kept.get_or_make(None, Receipt, make).made
    again = results(Folder.at(tmp_path), "stage", "unit", "key")
    assert not again.get_or_make(None, Receipt, make).made
    assert again.read("frame").equals(frame)
    assert [b.num_rows for b in again.read_batches("rows", [1, 0, 1])] == [2, 3, 2]
    for path in Path(again.folder.path).iterdir():
        content = path.read_bytes()
        for at in range(0, len(content), 3):
            path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
            with pytest.raises(DamagedResult, match=path.name):
                results(Folder.at(tmp_path), "stage", "unit", "key").check()
        path.write_bytes(content)
    again.check()


def test_a_build_deletes_nothing_behind_a_symbolic_link(
    store: Path, build: Callable[[], Manifest], tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    for name in ("receipt.json", "unit/key/receipt.json", "part-1.parquet", "user-1.parquet", f"{ASIDE}1-x"):
        Folder.at(outside).write(name, b"of someone else")
    before = {path: path.read_bytes() for path in outside.rglob("*") if path.is_file()}
    for place in (".work/dealt/old", ".work/old", "split=train/date=2020-01-01", "vocabularies/old", "rejected/old"):
        (store / place).parent.mkdir(exist_ok=True)
        (store / place).symlink_to(outside)
    (store / "vocabularies" / "user-00000000.parquet").symlink_to(outside / "user-1.parquet")
    # A build that was cut short by a power cut, which had other files.
    (store / UNCOMMITTED).write_text("another boot")
    os.utime(store / UNCOMMITTED, (0, 0))
    shutil.rmtree(store / ".work" / "encoded")
    build()
    build()
    assert {path: path.read_bytes() for path in outside.rglob("*") if path.is_file()} == before


def test_work_behind_a_symbolic_link_is_refused(store: Path, build: Callable[[], Manifest], tmp_path: Path) -> None:
    (store / ".work").rename(tmp_path / "work")
    (store / ".work").symlink_to(tmp_path / "work")
    before = sorted((tmp_path / "work").rglob("*"))
    with pytest.raises(StrataError, match=rf"{store}/.work: is a symbolic link, which no build follows"):
        build()
    assert sorted((tmp_path / "work").rglob("*")) == before
