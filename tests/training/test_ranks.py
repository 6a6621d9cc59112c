"""Neither the number of ranks nor the sharding plan changes what a run learns."""

import json
import shutil
from collections.abc import Callable
from itertools import cycle
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from pipeline.manifest import Manifest
from pipeline.training.checkpoints import best_checkpoint
from pipeline.training.chunks import StoredTensors

pytestmark = pytest.mark.slow
TABLE = "model.embeddings.tables.embedding_bags.{}.weight"


def losses(run: Path, split: str = "train") -> np.ndarray:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return np.array([line["loss"] for line in lines if line["split"] == split])


def weights(run: Path) -> dict[str, torch.Tensor]:
    """Every tensor of the model, put together from its chunks."""
    with StoredTensors(best_checkpoint(run)) as stored:
        return {name: stored.read(name) for name in stored.shapes if name.startswith("model.")}


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
    steady = "--schedule.warmup 0 --schedule.decay none --loop.epochs"

    def train(ranks: int, **options: str) -> None:
        train_all(ranks, [arguments(folder / f"{name}-{ranks}", option) for name, option in options.items()])

    by_rows, replicated = plan("row_wise"), plan("data_parallel")
    train(
        1,
        planned="",
        frozen="--tables.learning-rate 1e-9",
        longer=f"{steady} 2",
        grown=f"{steady} 1 {replicated}",
    )
    (folder / "grown-1").rename(folder / "grown-2")
    train(
        2,
        planned="",
        by_rows=by_rows,
        replicated=replicated,
        mixed=mixed,
        longer=f"{steady} 1 {mixed}",
        grown=f"{steady} 2 --resume {by_rows}",
    )
    other = plan("table_wise", "row_wise", "data_parallel")
    shutil.copytree(folder / "longer-2", folder / "shrunk-1")
    (folder / "longer-2").rename(folder / "longer-3")
    train(3, mixed=mixed, longer=f"{steady} 2 --resume {other}")
    train(1, shrunk=f"{steady} 2 --resume {by_rows}")
    return folder


@pytest.mark.parametrize("other", ["planned-2", "by_rows-2", "replicated-2", "mixed-2", "mixed-3"])
def test_losses_and_weights_are_those_of_one_rank(runs: Path, other: str):
    alone = losses(runs / "planned-1")
    assert len(alone) == 20
    np.testing.assert_allclose(losses(runs / other), alone, rtol=1e-5)
    np.testing.assert_allclose(losses(runs / other, "valid"), losses(runs / "planned-1", "valid"), rtol=1e-5)
    expected, found = weights(runs / "planned-1"), weights(runs / other)
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-3, atol=1e-4, msg=lambda m, n=name: f"{n}: {m}")


def test_the_plans_are_what_they_are_called(runs: Path):
    assert [shards(runs / f"{plan}-2", "user") for plan in ("by_rows", "replicated", "mixed")] == [2, 1, 2]
    assert [shards(runs / "mixed-3", table) for table in ("user", "video")] == [3, 1]


def test_the_tables_matter_to_the_losses(runs: Path):
    """Otherwise the losses above could not tell whether their updates are right."""
    difference = abs(losses(runs / "frozen-1") - losses(runs / "planned-1")) / losses(runs / "planned-1")
    assert difference[10:].max() > 1e-3
    before, after = weights(runs / "frozen-1"), weights(runs / "planned-1")
    for table in ("user", "video", "page"):
        assert (before[TABLE.format(table)] - after[TABLE.format(table)]).abs().max() > 0.05


@pytest.mark.parametrize("other", ["longer-3", "grown-2", "shrunk-1"])
def test_a_run_goes_on_with_other_ranks_and_another_plan(runs: Path, other: str):
    """Its first epoch was that of 2 ranks, of 1, of 2; every table changes its kind of sharding in one of them."""
    alone = losses(runs / "longer-1")
    assert len(alone) == 40
    np.testing.assert_allclose(losses(runs / other), alone, rtol=1e-5)
