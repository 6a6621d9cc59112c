"""Steps whose loss or gradient is not finite, on real ranks: they are skipped, counted and in the end explained."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import tyro

from pipeline.columns import SAMPLE_ID, feature_column, label_column, mask_column, scene_column
from pipeline.errors import StrataError
from pipeline.manifest import Manifest
from pipeline.training.config import TrainConfig
from pipeline.training.saving.checkpoints import best_checkpoint, read_progress
from pipeline.training.saving.tensor_files import StoredTensors
from pipeline.training.train import train
from tests.training.altered import altered, replaced

pytestmark = pytest.mark.slow


def first_row_infinite(table: pa.Table) -> pa.Table:
    values = table[feature_column("age_days")].to_numpy().copy()
    values[0] = np.inf
    return replaced(table, feature_column("age_days"), pa.array(values))


def clicks_missing(table: pa.Table) -> pa.Table:
    """Every row claims a click label that is no number."""
    return replaced(table, label_column("click"), pa.array(np.full(table.num_rows, np.nan)))


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_step_that_is_not_finite_is_skipped_by_all_ranks_and_counted(
    tmp_path: Path, arguments: Callable[..., list[str]], train_all, samples: Path, ranks: int
):
    """One row of one file spoils one step. That step changes nothing, and all other steps train."""
    spoilt = altered(samples, tmp_path / "samples", first_row_infinite, files=1)
    train_all(ranks, [arguments(tmp_path / "run", f"--samples {spoilt}")])
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["skipped"] for line in lines if line["split"] == "train"][-1] == 1
    assert all(np.isfinite(line["loss"]) for line in lines)
    progress = read_progress(best_checkpoint(tmp_path / "run"))
    assert (progress.step, progress.skipped) == (20, 1)
    with StoredTensors(best_checkpoint(tmp_path / "run")) as stored:
        steps = {stored.read(name).item() for name in stored.shapes if name.endswith(".step")}
        assert all(stored.read(name).isfinite().all() for name in stored.shapes)
    assert steps == {19.0}


@pytest.mark.parametrize("ranks", [1, 2])
def test_many_in_a_row_end_the_run_and_name_objective_scene_and_samples(
    tmp_path: Path, arguments: Callable[..., list[str]], launch, samples: Path, manifest: Manifest, ranks: int
):
    spoilt = altered(samples, tmp_path / "samples", clicks_missing)
    launched = launch(ranks, [arguments(tmp_path / "run", f"--samples {spoilt} --loop.bad-steps 3")])
    assert launched.wait() == [2] * ranks
    (line,) = [line for line in launched.output().splitlines() if "error" in line]
    found = re.search(r"3 steps in a row, the last of them 3, had no finite gradient \((.*)\); look at these", line)
    assert found, line
    assert found[1].startswith("`click` in scene `discover`: sample ")
    assert "scene `player`" not in found[1]
    assert "`stay`" not in found[1]
    named = set(map(int, re.findall(r"\d+", found[1].partition(" and ")[0])))
    rows = pq.read_table(
        [samples / file.path for file in manifest.files if file.split == "train"],
        columns=[SAMPLE_ID, mask_column("click"), scene_column("discover")],
    )
    learning = rows.filter(pc.and_(rows[mask_column("click")], rows[scene_column("discover")]))
    assert len(named) == 5
    assert named <= set(learning[SAMPLE_ID].to_pylist())
    assert not list((tmp_path / "run").glob("checkpoints/step-*"))  # of a model that never trained


def test_a_resumed_run_goes_on_counting(tmp_path: Path, arguments: Callable[..., list[str]], samples: Path):
    """A run ends after the fifth bad step in a row. Resumed after the fourth, it ends after one more."""
    spoilt = altered(samples, tmp_path / "samples", clicks_missing)
    options = f"--samples {spoilt} --loop.bad-steps 5 --checkpoints.every 4"
    for resume in ("", "--resume"):
        with pytest.raises(StrataError, match="5 steps in a row, the last of them 5, had no finite gradient"):
            train(tyro.cli(TrainConfig, args=arguments(tmp_path / "run", f"{options} {resume}")))
        progress = read_progress(best_checkpoint(tmp_path / "run"))
        assert (progress.step, progress.skipped, progress.skipped_in_a_row) == (4, 4, 4)
