"""Spreads the embedding tables over the ranks, and fills them with the same numbers whatever the plan."""

import warnings
from typing import Literal, get_args

import torch
import torch.distributed as dist
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor
from torch.distributed._shard.sharded_tensor.api import ShardedTensor
from torchrec.distributed import DistributedModelParallel
from torchrec.distributed.embeddingbag import EmbeddingBagCollectionSharder
from torchrec.distributed.planner import EmbeddingShardingPlanner, Topology
from torchrec.distributed.planner.storage_reservations import FixedPercentageStorageReservation
from torchrec.distributed.planner.types import ParameterConstraints, PlannerError
from torchrec.optim import RowWiseAdagrad
from torchrec.optim.apply_optimizer_in_backward import apply_optimizer_in_backward

from models.ranker import Ranker
from pipeline.errors import StrataError
from pipeline.training.processes import Rank

Sharding = Literal["table_wise", "row_wise", "data_parallel"]
ADAGRAD_EPS = 1e-8
ROWS_PER_DRAW = 8192  # rows filled by one random generator: the granularity at which shards agree


class TablesConfig(BaseModel):
    """The embedding tables: their optimiser and how they are spread over the ranks."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    learning_rate: float = Field(default=0.02, gt=0)
    """Of row-wise Adagrad, before warm-up and decay."""
    init_std: float = Field(default=0.05, ge=0)
    """Standard deviation of the normal distribution that fills the tables at the start."""
    sharding: tuple[Sharding, ...] = ("table_wise", "row_wise", "data_parallel")
    """What the planner may choose from for a table."""
    overrides: dict[str, Sharding] = {}
    """Tables whose sharding is fixed, as in `--tables.overrides user row_wise page data_parallel`."""

    def allowed(self, table: str, ranks: int) -> list[str]:
        """The kinds of sharding that the planner may use for a table."""
        kinds = [self.overrides[table]] if table in self.overrides else list(self.sharding)
        # On one rank the rows of a table stay together, which the planner knows as table-wise only.
        return ["table_wise" if kind == "row_wise" and ranks == 1 else kind for kind in kinds]


class Sharder(EmbeddingBagCollectionSharder):
    """TorchRec's own, which leaves row-wise sharding out of what it offers on a CPU, where it works as well."""

    def sharding_types(self, compute_device_type: str) -> list[str]:
        return list(get_args(Sharding))


def shard(ranker: Ranker, config: TablesConfig, rank: Rank, seed: int) -> DistributedModelParallel:
    """The model with its tables sharded by TorchRec's planner; the dense part is replicated.

    Sharded tables are updated by row-wise Adagrad within the backward pass. The tables of `ranker.embeddings` may
    be on the device "meta"; they are filled here, from `seed` alone. Raises StrataError if an override names no
    table or the tables do not fit.
    """
    tables = [table.name for table in ranker.embeddings.tables.embedding_bag_configs()]
    for name in config.overrides:
        if name not in tables:
            raise StrataError(f"there is no table `{name}`", where="--tables.overrides", fix=f"use {', '.join(tables)}")
    adagrad = {"lr": config.learning_rate, "eps": ADAGRAD_EPS}
    apply_optimizer_in_backward(RowWiseAdagrad, ranker.embeddings.tables.parameters(), adagrad)
    constraints = {name: ParameterConstraints(sharding_types=config.allowed(name, rank.ranks)) for name in tables}
    sharders = [Sharder()]
    planner = EmbeddingShardingPlanner(
        topology=Topology(world_size=rank.ranks, compute_device=rank.device.type),
        storage_reservation=FixedPercentageStorageReservation(percentage=0.15),  # for the dense part and activations
        constraints=constraints,
    )
    ranker.network.to(rank.device)
    assert dist.group.WORLD is not None
    try:
        plan = planner.collective_plan(ranker, sharders, dist.group.WORLD)
    except PlannerError as error:
        raise StrataError(f"no sharding plan ({str(error).strip().splitlines()[0]})", where="--tables", fix="allow "
                          "more kinds of sharding, use more ranks, or make the tables smaller") from None  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # TorchRec passes DDP an argument that torch 2.13 renamed
        model = DistributedModelParallel(
            ranker, device=rank.device, plan=plan, sharders=sharders, init_data_parallel=False
        )
    _fill_tables(model, tables, config.init_std, seed)
    return model


def _fill_tables(model: DistributedModelParallel, tables: list[str], std: float, seed: int) -> None:
    """Normal(0, std), drawn per table in blocks of rows: a shard draws the blocks that it overlaps."""
    state = model.state_dict()
    for index, name in enumerate(tables):
        key = f"embeddings.tables.embedding_bags.{name}.weight"
        weight = state[key]
        if isinstance(weight, ShardedTensor):
            for local in weight.local_shards():
                _fill(local.tensor, local.metadata.shard_offsets[0], std, [seed, index])
        else:
            _fill(weight, 0, std, [seed, index])


def _fill(shard: Tensor, first_row: int, std: float, key: list[int]) -> None:
    """Fills rows first_row, first_row + 1, ... of a table; `shard` is [rows, dim] with all its columns."""
    end = first_row + len(shard)
    for block in range(first_row // ROWS_PER_DRAW, -(-end // ROWS_PER_DRAW)):
        # Mixes the key by a product of odd constants, so that neighbouring blocks get unrelated seeds.
        mixed = (key[0] * 0x9E3779B97F4A7C15 + key[1] * 0xC2B2AE3D27D4EB4F + block * 0x165667B19E3779F9) % 2**63
        generator = torch.Generator().manual_seed(mixed)
        drawn = torch.randn(ROWS_PER_DRAW, shard.shape[1], generator=generator) * std
        start = block * ROWS_PER_DRAW
        low, high = max(start, first_row), min(start + ROWS_PER_DRAW, end)
        shard[low - first_row : high - first_row].copy_(drawn[low - start : high - start])
