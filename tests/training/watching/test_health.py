"""Warnings of a validation whose loss is finite."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pytest
import torch
import tyro
from torchrec import KeyedJaggedTensor

from models.config import ModelConfig
from models.losses import Objectives
from models.ranker import Network
from models.towers import OutputLayout
from pipeline.batches.batch import Batch
from pipeline.columns import feature_column
from pipeline.manifest import Manifest
from pipeline.training.config import TrainConfig
from pipeline.training.processes import process_group
from pipeline.training.train import train
from pipeline.training.watching.health import Health
from tests.training.altered import altered, replaced

ROWS, D = 500, 6


@pytest.fixture
def group() -> Iterator[None]:
    with process_group("cpu"):
        yield


@pytest.fixture
def network(manifest: Manifest) -> Network:
    torch.manual_seed(0)
    layout = OutputLayout.from_spec(manifest.spec, "objective")
    return Network(D, layout, ModelConfig(head="mmoe", shared_experts=3, expert=(16,), tower=(8,)))


def warnings(network: Network, manifest: Manifest, sums: dict[str, torch.Tensor] | None = None) -> list[str]:
    spec = manifest.spec
    objectives = Objectives(spec, OutputLayout.from_spec(spec, "objective"))
    everything = torch.ones(ROWS, len(spec.objectives), dtype=torch.bool)
    scenes = torch.ones(ROWS, len(spec.scenes), dtype=torch.bool)
    nothing = KeyedJaggedTensor(keys=[], values=torch.empty(0), lengths=torch.empty(0, dtype=torch.int32))
    batch = Batch(nothing, torch.empty(0), everything.float(), everything, scenes, torch.ones(ROWS))
    with Health(spec, objectives, network) as health, torch.no_grad():
        health.add(network(torch.randn(ROWS, D)), batch)
    health.gather()
    return health.warnings(sums or {})


def test_nothing_is_said_of_a_network_that_has_just_begun(group, network: Network, manifest: Manifest):
    assert warnings(network, manifest, {"bags.user.weight": torch.tensor([0.0, 1e-9])}) == []


def test_a_dead_objective_is_named_with_its_scene(group, network: Network, manifest: Manifest):
    at = list(manifest.spec.objectives).index("click")
    torch.nn.init.constant_(network.towers.towers[at].hidden[0].bias, -1e3)  # all its ReLUs are off
    assert warnings(network, manifest) == ["`click` is dead: all rows of scene `discover` get the same prediction"]


@pytest.mark.parametrize(
    ("scale", "words"), [(1e4, "has collapsed: one expert"), (0.0, "does not choose: its experts")]
)
def test_a_gate_at_either_end_is_named(group, network: Network, manifest: Manifest, scale: float, words: str):
    with torch.no_grad():
        network.head.gates[1].scores.weight.mul_(scale)
    (line,) = warnings(network, manifest)
    assert line.startswith(f"gate `head.gates.1` {words}")


def test_entropy_is_that_of_the_formula(group, network: Network, manifest: Manifest):
    x = torch.randn(ROWS, D)
    objectives = Objectives(manifest.spec, OutputLayout.from_spec(manifest.spec, "objective"))
    with Health(manifest.spec, objectives, network) as health, torch.no_grad():
        network(x)
        health._rows += ROWS
        scores = x @ network.head.gates[0].scores.weight.T
    g = torch.distributions.Categorical(logits=scores)
    assert health.entropies["head.gates.0"] == pytest.approx(g.entropy().mean().item() / torch.tensor(3.0).log().item())


def test_a_table_that_gets_no_gradient_is_warned_of_in_the_log_and_the_metrics(
    tmp_path: Path, arguments: Callable[..., list[str]], samples: Path, capfd: pytest.CaptureFixture[str]
):
    """The tags are gone from all training rows."""

    def without_tags(table: pa.Table) -> pa.Table:
        column = feature_column("tags")
        return replaced(table, column, pa.array([[]] * table.num_rows, table.schema.field(column).type))

    store = altered(samples, tmp_path / "samples", without_tags)
    words = arguments(tmp_path / "run", f"--samples {store} --loop.batch-size 2000")
    train(tyro.cli(TrainConfig, args=words))
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    (validation,) = [line for line in lines if line["split"] == "valid"]
    assert validation["warnings"] == ["table `tag` gets no gradient"]
    assert "warning: table `tag` gets no gradient" in capfd.readouterr().err
