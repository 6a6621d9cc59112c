"""The sharding plan: what TorchRec's planner chooses for each table within the memory that there is."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import torch.distributed as dist
from torchrec.distributed.embeddingbag import EmbeddingBagCollectionSharder
from torchrec.distributed.planner import EmbeddingShardingPlanner, Topology
from torchrec.distributed.planner.enumerators import EmbeddingEnumerator
from torchrec.distributed.planner.shard_estimators import EmbeddingPerfEstimator
from torchrec.distributed.planner.storage_reservations import FixedPercentageStorageReservation
from torchrec.distributed.planner.types import ParameterConstraints, PlannerError, ShardingOption, Stats
from torchrec.distributed.types import CacheParams, ShardingPlan
from torchrec.modules.embedding_configs import DataType
from torchrec.optim import RowWiseAdagrad
from torchrec.optim.apply_optimizer_in_backward import apply_optimizer_in_backward

from models.ranker import Ranker
from pipeline.errors import StrataError
from pipeline.spec.spec import Spec
from pipeline.training.processes import Rank
from pipeline.training.tables.communication import codecs
from pipeline.training.tables.config import (
    ADAGRAD_EPS,
    Sharding,
    TablesConfig,
    check_tables,
    with_precision,
)
from pipeline.training.tables.plan_text import explain, no_room
from pipeline.training.tables.setting import Setting, measure
from pipeline.training.tables.shard_memory import StorageEstimator


@dataclass(frozen=True)
class TablePlan:
    """What the planner chose, and that in words."""

    sharding: ShardingPlan
    rows: int
    """Of a rank's batch."""
    text: str


def plan_together(
    ranker: Ranker, spec: Spec, samples: Path, config: TablesConfig, batch_size: int, rank: Rank
) -> TablePlan:
    """The plan of the first rank, for all of them; every rank calls it, with a model whose tables are on "meta".

    `batch_size` is that of all ranks together. The tables of `ranker` get their precision and their optimiser. Raises
    StrataError, on every rank, if the configuration asks for what cannot be, or does not fit into memory.
    """
    prepare(ranker, config, rank.device.type)
    outcome: list[TablePlan | StrataError | None] = [None]
    if rank.first:
        try:
            outcome = [make_plan(ranker, config, measure(ranker, spec, samples, batch_size, rank))]
        except StrataError as error:
            outcome = [error]
    dist.broadcast_object_list(outcome, src=0)
    (made,) = outcome
    if isinstance(made, StrataError):
        raise made
    assert made is not None
    return made


def prepare(ranker: Ranker, config: TablesConfig, device: str) -> None:
    """Gives the tables their precision and their optimiser, which the planner counts and TorchRec fuses."""
    names = [table.name for table in ranker.embeddings.tables.embedding_bag_configs()]
    check_tables(config, names, device)
    ranker.embeddings.tables = with_precision(ranker.embeddings.tables, config)
    adagrad = {"lr": config.learning_rate, "eps": ADAGRAD_EPS}
    apply_optimizer_in_backward(RowWiseAdagrad, ranker.embeddings.tables.parameters(), adagrad)


def make_plan(ranker: Ranker, config: TablesConfig, setting: Setting) -> TablePlan:
    """The plan for prepared tables; neither ranks nor a device need be there. Raises StrataError if they do not fit."""
    constraints = _constraints(ranker, config, setting)
    topology = Topology(
        world_size=setting.ranks,
        local_world_size=setting.ranks_here,
        compute_device=setting.device,
    )
    for rank, device in enumerate(topology.devices):
        device.storage = setting.room(rank)
    estimators = [EmbeddingPerfEstimator(topology, constraints), StorageEstimator(topology, constraints)]
    enumerator = EmbeddingEnumerator(topology, setting.rows, constraints, estimators)
    chosen = _Chosen()
    planner = EmbeddingShardingPlanner(
        topology=topology,
        batch_size=setting.rows,
        enumerator=enumerator,
        storage_reservation=FixedPercentageStorageReservation(0),  # taken off already
        stats=chosen,
        constraints=constraints,
    )
    sharders = [sharder(config, setting.device, setting.rows)]
    options = enumerator.enumerate(ranker, sharders)
    if setting.room(rank=0).ddr < 0:  # the planner would but leave the first rank without tables
        raise no_room(options, config, setting)
    try:
        sharding = planner.plan(ranker, sharders)
    except PlannerError:
        raise no_room(options, config, setting) from None
    return TablePlan(sharding, setting.rows, explain(chosen.options, options, config, setting))


class Sharder(EmbeddingBagCollectionSharder):
    """TorchRec's own, which leaves sharding by rows out of what it offers on a CPU, where it works as well."""

    def sharding_types(self, compute_device_type: str) -> list[str]:
        return list(get_args(Sharding))


def sharder(config: TablesConfig, device: str, rows: int) -> Sharder:
    """What divides the tables, for batches of `rows` rows on a rank."""
    return Sharder(qcomm_codecs_registry=codecs(config.communication, device, rows))


def _constraints(ranker: Ranker, config: TablesConfig, setting: Setting) -> dict[str, ParameterConstraints]:
    return {
        table.name: ParameterConstraints(
            sharding_types=config.kinds(table.name, setting.ranks),
            compute_kernels=[*config.kernels_of(table.name), "dense"],  # dense is that of replicated tables
            min_partition=config.column_width,
            # Of a bag that is nearly always empty, too, a little has to be counted.
            pooling_factors=[max(0.01, setting.lengths.get(feature, 1.0)) for feature in table.feature_names],
            cache_params=CacheParams(load_factor=config.cache_load_factor) if setting.device == "cuda" else None,
            output_dtype=DataType.FP32,
        )
        for table in ranker.embeddings.tables.embedding_bag_configs()
    }


class _Chosen(Stats):
    """Is told by the planner what it has chosen."""

    options: list[ShardingOption]

    def log(self, *, best_plan: list[ShardingOption], **rest: Any) -> None:
        self.options = best_plan
