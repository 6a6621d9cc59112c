import pytest
import torch
import torch.distributed as dist
from torchrec import KeyedJaggedTensor
from torchrec.distributed import DistributedModelParallel
from torchrec.distributed.embeddingbag import EmbeddingBagCollectionSharder
from torchrec.distributed.sharding_plan import (
    construct_module_sharding_plan,
    data_parallel,
    row_wise,
    table_wise,
)
from torchrec.distributed.types import ShardingEnv, ShardingPlan

from models.embeddings import Embeddings, pooled_width

ROWS = {"tag": 4, "video": 7}
# The ids of three rows for each feature; the order is not the spec's, and there are empty bags and repeated ids.
BAGS = {
    "main_tag": [[3], [0], [1]],
    "watched": [[], [6, 1, 1], [2, 3]],
    "tags": [[1, 2], [], [3, 3, 3]],
    "video": [[6], [0], [5]],
}


def batch() -> KeyedJaggedTensor:
    bags = [bag for feature in BAGS.values() for bag in feature]
    return KeyedJaggedTensor(
        keys=list(BAGS),
        values=torch.tensor([i for bag in bags for i in bag]),
        lengths=torch.tensor([len(bag) for bag in bags]),
    )


def by_hand(spec, weights: dict[str, torch.Tensor]) -> torch.Tensor:
    """Feature by feature and row by row, in the order of the spec: sums of tags, means of videos."""
    columns = []
    for feature in ("video", "tags", "watched", "main_tag"):
        table = spec.features[feature].table
        pool = torch.Tensor.sum if table == "tag" else torch.Tensor.mean
        nothing = torch.zeros(spec.tables[table].dim)
        columns.append(torch.stack([pool(weights[table][bag], dim=0) if bag else nothing for bag in BAGS[feature]]))
    return torch.cat(columns, dim=1)


def make(spec) -> tuple[Embeddings, dict[str, torch.Tensor]]:
    torch.manual_seed(0)
    embeddings = Embeddings(spec, ROWS, torch.device("cpu"))
    return embeddings, {name: embeddings.tables.embedding_bags[name].weight for name in ROWS}


def test_pooled_embeddings_are_those_of_a_plain_look_up(spec):
    embeddings, weights = make(spec)
    assert pooled_width(spec) == 3 + 2 + 3 + 2
    torch.testing.assert_close(embeddings(batch()), by_hand(spec, weights))


def test_gradients_are_those_of_a_plain_look_up(spec):
    embeddings, weights = make(spec)
    mine = torch.autograd.grad(embeddings(batch()).square().sum(), list(weights.values()))
    plain = torch.autograd.grad(by_hand(spec, weights).square().sum(), list(weights.values()))
    torch.testing.assert_close(mine, plain)


def test_features_that_name_one_table_share_its_weights(spec):
    embeddings, weights = make(spec)
    assert {name: tuple(weight.shape) for name, weight in weights.items()} == {"tag": (4, 2), "video": (7, 3)}
    assert sum(parameter.numel() for parameter in embeddings.parameters()) == 4 * 2 + 7 * 3


def test_on_the_device_meta_tables_have_no_memory(spec):
    assert all(parameter.is_meta for parameter in Embeddings(spec, ROWS, torch.device("meta")).parameters())


@pytest.fixture
def one_rank():
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.parametrize(
    "plan",
    [
        {"tag": table_wise(rank=0), "video": row_wise()},
        {"tag": row_wise(), "video": table_wise(rank=0)},
        {"tag": data_parallel(), "video": row_wise()},
        {"tag": row_wise(), "video": data_parallel()},
    ],
    ids=["tag by table, video by row", "tag by row, video by table", "tag on all, video by row", "video on all"],
)
@pytest.mark.parametrize("pooling", ["spec", "mean"])
def test_the_result_does_not_depend_on_the_sharding_plan(spec, plan, pooling, one_rank):
    if pooling == "mean":
        means = {name: table.model_copy(update={"pooling": "mean"}) for name, table in spec.tables.items()}
        spec = spec.model_copy(update={"tables": means})
    embeddings, weights = make(spec)
    expected = embeddings(batch())

    class AnyPlan(EmbeddingBagCollectionSharder):
        def sharding_types(self, compute_device_type: str) -> list[str]:
            return ["table_wise", "row_wise", "data_parallel"]

    tables = construct_module_sharding_plan(
        embeddings.tables, plan, sharder=AnyPlan(), local_size=1, world_size=1, device_type="cpu"
    )
    sharded = DistributedModelParallel(
        Embeddings(spec, ROWS, torch.device("meta")),
        env=ShardingEnv.from_process_group(dist.group.WORLD),
        device=torch.device("cpu"),
        plan=ShardingPlan({"tables": tables}),
        sharders=[AnyPlan()],
    )
    for name, parameter in sharded.state_dict().items():
        local = parameter.local_shards()[0].tensor if hasattr(parameter, "local_shards") else parameter
        local.detach().copy_(weights[name.split(".")[-2]].detach())
    torch.testing.assert_close(sharded(batch()), expected)
