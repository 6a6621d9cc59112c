"""A run that was stopped in any way goes on as if it had never stopped."""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from pipeline.training.saving.checkpoints import complete_checkpoints, damage, read_progress
from pipeline.training.saving.tensor_files import StoredTensors
from tests.training.conftest import Launched
from tests.training.rank_process import TRAIN

pytestmark = pytest.mark.slow
Launch = Callable[..., Launched]
# 2 epochs of 40 steps, with dropout, and with validations and checkpoints that are not at the epochs' ends.
LONG = "--loop.epochs 2 --loop.batch-size 185 --loop.validate-every 30 --loop.patience 0 --model.dropout 0.3"
OFTEN = "--checkpoints.every 7"


def lines(run: Path) -> list[dict[str, object]]:
    path = run / "metrics.jsonl"
    found = path.read_text().splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in found if line.endswith("\n")]


def losses(run: Path) -> dict[tuple[object, object], object]:
    """Losses by step and split. A line that occurs twice is an error."""
    found = {(line["step"], line["split"]): line["loss"] for line in lines(run)}
    assert len(found) == len(lines(run))
    return found


def changed(path: Path, since: int) -> bool:
    """Since a time in ns; False if it is gone."""
    try:
        return path.stat().st_mtime_ns > since
    except FileNotFoundError:
        return False


def has_logged(run: Path, step: int) -> Callable[[], bool]:
    """Whether a process that is started now has logged a step."""
    now = time.time_ns()
    metrics = run / "metrics.jsonl"
    return lambda: changed(metrics, now) and bool(lines(run)) and int(str(lines(run)[-1]["step"])) >= step


def is_saving(run: Path) -> Callable[[], bool]:
    """Whether a process that is started now has begun to write a checkpoint, under its temporary name."""
    now = time.time_ns()
    return lambda: any(changed(path, now) for path in (run / "checkpoints").glob(".step-*.partial/*"))


def half_written(run: Path) -> list[str]:
    return [path.name for path in (run / "checkpoints").glob(".*")]


def newest_step(run: Path) -> int:
    return read_progress(complete_checkpoints(run)[-1]).step


def assert_same(run: Path, other: Path) -> None:
    """The same losses in every step, and the same bits in the last checkpoint: model, Adam, Adagrad."""
    assert losses(run) == losses(other)
    ends = [complete_checkpoints(folder)[-1] for folder in (run, other)]
    assert read_progress(ends[0]) == read_progress(ends[1])
    with StoredTensors(ends[0]) as found, StoredTensors(ends[1]) as expected:
        assert found.shapes == expected.shapes
        for kind in ("model.embeddings.", "model.network.towers.", "optimisers.adam.", "optimisers.tables."):
            assert any(name.startswith(kind) for name in found.shapes), kind
        assert all(torch.equal(found.read(name), expected.read(name)) for name in found.shapes)


@pytest.fixture(scope="module")
def uninterrupted(
    tmp_path_factory: pytest.TempPathFactory,
    arguments: Callable[..., list[str]],
    train_all: Callable[[int, list[list[str]]], None],
) -> Path:
    """Runs of one rank and of two, in the folders `1` and `2`, whose checkpoints are those of validations."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    for ranks in (1, 2):
        train_all(ranks, [arguments(folder / str(ranks), LONG)])
    return folder


def test_ctrl_c_leaves_no_trace_in_the_result(
    tmp_path: Path, uninterrupted: Path, arguments: Callable[..., list[str]], launch: Launch
):
    run = tmp_path / "run"
    words = arguments(run, LONG)
    stopped = launch(0, [words])
    stopped.kill_when(has_logged(run, 6), signal.SIGINT)
    assert stopped.wait() == [130], stopped.output()
    assert "interrupted after step" in stopped.output()
    assert "Traceback" not in stopped.output()
    step = newest_step(run)
    assert 6 <= step < 40
    assert lines(run)[-1]["step"] == step
    with (run / "metrics.jsonl").open("a") as metrics:
        metrics.write('{"step": 44, "split": "tra')  # what a process that was killed while it logged leaves

    resumed = launch(0, [[*words, "--resume"]])
    assert resumed.wait() == [0], resumed.output()
    assert f"resuming from {run}/checkpoints/step-{step:08d}" in resumed.output()
    assert f"{run}: 80 steps, lowest validation loss " in resumed.output()
    assert_same(run, uninterrupted / "1")


def test_sudden_deaths_leave_no_trace_in_the_result(
    tmp_path: Path, uninterrupted: Path, arguments: Callable[..., list[str]], launch: Launch
):
    """At random steps, before the first checkpoint and after it, and twice while one is being written."""
    run = tmp_path / "run"
    words = [*arguments(run, f"{LONG} {OFTEN}"), "--resume"]
    drawn = random.Random(20261121)
    left = []
    for moment in ((1, 7), "saving", (16, 50), "saving", (55, 78)):
        ready = is_saving(run) if moment == "saving" else has_logged(run, drawn.randrange(*moment))
        killed = launch(0, [words])
        killed.kill_when(ready)
        assert killed.wait() == [-signal.SIGKILL], killed.output()
        left += half_written(run)
        assert not any(damage(checkpoint) for checkpoint in complete_checkpoints(run))
    assert left  # at least one was killed while it saved
    done = launch(0, [words])
    assert done.wait() == [0], done.output()
    assert "resuming from" in done.output()
    assert half_written(run) == []
    assert [read_progress(path).step for path in complete_checkpoints(run)] == [77, 80]
    assert_same(run, uninterrupted / "1")


def test_torchrun_recovers_by_itself_when_a_rank_is_killed(
    tmp_path: Path, uninterrupted: Path, arguments: Callable[..., list[str]], environment: dict[str, str]
):
    """The first rank before the first checkpoint, another one in the second epoch."""
    run = tmp_path / "run"
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "--max-restarts=2"]
    words = [*torchrun, str(TRAIN), *arguments(run, LONG)]
    process = subprocess.Popen(words, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True)
    try:
        for rank, step in ((0, 5), (1, 47)):
            ready = has_logged(run, step)
            while process.poll() is None and not ready():
                time.sleep(0.005)
            os.kill(worker(process.pid, rank), signal.SIGKILL)
            while process.poll() is None and ready():
                time.sleep(0.005)  # until the lines after the last checkpoint are dropped
        errors = process.communicate(timeout=120)[1]
    finally:
        os.killpg(process.pid, signal.SIGKILL) if process.poll() is None else None
    assert process.returncode == 0, errors
    assert errors.count("resuming from") == 1
    assert f"resuming from {run}/checkpoints/step-00000030" in errors
    assert_same(run, uninterrupted / "2")


def worker(torchrun: int, rank: int) -> int:
    """The process of a rank, among the children of torchrun's."""
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has just ended
            mine = f"\nPPid:\t{torchrun}\n" in (process / "status").read_text()
            if mine and f"RANK={rank}".encode() in (process / "environ").read_bytes().split(b"\0"):
                return int(process.name)
    raise AssertionError(f"there is no rank {rank}")


def test_sigterm_to_torchrun_saves_and_a_damaged_checkpoint_is_passed_over(
    tmp_path: Path,
    uninterrupted: Path,
    arguments: Callable[..., list[str]],
    environment: dict[str, str],
    launch: Launch,
):
    run = tmp_path / "run"
    words = arguments(run, f"{LONG} {OFTEN}")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(TRAIN)]
    process = subprocess.Popen(
        [*torchrun, *words], env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    ready = has_logged(run, 20)
    while process.poll() is None and not ready():
        time.sleep(0.005)
    process.send_signal(signal.SIGTERM)
    errors = process.communicate(timeout=60)[1]
    assert process.returncode != 0
    assert errors.count("interrupted after step") == 1
    *_, before, newest = complete_checkpoints(run)
    assert 20 <= newest_step(run) < 80
    assert half_written(run) == []

    file = newest / "rank-00001.safetensors"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    resumed = launch(2, [[*words, "--resume"]])
    assert resumed.wait() == [0, 0], resumed.output()
    output = resumed.output()
    assert output.count(f"{newest} is damaged (rank-00001.safetensors is not what SHA256SUMS says)") == 1
    assert output.count(f"resuming from {before}\n") == 1
    assert (newest.parent / f"{newest.name}.damaged").is_dir()
    assert_same(run, uninterrupted / "2")
