"""Raw files that are damaged or changing, and a disk that fills up: one line or quarantine, and nothing is lost."""

import gzip
import hashlib
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import polars as pl
import pytest

from pipeline.errors import StrataError
from pipeline.manifest import BadRawFile, Manifest, load_manifest
from pipeline.raw.reading import BadFile, find_files, read_chunks
from pipeline.samples.build import build_samples
from pipeline.samples.division import Options
from pipeline.samples.stages.deal import DealTask, deal, deal_tasks
from pipeline.samples.store import replaced_files
from pipeline.simulation.config import SimulationConfig
from pipeline.simulation.simulate import simulate_logs
from pipeline.spec.file import load_spec
from pipeline.storage import Folder

LOG = SimulationConfig(users=100, videos=50, new_videos=5, days=3, impressions=1200)
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def sound_log(tmp_path_factory: pytest.TempPathFactory, spec_path: Path) -> Path:
    raw = tmp_path_factory.mktemp("sound") / "raw"
    simulate_logs(LOG, load_spec(spec_path), raw)
    return raw


@pytest.fixture
def log(sound_log: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return shutil.copytree(sound_log, tmp_path / "raw")


def build(spec: Path, raw: Path, out: Path, quarantine: bool = False) -> Manifest:
    return build_samples(spec, raw, out, Options(workers=1, quarantine=quarantine))


def content(store: Path) -> tuple[Manifest, dict[str, str]]:
    """The manifest but for its time and its quarantine, and the checksums of the store's other files.

    Files that were replaced and stay for readers are left out.
    """
    manifest = load_manifest(store)
    kept = {file.name for file in replaced_files(manifest, Folder.at(store))} | {"manifest.json"}
    files = [p for p in store.rglob("*") if p.is_file() and ".work" not in p.parts]
    sums = {str(path.relative_to(store)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    sums = {name: digest for name, digest in sums.items() if name not in kept}
    return manifest.model_copy(update={"created": "", "quarantine": []}), sums


# ------------------------------------------------------------------------------------------------ damaged files


def cut_parquet(raw: Path) -> Path:
    path = raw / "click" / "2026-03-02-000.parquet"
    path.write_bytes(path.read_bytes()[:-100])
    return path


def overwritten_parquet(raw: Path) -> Path:
    """Its beginning and its end are those of a Parquet file."""
    path = raw / "impression" / "2026-03-03-000.parquet"
    content = path.read_bytes()
    path.write_bytes(content[:4] + b"\xff" * (len(content) // 2) + content[4 + len(content) // 2 :])
    return path


def csv_without_a_column(raw: Path) -> Path:
    path = raw / "stay" / "more.csv"
    path.write_text("impression_id,user_id,time_ms\n1,1,1772323200000\n")
    return path


def empty_file(raw: Path) -> Path:
    path = raw / "play" / "2026-03-02-000.parquet"
    path.write_bytes(b"")
    return path


def cut_gzip(raw: Path) -> Path:
    path = raw / "like" / "more.csv.gz"
    rows = "".join(f"{n},{n},{1772323200000 + n}\n" for n in range(5000))
    path.write_bytes(gzip.compress(f"impression_id,user_id,time_ms\n{rows}".encode())[:-2000])
    return path


DAMAGE: dict[Callable[[Path], Path], str] = {
    cut_parquet: "cannot be read",
    overwritten_parquet: "cannot be read",
    csv_without_a_column: "the column `dwell_ms` is missing",
    empty_file: "cannot be read",
    cut_gzip: "cannot be read",
}


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda damage: damage.__name__)
def test_a_bad_file_ends_the_build_or_is_left_out(
    damage: Callable[[Path], Path], log: Path, sound_log: Path, spec_path: Path, tmp_path: Path
) -> None:
    bad, store = damage(log), tmp_path / "samples"
    with pytest.raises(BadFile) as error:
        build(spec_path, log, store)
    assert str(error.value).startswith(f"{bad}: {DAMAGE[damage]}")
    assert {path.name for path in store.iterdir()} == {".work"}

    manifest = build(spec_path, log, store, quarantine=True)
    (found,) = manifest.quarantine
    assert found == BadRawFile(table=bad.parent.name, file=str(bad), reason=found.reason)
    assert found.reason.startswith(DAMAGE[damage])
    bad.rename(tmp_path / "aside")
    without = build(spec_path, log, tmp_path / "without")
    assert without.quarantine == []
    assert content(store) == content(tmp_path / "without")

    sound = sound_log / bad.relative_to(log)
    if sound.exists():
        shutil.copy(sound, bad)
    repaired = build(spec_path, log, store, quarantine=True)
    build(spec_path, log, tmp_path / "scratch")
    assert repaired.quarantine == []
    assert content(store) == content(tmp_path / "scratch")


def test_a_store_outlives_a_build_that_met_a_bad_file(log: Path, spec_path: Path, tmp_path: Path) -> None:
    store = tmp_path / "samples"
    build(spec_path, log, store)
    before = content(store)
    cut_parquet(log)
    with pytest.raises(BadFile):
        build(spec_path, log, store)
    assert content(store) == before


def test_the_command_names_what_is_in_quarantine(log: Path, spec_path: Path, tmp_path: Path, command: Run) -> None:
    bad, out = cut_parquet(log), tmp_path / "samples"
    words = ["build_samples.py", "--spec", spec_path, "--raw", log, "--out", out]
    failed = command(*words)
    lines = [line for line in failed.stderr.splitlines() if not line.startswith("[ ")]
    assert (failed.returncode, failed.stdout, len(lines)) == (2, "", 1)
    assert lines[0].startswith(f"error: {bad}: cannot be read")
    done = command(*words, "--on-bad-file", "quarantine")
    assert done.returncode == 0, done.stderr
    assert f"in quarantine: {bad}: cannot be read" in done.stdout


# --------------------------------------------------------------------------- files that change under the job


@pytest.fixture
def tasks(log: Path, spec_path: Path, tmp_path: Path) -> Callable[[bool], dict[Path, DealTask]]:
    """Lists what is to be dealt, by the path of the file."""
    spec = load_spec(spec_path)
    raw, store = Folder.at(log), Folder.at(tmp_path / "samples")

    def listed(quarantine: bool) -> dict[Path, DealTask]:
        files = {name: find_files(name, table, raw) for name, table in spec.logs.tables().items()}
        found = deal_tasks(spec, files, store, 1, quarantine)
        return {Path(str(task.file)): task for task in found}

    return listed


@pytest.mark.parametrize(
    ("happens", "says"), [("gone", "disappeared"), ("longer", "changed"), ("rewritten", "changed")]
)
def test_a_file_that_is_not_what_was_listed_is_bad(
    tasks: Callable[[bool], dict[Path, DealTask]], log: Path, happens: str, says: str
) -> None:
    path = log / "click" / "2026-03-02-000.parquet"
    strict, lenient = tasks(False)[path], tasks(True)[path]
    rows = pl.read_parquet(path)
    path.unlink()
    if happens != "gone":
        (pl.concat([rows, rows]) if happens == "longer" else rows).write_parquet(path)
    with pytest.raises(BadFile, match=f"{says} while it was used"):
        deal(strict)
    done = deal(lenient)
    assert done.receipt.bad == f"{says} while it was used"
    assert (done.receipt.read, done.receipt.groups) == (0, [])
    assert not done.task.results.folder.files()  # so that the next run tries again


def test_a_file_that_grows_while_it_is_read_is_bad(tasks: Callable[[bool], dict[Path, DealTask]], log: Path) -> None:
    path = log / "click" / "2026-03-02-000.csv"
    path.write_text("impression_id,user_id,time_ms\n1,1,1772323200000\n")
    task = tasks(False)[path]
    chunks = read_chunks(task.name, task.table, task.file, set())
    assert next(chunks).rows.height == 1
    with path.open("a") as file:
        file.write("2,2,1772323200000\n")
    with pytest.raises(BadFile, match="changed while it was used"):
        list(chunks)


# ------------------------------------------------------------------------------------------------- a full disk


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", place], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"cannot mount a small disk: {mounted.stderr.strip()}")
    yield place
    subprocess.run(["umount", place], check=True)


@pytest.mark.slow
def test_a_full_disk_is_one_line_and_nothing_is_lost(
    small_disk: Path, sound_log: Path, spec_path: Path, tmp_path: Path, command: Run
) -> None:
    out = small_disk / "samples"
    words = ["build_samples.py", "--spec", spec_path, "--raw", sound_log, "--out", out]
    ballast = small_disk / "ballast"
    failures = 0
    for kb in (1950, 1700, 1200, 700, 200):
        ballast.write_bytes(b"x" * kb * 1024)
        done = command(*words)
        if done.returncode == 0:
            break
        failures += 1
        lines = [line for line in done.stderr.splitlines() if not line.startswith("[ ")]
        assert (done.returncode, len(lines)) == (2, 1), done.stderr
        assert lines[0].startswith(f"error: {out}/")
        assert lines[0].endswith("the disk is full; free some space and run the same command again")
        if lines[0].startswith(f"error: {out}/data.html:"):
            assert load_manifest(out)  # all but the report was done
            continue
        assert done.stdout == ""
        with pytest.raises(StrataError, match="no sample store"):
            load_manifest(out)
    ballast.unlink()
    done = command(*words)
    assert done.returncode == 0, done.stderr
    assert failures > 2
    build(spec_path, sound_log, tmp_path / "undisturbed")
    (out / "data.html").unlink()
    assert content(out) == content(tmp_path / "undisturbed")
