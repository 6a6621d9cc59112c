"""Runs on one rank, in this process."""

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import get_args

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import tyro

from models.config import ModelConfig
from models.heads import HEADS
from pipeline.errors import StrataError
from pipeline.manifest import Manifest
from pipeline.training.config import TrainConfig
from pipeline.training.predict import predict
from pipeline.training.saving.checkpoints import complete_checkpoints, read_progress
from pipeline.training.train import plan_tables, train

Arguments = Callable[..., list[str]]
Run = Callable[..., subprocess.CompletedProcess[str]]
TOWERS = get_args(ModelConfig.model_fields["towers"].annotation)


def validations(run: Path) -> dict[int, float]:
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return {line["step"]: line["loss"] for line in lines if line["split"] == "valid"}


@pytest.mark.slow
def test_patience_ends_a_run_and_the_best_checkpoint_predicts(tmp_path: Path, arguments: Arguments, samples: Path):
    options = "--loop.batch-size 740 --loop.epochs 30 --loop.validate-every 2 --loop.patience 3"
    rates = "--tables.learning-rate 0.3 --dense.learning-rate 0.02 --schedule.decay none"
    progress = train(tyro.cli(TrainConfig, args=arguments(tmp_path / "run", f"{options} {rates}")))
    losses = validations(tmp_path / "run")
    best = min(losses, key=lambda step: losses[step])
    assert list(losses) == list(range(2, best + 3 * 2 + 1, 2))
    before = [loss for step, loss in losses.items() if step <= best]
    assert before != sorted(before, reverse=True)  # a gain gives all patience back
    assert (progress.step, progress.best_loss) == (best + 6, losses[best])
    assert [read_progress(path).step for path in complete_checkpoints(tmp_path / "run")] == [best, best + 4, best + 6]
    assert predict(tmp_path / "run", samples, "test", tmp_path / "predictions").step == best
    # A run that came to its end stays there.
    again = train(tyro.cli(TrainConfig, args=arguments(tmp_path / "run", f"{options} {rates} --resume")))
    assert again == progress
    assert validations(tmp_path / "run") == losses
    # No worse checkpoint is taken in place of a damaged one.
    file = complete_checkpoints(tmp_path / "run")[0] / "rank-00000.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(StrataError, match=rf"step-{best:08d}: is damaged \(rank-00000\.safetensors .*; restore its"):
        predict(tmp_path / "run", samples, "test", tmp_path / "others")
    assert not (tmp_path / "others").exists()


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_at_a_step_with_a_validation_does_not_cancel_it(
    tmp_path: Path, arguments: Arguments, number: signal.Signals, status: int
):
    """A resumed run would not make up for it, and could miss its best checkpoint."""
    usual = signal.getsignal(number)

    def send() -> None:
        while signal.getsignal(number) == usual:
            time.sleep(0.001)
        os.kill(os.getpid(), number)

    sender = threading.Thread(target=send)
    sender.start()
    with pytest.raises(SystemExit) as stopped:
        train(tyro.cli(TrainConfig, args=arguments(tmp_path / "run", "--loop.validate-every 1")))
    sender.join()
    assert stopped.value.code == status
    assert signal.getsignal(number) == usual
    (checkpoint,) = complete_checkpoints(tmp_path / "run")
    progress = read_progress(checkpoint)
    assert progress.step == 1
    assert validations(tmp_path / "run") == {1: progress.valid_loss}


@pytest.mark.slow
def test_a_plan_is_printed_once_and_nothing_is_written(tmp_path: Path, arguments: Arguments, command: Run):
    done = command("train.py", *arguments(tmp_path / "run", "--plan --tables.overrides page row_wise"), ranks=2)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Sharding plan for 2 ranks on cpu, with batches of 185 rows on each.\n")
    assert done.stdout.count("page: fixed by --tables.overrides\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_plan_does_not_care_about_the_folder(tmp_path: Path, arguments: Arguments, manifest: Manifest):
    (tmp_path / "config.json").touch()
    text = plan_tables(tyro.cli(TrainConfig, args=arguments(tmp_path, "--plan")))
    described = [line.split()[:3] for line in text.split("\n\n")[1].splitlines()[1:]]
    sizes = manifest.learned.table_rows
    assert sorted(described) == sorted(
        [name, f"{sizes[name]:,}", str(table.dim)] for name, table in manifest.spec.tables.items()
    )


@pytest.mark.slow
def test_every_head_with_both_towers_learns_and_predicts(
    tmp_path: Path, arguments: Arguments, samples: Path, manifest: Manifest
):
    kinds = list(product(HEADS, TOWERS))
    assert len(kinds) == 12
    steps = "--loop.batch-size 4000 --loop.epochs 1 --loop.validate-every 1 --dense.learning-rate 0.01"
    found = set()
    for head, towers in kinds:
        options = f"{steps} --model.head {head} --model.towers {towers}"
        train(tyro.cli(TrainConfig, args=arguments(tmp_path / head / towers, options)))
        losses = list(validations(tmp_path / head / towers).values())
        assert len(losses) == 2
        assert losses[1] < losses[0]
        found.add(losses[1])
        out = tmp_path / head / towers / "predictions"
        predict(tmp_path / head / towers, samples, "test", out)
        table = pq.read_table(out)
        assert table.num_rows == manifest.rows("test")
        for name, objective in manifest.spec.objectives.items():
            smallest, largest = pc.min_max(table[f"pred_{name}"]).as_py().values()
            assert 0 < smallest < largest < 1 if objective.kind == "binary" else 0 <= smallest <= largest < 1000
            assert table[f"pred_{name}"].null_count == 0
    assert len(found) == 12
