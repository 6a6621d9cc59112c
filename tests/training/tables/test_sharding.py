"""Tables on one rank, against row-wise Adagrad by hand; tests of several ranks are in test_ranks.py."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torchrec import KeyedJaggedTensor
from torchrec.distributed import DistributedModelParallel

from models.config import ModelConfig
from models.ranker import Ranker
from pipeline.manifest import Manifest
from pipeline.training.processes import Rank, process_group
from pipeline.training.saving.checkpoints import Progress, checkpoint_path
from pipeline.training.saving.saver import Saver
from pipeline.training.saving.tensor_files import load_state, local_shards, write_tensors
from pipeline.training.stepping.optimisers import DenseConfig, Optimisers
from pipeline.training.tables.config import TablesConfig
from pipeline.training.tables.plan import TablePlan, plan_together
from pipeline.training.tables.plan_text import size
from pipeline.training.tables.sharding import shard

Batches = list[tuple[KeyedJaggedTensor, Tensor]]
B = 64
RATE = 0.1
USER = "embeddings.tables.embedding_bags.user.weight"


@pytest.fixture(autouse=True)
def rank() -> Iterator[Rank]:
    with process_group("cpu") as rank:
        yield rank


@pytest.fixture
def plan(manifest: Manifest, samples: Path, rank: Rank):
    """`plan("column_wise", column_width=4)`: a model, a plan that shards all its tables so, and what was asked for."""

    def plan(kind: str, **options: object) -> tuple[Ranker, TablePlan, TablesConfig]:
        options = {"sharding": [kind], "learning_rate": RATE, "init_std": 0.5} | options
        config = TablesConfig.model_validate(options)
        torch.manual_seed(0)
        ranker = Ranker(manifest.spec, manifest.learned.table_rows, ModelConfig(), torch.device("meta"))
        return ranker, plan_together(ranker, manifest.spec, samples, config, B, rank), config

    return plan


@pytest.fixture
def make(plan, rank: Rank):
    """`make("column_wise", column_width=4)`: a model with all tables sharded so, and its optimisers."""

    def make(kind: str, **options: object) -> tuple[DistributedModelParallel, Optimisers]:
        ranker, planned, config = plan(kind, **options)
        model = shard(ranker, planned, config, rank, seed=3)
        return model, Optimisers(model, DenseConfig(), config)

    return make


@pytest.fixture
def batches(manifest: Manifest) -> Batches:
    """Ids that come up again and again; every bag has one."""
    generator = torch.Generator().manual_seed(0)
    spec = manifest.spec
    made = []
    for _ in range(3):
        ids = [torch.randint(3, (B,), generator=generator) for _ in spec.sparse_features]
        lengths = torch.ones(B * len(ids), dtype=torch.int64)
        sparse = KeyedJaggedTensor(keys=list(spec.sparse_features), values=torch.cat(ids), lengths=lengths)
        made.append((sparse, torch.randn(B, len(spec.dense_features), generator=generator)))
    return made


def train(model: DistributedModelParallel, optimisers: Optimisers, batches: Batches) -> list[float]:
    losses = []
    for sparse, dense in batches:
        optimisers.set_rate(1.0)
        loss = (model(sparse, dense) ** 2).sum()
        losses.append(loss.item())
        loss.backward()
    return losses


def whole(
    model: DistributedModelParallel, optimisers: Optimisers, manifest: Manifest, folder: Path
) -> tuple[Ranker, Path]:
    """The unsharded model with the same weights, and the checkpoint that it was made from."""
    state = {"model": model.state_dict(), "optimisers": optimisers.state()}
    folder.mkdir(exist_ok=True)
    write_tensors(folder / "rank-00000.safetensors", {shard.key: shard.tensor for shard in local_shards(state)})
    ranker = Ranker(manifest.spec, manifest.learned.table_rows, ModelConfig(), torch.device("cpu"))
    load_state(folder, {"model": ranker.state_dict()})
    return ranker, folder


def by_hand(ranker: Ranker, columns: int, batches: Batches) -> list[float]:
    """Trains the tables of `ranker`; every `columns` columns of a row have a sum of their own."""
    weights = dict(ranker.embeddings.tables.named_parameters())
    sums = {name: torch.zeros(len(w), max(1, w.shape[1] // columns), 1) for name, w in weights.items()}
    losses = []
    for sparse, dense in batches:
        loss = (ranker(sparse, dense) ** 2).sum()
        losses.append(loss.item())
        loss.backward()
        for name, weight in weights.items():
            assert weight.grad is not None
            blocks = weight.grad.view(len(weight), len(sums[name][0]), -1)
            sums[name] += blocks.square().mean(dim=2, keepdim=True)
            with torch.no_grad():
                weight -= (RATE * blocks / (sums[name].sqrt() + 1e-8)).view_as(weight)
        ranker.zero_grad()
    return losses


@pytest.mark.parametrize(("kind", "columns"), [("table_wise", 16), ("column_wise", 8), ("column_wise", 4)])
def test_the_fused_update_is_row_wise_adagrad_of_every_shard(
    make, batches, manifest: Manifest, tmp_path: Path, kind: str, columns: int
):
    model, optimisers = make(kind, column_width=columns)
    reference, _ = whole(model, optimisers, manifest, tmp_path / "before")
    expected = by_hand(reference, columns, batches)
    torch.testing.assert_close(train(model, optimisers, batches), expected, rtol=1e-4, atol=0)
    after, _ = whole(model, optimisers, manifest, tmp_path / "after")
    torch.testing.assert_close(after.state_dict(), reference.state_dict(), rtol=1e-4, atol=1e-5)


def test_columns_begin_as_rows_do(make, manifest: Manifest, tmp_path: Path):
    divided, _ = whole(*make("column_wise", column_width=4), manifest, tmp_path / "divided")
    undivided, _ = whole(*make("table_wise"), manifest, tmp_path / "undivided")
    torch.testing.assert_close(divided.state_dict(), undivided.state_dict(), rtol=0, atol=0)


def sums(optimisers: Optimisers) -> Tensor:
    return torch.cat([local.tensor for local in optimisers.state()["tables"][USER].local_shards()])


def test_sums_of_columns_go_on_in_any_plan(make, batches, manifest: Manifest, tmp_path: Path):
    """Rows go on with the mean of their shards, new shards with that of the row; the same shards with their own."""
    model, optimisers = make("column_wise", column_width=4)
    train(model, optimisers, batches)
    _, checkpoint = whole(model, optimisers, manifest, tmp_path)
    own = sums(optimisers).view(4, -1)
    assert own[:, :3].min() > 0
    assert own[0, 0] != own[1, 0]
    mean = own.mean(dim=0)
    for options, expected in (
        ({"kind": "column_wise", "column_width": 4}, own.flatten()),
        ({"kind": "column_wise", "column_width": 8}, mean.repeat(2)),
        ({"kind": "table_wise"}, mean),
    ):
        _, other = make(**options)
        other.load(checkpoint)
        torch.testing.assert_close(sums(other), expected)
    _, replicated = make("data_parallel")
    replicated.load(checkpoint)
    torch.testing.assert_close(replicated.state()["tables"][USER], mean)


def test_sums_of_rows_go_on_in_columns(make, batches, manifest: Manifest, tmp_path: Path):
    model, optimisers = make("table_wise")
    train(model, optimisers, batches)
    _, checkpoint = whole(model, optimisers, manifest, tmp_path)
    _, divided = make("column_wise", column_width=8)
    divided.load(checkpoint)
    torch.testing.assert_close(sums(divided), sums(optimisers).repeat(2))


@pytest.mark.parametrize(
    "options",
    [
        {"kind": "table_wise"},
        {"kind": "table_wise", "weights": "fp16"},
        {"kind": "column_wise", "column_width": 4},
        {"kind": "data_parallel"},
    ],
    ids=lambda options: " ".join(map(str, options.values())),
)
def test_copies_for_checkpoints_are_planned_as_they_are(
    plan, make, rank: Rank, tmp_path: Path, options: dict[str, object]
):
    model, optimisers = make(**options)
    with Saver(tmp_path, rank, keep=1) as saver:
        saver.save({"model": model.state_dict(), "optimisers": optimisers.state()}, Progress(manifest="", step=1))
    written = load_file(checkpoint_path(tmp_path, 1) / "rank-00000.safetensors")
    copies = size(sum(tensor.nbytes for tensor in written.values()))
    text = plan(**options)[1].text
    assert f" dense part + {copies} copies, of " in text
    (line,) = [line for line in text.splitlines() if line.startswith("user ")]
    user = size(sum(tensor.nbytes for name, tensor in written.items() if name.partition("@")[0].endswith(USER)))
    assert " ".join(line.split()[-4:-2]) == user


def test_weights_of_half_the_size_learn_the_same(make, batches, manifest: Manifest, tmp_path: Path):
    precise, precise_optimisers = make("table_wise")
    half, half_optimisers = make("table_wise", weights="fp16")
    assert local(half).dtype == torch.float16
    assert 2 * local(half).nbytes == local(precise).nbytes
    assert torch.equal(local(half), local(precise).half())
    again_and_again = 5 * batches[:1]
    losses = train(half, half_optimisers, again_and_again), train(precise, precise_optimisers, again_and_again)
    torch.testing.assert_close(*losses, rtol=5e-3, atol=0)
    assert losses[0][4] < 0.9 * losses[0][0]
    assert sums(half_optimisers).dtype == torch.float32
    # An unsharded model has them in fp32, exactly.
    unsharded, checkpoint = whole(half, half_optimisers, manifest, tmp_path)
    assert torch.equal(unsharded.state_dict()[USER], local(half).float())
    again, _ = make("table_wise", weights="fp16")
    load_state(checkpoint, {"model": again.state_dict()})
    assert torch.equal(local(again), local(half))


def local(model: DistributedModelParallel) -> Tensor:
    (only,) = model.state_dict()[USER].local_shards()
    return only.tensor
