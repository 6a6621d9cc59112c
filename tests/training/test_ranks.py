"""Neither the number of ranks nor the sharding plan changes what a run learns."""

import json
import shutil
from collections.abc import Callable
from itertools import cycle
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

from pipeline.manifest import Manifest
from pipeline.training.predict import predict
from pipeline.training.saving.checkpoints import best_checkpoint
from pipeline.training.saving.tensor_files import StoredTensors

pytestmark = pytest.mark.slow
TABLE = "model.embeddings.tables.embedding_bags.{}.weight"


def losses(run: Path, split: str = "train") -> np.ndarray:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return np.array([line["loss"] for line in lines if line["split"] == split])


def weights(run: Path) -> dict[str, torch.Tensor]:
    """Every tensor of the model, put together from its shards."""
    with StoredTensors(best_checkpoint(run)) as stored:
        return {name: stored.read(name) for name in stored.shapes if name.startswith("model.")}


def distance(run: Path, other: Path, table: str) -> float:
    """The mean distance between the weights of a table."""
    here, there = (weights(which)[TABLE.format(table)] for which in (run, other))
    return (here - there).abs().mean().item()


def shards(run: Path, table: str) -> int:
    keys = [key for path in best_checkpoint(run).glob("*.safetensors") for key in load_file(path)]
    return sum(key.partition("@")[0] == TABLE.format(table) for key in keys)


@pytest.fixture(scope="module")
def runs(
    tmp_path_factory: pytest.TempPathFactory,
    arguments: Callable[..., list[str]],
    train_all: Callable[[int, list[list[str]]], None],
    manifest: Manifest,
) -> Path:
    """Folders named <plan>-<ranks>."""
    folder = tmp_path_factory.mktemp("runs")
    tables = list(manifest.spec.tables)

    def plan(*kinds: str) -> str:
        pairs = zip(tables, cycle(kinds), strict=False)
        return "--tables.overrides " + " ".join(f"{table} {kind}" for table, kind in pairs)

    mixed = plan("row_wise", "data_parallel", "table_wise")
    columns = f"{plan('column_wise')} --tables.column-width 8"
    steady = "--schedule.warmup 0 --schedule.decay none --loop.epochs"
    half = "--tables.weights fp16"

    def train(ranks: int, **options: str) -> None:
        train_all(ranks, [arguments(folder / f"{name}-{ranks}", option) for name, option in options.items()])

    by_rows, replicated = plan("row_wise"), plan("data_parallel")
    train(
        1,
        planned="",
        frozen="--tables.learning-rate 1e-9",
        half=half,
        longer=f"{steady} 2",
        longer_columns=f"{steady} 2 {columns}",
        grown=f"{steady} 1 {replicated}",
    )
    (folder / "grown-1").rename(folder / "grown-2")
    train(
        2,
        planned="",
        by_rows=by_rows,
        by_machine=plan("table_row_wise"),
        half=f"{half} {mixed}",
        hurried=f"--tables.communication fp16 {plan('row_wise', 'table_wise')}",
        replicated=replicated,
        mixed=mixed,
        longer=f"{steady} 1 {mixed}",
        longer_columns=f"{steady} 1 {columns}",
        grown=f"{steady} 2 --resume {by_rows}",
    )
    other = plan("table_wise", "row_wise", "data_parallel")
    shutil.copytree(folder / "longer-2", folder / "shrunk-1")
    for name in ("longer", "longer_columns"):
        (folder / f"{name}-2").rename(folder / f"{name}-3")
    train(3, mixed=mixed, longer=f"{steady} 2 --resume {other}", longer_columns=f"{steady} 2 --resume {columns}")
    train(1, shrunk=f"{steady} 2 --resume {by_rows}")
    return folder


@pytest.mark.parametrize("other", ["planned-2", "by_rows-2", "by_machine-2", "replicated-2", "mixed-2", "mixed-3"])
def test_losses_and_weights_are_those_of_one_rank(runs: Path, other: str):
    one_rank = losses(runs / "planned-1")
    assert len(one_rank) == 20
    np.testing.assert_allclose(losses(runs / other), one_rank, rtol=1e-5)
    np.testing.assert_allclose(losses(runs / other, "valid"), losses(runs / "planned-1", "valid"), rtol=1e-5)
    expected, found = weights(runs / "planned-1"), weights(runs / other)
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-3, atol=1e-4, msg=lambda m, n=name: f"{n}: {m}")


def test_the_plans_are_what_they_are_called(runs: Path):
    assert [shards(runs / f"{plan}-2", "user") for plan in ("by_rows", "replicated", "mixed")] == [2, 1, 2]
    assert [shards(runs / f"longer_columns-{ranks}", "user") for ranks in (1, 3)] == [2, 2]
    assert [shards(runs / "mixed-3", table) for table in ("user", "video")] == [3, 1]


def test_the_tables_matter_to_the_losses(runs: Path):
    """Otherwise the tests above could not tell whether the updates of tables are right."""
    difference = abs(losses(runs / "frozen-1") - losses(runs / "planned-1")) / losses(runs / "planned-1")
    assert difference[10:].max() > 1e-3
    before, after = weights(runs / "frozen-1"), weights(runs / "planned-1")
    for table in ("user", "video", "page"):
        assert (before[TABLE.format(table)] - after[TABLE.format(table)]).abs().max() > 0.05


@pytest.mark.parametrize("other", ["longer-3", "grown-2", "shrunk-1"])
def test_a_run_goes_on_with_other_ranks_and_another_plan(runs: Path, other: str):
    """The first epochs had 2 ranks, 1 and 2. Every table changes its kind of sharding in one of the runs."""
    one_rank = losses(runs / "longer-1")
    assert len(one_rank) == 40
    np.testing.assert_allclose(losses(runs / other), one_rank, rtol=1e-5)


def test_a_run_with_divided_columns_goes_on_with_other_ranks(runs: Path):
    # After the first epoch, which ends before the change, rounding on other ranks grows a little beyond 1e-5.
    np.testing.assert_allclose(losses(runs / "longer_columns-3"), losses(runs / "longer_columns-1"), rtol=3e-5)


def test_divided_columns_learn_nearly_as_rows_do(runs: Path):
    """The first step is the same; then each half of a row has a rate of its own (see test_sharding.py)."""
    rows, columns = losses(runs / "longer-1"), losses(runs / "longer_columns-1")
    assert columns[0] == pytest.approx(rows[0], rel=1e-6)
    np.testing.assert_allclose(columns, rows, rtol=0.02)
    assert abs(columns / rows - 1).max() > 1e-4


def test_less_precise_communication_changes_little(runs: Path):
    np.testing.assert_allclose(losses(runs / "hurried-2"), losses(runs / "planned-1"), rtol=1e-4)
    for table in ("user", "video"):  # one by rows, one whole
        assert 3e-6 < distance(runs / "hurried-2", runs / "planned-1", table) < 5e-3
        assert distance(runs / "planned-2", runs / "planned-1", table) < 3e-7


@pytest.mark.parametrize("other", ["half-1", "half-2"])
def test_less_precise_weights_learn_the_same(runs: Path, other: str, samples: Path, tmp_path: Path):
    np.testing.assert_allclose(losses(runs / other), losses(runs / "planned-1"), rtol=1e-4)
    assert 3e-6 < distance(runs / other, runs / "planned-1", "user") < 1e-3
    predictions = {}
    for run in (other, "planned-1"):
        predict(runs / run, samples, "test", tmp_path / run)
        predictions[run] = pq.read_table(tmp_path / run)["pred_click"].to_numpy()
    np.testing.assert_allclose(predictions[other], predictions["planned-1"], atol=0.01)
