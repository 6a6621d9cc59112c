"""A run that was stopped, however, goes on as if it had not been."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.distributed.checkpoint import FileSystemReader
from torch.distributed.checkpoint.state_dict_loader import load

from pipeline.training.checkpoints import complete_checkpoints, read_progress

pytestmark = pytest.mark.slow
TRAIN = Path(__file__).parents[2] / "scripts" / "train.py"
# 2 epochs of 40 steps, with validations that are not at their ends.
LONG = "--loop.epochs 2 --loop.batch-size 185 --loop.validate-every 30 --loop.patience 0"
DROPOUT = "--model.dropout 0.3"


def lines(run: Path) -> list[dict[str, object]]:
    path = run / "metrics.jsonl"
    found = path.read_text().splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in found if line.endswith("\n")]


def losses(run: Path) -> dict[tuple[object, object], object]:
    """By step and split; a line that is there twice is an error."""
    found = {(line["step"], line["split"]): line["loss"] for line in lines(run)}
    assert len(found) == len(lines(run))
    return found


def state(run: Path) -> dict[str, torch.Tensor]:
    """All tensors of the newest checkpoint: the model's and the optimisers'."""
    newest = complete_checkpoints(run)[-1]
    described = FileSystemReader(newest).read_metadata().state_dict_metadata
    tensors = {name: torch.empty(tensor.size) for name, tensor in described.items()}
    load(tensors, checkpoint_id=newest, no_dist=True)
    return tensors


def stop(words: list[str], environment: dict[str, str], run: Path, number: int, after: int) -> tuple[int, str]:
    """Starts a run, sends it a signal when it has logged `after` steps, and returns its status and stderr."""
    process = subprocess.Popen(words, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True)
    try:
        while process.poll() is None and (not lines(run) or lines(run)[-1]["step"] < after):
            time.sleep(0.005)
        os.kill(process.pid, number)
        errors = process.communicate(timeout=60)[1]
    finally:
        process.kill()
    return process.returncode, errors


@pytest.fixture(scope="module")
def uninterrupted(
    tmp_path_factory: pytest.TempPathFactory,
    arguments: Callable[..., list[str]],
    train_all: Callable[[int, list[list[str]]], None],
) -> Path:
    folder = tmp_path_factory.mktemp("uninterrupted")
    train_all(1, [arguments(folder / "plain", LONG), arguments(folder / "dropout", f"{LONG} {DROPOUT}")])
    return folder


def test_ctrl_c_and_sudden_death_leave_no_trace_in_the_result(
    tmp_path: Path, uninterrupted: Path, arguments: Callable[..., list[str]], environment: dict[str, str]
):
    run = tmp_path / "run"
    words = [sys.executable, str(TRAIN), *arguments(run, f"{LONG} {DROPOUT}")]

    status, errors = stop(words, environment, run, signal.SIGINT, after=6)
    assert status == 130
    assert "interrupted after step" in errors
    assert "Traceback" not in errors
    step = read_progress(complete_checkpoints(run)[-1]).step
    assert 6 <= step < 40
    assert lines(run)[-1]["step"] == step

    # What a process that was killed while it saved, or while it logged, would leave behind.
    checkpoints = run / "checkpoints"
    (checkpoints / ".step-00000044.partial").mkdir()
    (checkpoints / "step-00000045").mkdir()
    with (run / "metrics.jsonl").open("a") as metrics:
        metrics.write('{"step": 44, "split": "tra')

    status, errors = stop([*words, "--resume"], environment, run, signal.SIGKILL, after=50)
    assert status == -signal.SIGKILL
    assert f"resuming from {checkpoints}/step-{step:08d}" in errors
    assert read_progress(complete_checkpoints(run)[-1]).step in (30, 60)  # of the last validation
    assert lines(run)[-1]["step"] >= 50

    done = subprocess.run([*words, "--resume"], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{run}: 80 steps, lowest validation loss ")
    assert losses(run) == losses(uninterrupted / "dropout")
    expected, found = state(uninterrupted / "dropout"), state(run)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def test_sigterm_to_torchrun_saves_and_the_run_goes_on(
    tmp_path: Path, uninterrupted: Path, arguments: Callable[..., list[str]], environment: dict[str, str]
):
    run = tmp_path / "run"
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    words = [*torchrun, str(TRAIN), *arguments(run, LONG)]

    status, errors = stop(words, environment, run, signal.SIGTERM, after=20)
    assert status != 0
    assert errors.count("interrupted after step") == 1
    step = read_progress(complete_checkpoints(run)[-1]).step
    assert 20 <= step < 80

    done = subprocess.run([*words, "--resume"], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("resuming from") == 1
    found, expected = losses(run), losses(uninterrupted / "plain")
    assert found.keys() == expected.keys()
    np.testing.assert_allclose(list(found.values()), [expected[key] for key in found], rtol=2e-5)
