"""A build that is killed leaves readers the store that they had, and the next run goes on to the same end."""

import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from pipeline.errors import StrataError
from pipeline.manifest import MANIFEST, Manifest, load_manifest
from pipeline.samples.build import build_samples
from pipeline.samples.division import Options
from pipeline.samples.kept.lock import CLOCK_ERROR_S, UNCOMMITTED
from pipeline.simulation.config import SimulationConfig
from pipeline.simulation.simulate import simulate_logs
from pipeline.spec.file import load_spec

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
LOG = SimulationConfig(users=500, videos=200, new_videos=10, days=4, impressions=12_000)
PARTITIONS = 4
KILLS = 20
PATIENCE_S = 10  # for processes to end that have nothing left to do, on a busy machine
Content = dict[str, object]
Start = Callable[[Path], subprocess.Popen[str]]


class Log:
    """Raw logs whose last day comes and goes."""

    def __init__(self, raw: Path, aside: Path) -> None:
        aside.mkdir()
        self.raw = raw
        self._files = {p: aside / f"{p.parent.name}-{p.name}" for p in raw.glob("*/*.parquet") if p.name > "2026-03-04"}

    def last_day(self, there: bool) -> None:
        for path, aside in self._files.items():
            if there != path.exists():
                (aside if there else path).rename(path if there else aside)


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory, spec_path: Path) -> Log:
    place = tmp_path_factory.mktemp("log")
    simulate_logs(LOG, load_spec(spec_path), place / "raw")
    return Log(place / "raw", place / "aside")


@pytest.fixture(scope="module")
def undisturbed(log: Log, spec_path: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Content]:
    """The store without and with the last day."""
    stores = {}
    for there in (False, True):
        log.last_day(there)
        store = tmp_path_factory.mktemp("undisturbed") / "samples"
        build_samples(spec_path, log.raw, store, Options(workers=1, partitions=PARTITIONS))
        stores[there] = content(store)
    assert stores[False] != stores[True]
    return stores


@pytest.fixture
def start(log: Log, spec_path: Path, environment: dict[str, str]) -> Start:
    """Begins a build in a process group of its own."""

    def begin(store: Path) -> subprocess.Popen[str]:
        script = ROOT / "scripts" / "build_samples.py"
        words = ["--spec", spec_path, "--raw", log.raw, "--out", store, "--workers", 2, "--partitions", PARTITIONS]
        return subprocess.Popen(
            [sys.executable, str(script), *map(str, words)],
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )

    return begin


def is_whole(manifest: Manifest, store: Path) -> bool:
    """Every file that the manifest names is there, as it was written."""
    sums = {file.path: file.sha256 for file in manifest.files}
    sums |= {vocabulary.path: vocabulary.sha256 for vocabulary in manifest.learned.vocabularies.values()}
    return all(hashlib.sha256((store / path).read_bytes()).hexdigest() == digest for path, digest in sums.items())


def content(store: Path) -> Content:
    """What a reader finds: every file that the manifest names is there, and is what the manifest says."""
    manifest = load_manifest(store)
    assert is_whole(manifest, store)
    assert sum(len(pl.read_parquet(store / file.path)) for file in manifest.files) == sum(
        f.rows for f in manifest.files
    )
    return {"manifest": manifest.model_copy(update={"created": ""})}


def files(store: Path) -> set[str]:
    """All that there is, while a build may be deleting some of it."""
    return {os.path.join(folder, name) for folder, _, names in os.walk(store) for name in names}


def group(leader: int) -> list[int]:
    """Processes of a group that still run."""
    alive = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, in_group = path.read_text().rsplit(")", 1)[1].split()[:3]
        except OSError:  # it has just ended
            continue
        if int(in_group) == leader and state != "Z":
            alive.append(int(path.parent.name))
    return alive


def wait_until(holds: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + PATIENCE_S
    while not holds() and time.monotonic() < deadline:
        time.sleep(0.02)
    return holds()


def finished_before(process: subprocess.Popen[str], store: Path, new_files: int) -> bool:
    """Waits until the build has written so many files, or has ended."""
    before = files(store)
    while process.poll() is None:
        if len(files(store) - before) >= new_files:
            return False
        time.sleep(0.04)
    return True


def finishing(process: subprocess.Popen[str]) -> bool:
    """Waits for the last stage; false if the build fails before."""
    assert process.stderr
    return any("finishing" in line for line in process.stderr)


def kill(process: subprocess.Popen[str], *, parent_only: bool) -> None:
    if parent_only:
        process.kill()
    else:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    process.communicate()


def test_killed_at_any_moment_it_goes_on_to_the_same_store(
    log: Log, undisturbed: dict[bool, Content], start: Start, tmp_path: Path
) -> None:
    draw = random.Random(0)
    store, last_day, kills, finishes = tmp_path / "0", False, 0, 0
    opened: Manifest | None = None  # by a reader, before the build that is killed
    log.last_day(False)
    while kills < KILLS or finishes < 2:
        process = start(store)
        # How far it gets is measured in files, so that a slow machine is not always stopped at the same place.
        # Some are stopped as the manifest is written, or what the store before left is deleted.
        at_the_end = draw.random() < 0.3
        if kills == KILLS or (
            not finishing(process) if at_the_end else finished_before(process, store, draw.randrange(140))
        ):
            _, said = process.communicate()
            assert process.returncode == 0, said
            assert content(store) == undisturbed[last_day]
            assert opened is None or is_whole(opened, store)
            finishes += 1
            opened = None if last_day else load_manifest(store)
            if last_day:
                shutil.rmtree(store)
                store = tmp_path / str(finishes)
            last_day = not last_day
            log.last_day(last_day)
            continue
        time.sleep(draw.random() * (0.3 if at_the_end else 0.05))
        kill(process, parent_only=draw.random() < 0.3)
        kills += 1
        assert opened is None or is_whole(opened, store)
        if last_day:
            assert content(store) in undisturbed.values()
        elif (store / MANIFEST).exists():
            assert content(store) == undisturbed[False]
        else:
            with pytest.raises(StrataError, match="no sample store"):
                load_manifest(store)


def test_no_process_outlives_the_one_that_was_started(start: Start, undisturbed: object, tmp_path: Path) -> None:
    process = start(tmp_path / "samples")
    assert not finished_before(process, tmp_path / "samples", 30)
    assert len(group(process.pid)) >= 3
    process.kill()
    process.wait()
    assert wait_until(lambda: group(process.pid) == [])


def test_a_second_build_in_the_same_store_is_refused(
    log: Log, undisturbed: dict[bool, Content], start: Start, tmp_path: Path
) -> None:
    log.last_day(False)
    store = tmp_path / "samples"
    first = start(store)
    assert not finished_before(first, store, 20)
    os.killpg(first.pid, signal.SIGSTOP)
    before = files(store)
    second = start(store)
    said = second.communicate()[1].splitlines()
    assert (second.returncode, said) == (
        2,
        [f"error: {store}: another build is at work there; wait for it, or stop it"],
    )
    assert files(store) == before
    os.killpg(first.pid, signal.SIGCONT)
    assert (first.communicate()[0] != "", first.returncode) == (True, 0)
    assert content(store) == undisturbed[False]


def test_what_a_killed_process_was_writing_does_no_harm(
    log: Log, undisturbed: dict[bool, Content], spec_path: Path, tmp_path: Path
) -> None:
    log.last_day(False)
    store = tmp_path / "samples"
    options = Options(workers=1, partitions=PARTITIONS)
    build_samples(spec_path, log.raw, store, options)
    folders = {path.parent for path in store.rglob("*") if path.is_file()}
    for folder in folders:
        (folder / ".aside-123-part-0000.parquet").write_bytes(b"half of it")
    assert content(store) == undisturbed[False]
    log.last_day(True)
    build_samples(spec_path, log.raw, store, options)
    assert content(store) == undisturbed[True]
    assert not list(store.rglob(".aside-*"))


def test_after_a_power_cut_what_may_not_have_reached_the_disk_is_made_again(
    log: Log,
    undisturbed: dict[bool, Content],
    start: Start,
    spec_path: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A killed build, then another boot of the machine: whatever the build had done is empty, though it was done."""
    store = tmp_path / "samples"
    log.last_day(False)
    build_samples(spec_path, log.raw, store, Options(workers=1, partitions=PARTITIONS))
    settled = files(store)
    for path in settled:
        os.utime(path, (time.time() - 2 * CLOCK_ERROR_S,) * 2)
    log.last_day(True)
    process = start(store)
    assert not finished_before(process, store, 40)
    kill(process, parent_only=False)
    mark = store / UNCOMMITTED
    mark_time = mark.stat().st_mtime
    since = [Path(path) for path in files(store) - settled if path.endswith(".arrow")]
    assert since
    for path in since:
        path.write_bytes(b"")
    # Of a machine that stayed up, such files are damaged: the build says so, and makes them again.
    up = shutil.copytree(store, tmp_path / "up")
    build_samples(spec_path, log.raw, up, Options(workers=1))
    assert "a kept result is damaged" in capsys.readouterr().err
    assert content(up) == undisturbed[True]
    mark.write_text("another boot")
    os.utime(mark, (mark_time, mark_time))
    kept = {path: os.stat(path).st_mtime_ns for path in settled if path.endswith(".arrow")}
    build_samples(spec_path, log.raw, store, Options(workers=1))
    assert "a kept result is damaged" not in capsys.readouterr().err
    assert content(store) == undisturbed[True]
    assert not mark.exists()
    assert any(Path(path).exists() and os.stat(path).st_mtime_ns == time for path, time in kept.items())
