"""The sharding plan: what TorchRec's planner chooses for each table within the memory of the ranks."""

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
from pipeline.training.tables.plan_inputs import PlanInputs, measure_plan_inputs
from pipeline.training.tables.plan_text import describe_plan, no_room
from pipeline.training.tables.shard_memory import StorageEstimator


@dataclass(frozen=True)
class TablePlan:
    """The planner's choice, also in words."""

    sharding: ShardingPlan
    rows: int
    """Rows of a rank's batch."""
    text: str
    """Where each table goes, what it takes there, and why."""


def plan_together(
    ranker: Ranker, spec: Spec, samples: Path, config: TablesConfig, batch_size: int, rank: Rank
) -> TablePlan:
    """The plan of the first rank, for all ranks. Every rank calls it, with a model whose tables are on "meta".

    `batch_size` is that of all ranks together. The tables of `ranker` get their precision and their optimiser. Raises
    StrataError, on every rank, if the device cannot do what the configuration asks, or the model does not fit.
    """
    prepare_tables(ranker, config, rank.device.type)
    of_first_rank: list[TablePlan | StrataError | None] = [None]
    if rank.first:
        try:
            inputs = measure_plan_inputs(ranker, spec, samples, batch_size, rank)
            of_first_rank = [make_plan(ranker, config, inputs)]
        except StrataError as error:
            of_first_rank = [error]
    dist.broadcast_object_list(of_first_rank, src=0)
    (plan,) = of_first_rank
    if isinstance(plan, StrataError):
        raise plan
    assert plan is not None
    return plan


def prepare_tables(ranker: Ranker, config: TablesConfig, device: str) -> None:
    """Gives the tables their precision and their optimiser. The planner needs both to count memory."""
    names = [table.name for table in ranker.embeddings.tables.embedding_bag_configs()]
    check_tables(config, names, device)
    ranker.embeddings.tables = with_precision(ranker.embeddings.tables, config)
    adagrad = {"lr": config.learning_rate, "eps": ADAGRAD_EPS}
    apply_optimizer_in_backward(RowWiseAdagrad, ranker.embeddings.tables.parameters(), adagrad)


def make_plan(ranker: Ranker, config: TablesConfig, inputs: PlanInputs) -> TablePlan:
    """The plan for prepared tables. It needs neither the ranks nor their device. Raises StrataError if none fits."""
    constraints = _constraints(ranker, config, inputs)
    topology = Topology(
        world_size=inputs.ranks,
        local_world_size=inputs.ranks_here,
        compute_device=inputs.device,
    )
    for rank, device in enumerate(topology.devices):
        device.storage = inputs.room(rank)
    estimators = [EmbeddingPerfEstimator(topology, constraints), StorageEstimator(topology, constraints)]
    enumerator = EmbeddingEnumerator(topology, inputs.rows, constraints, estimators)
    chosen = _ChosenOptions()
    planner = EmbeddingShardingPlanner(
        topology=topology,
        batch_size=inputs.rows,
        enumerator=enumerator,
        storage_reservation=FixedPercentageStorageReservation(0),  # `inputs.room` keeps memory free already
        stats=chosen,
        constraints=constraints,
    )
    sharders = [sharder(config, inputs.device, inputs.rows)]
    options = enumerator.enumerate(ranker, sharders)
    # The planner would accept this plan: it gives no table to a rank that has no room.
    if inputs.room(rank=0).ddr < 0:
        raise no_room(options, config, inputs)
    try:
        sharding = planner.plan(ranker, sharders)
    except PlannerError:
        raise no_room(options, config, inputs) from None
    return TablePlan(sharding, inputs.rows, describe_plan(chosen.options, options, config, inputs))


class Sharder(EmbeddingBagCollectionSharder):
    """TorchRec's sharder, which does not offer sharding by rows on a CPU, although it works there."""

    def sharding_types(self, compute_device_type: str) -> list[str]:
        return list(get_args(Sharding))


def sharder(config: TablesConfig, device: str, rows: int) -> Sharder:
    """The sharder of the tables, for batches of `rows` rows on a rank."""
    return Sharder(qcomm_codecs_registry=codecs(config.communication, device, rows))


def _constraints(ranker: Ranker, config: TablesConfig, inputs: PlanInputs) -> dict[str, ParameterConstraints]:
    return {
        table.name: ParameterConstraints(
            sharding_types=config.kinds(table.name, inputs.ranks),
            compute_kernels=[*config.kernels_of(table.name), "dense"],  # dense is that of replicated tables
            min_partition=config.column_width,
            # A bag that is nearly always empty must count a little, too.
            pooling_factors=[max(0.01, inputs.lengths.get(feature, 1.0)) for feature in table.feature_names],
            cache_params=CacheParams(load_factor=config.cache_load_factor) if inputs.device == "cuda" else None,
            output_dtype=DataType.FP32,
        )
        for table in ranker.embeddings.tables.embedding_bag_configs()
    }


class _ChosenOptions(Stats):
    """Receives from the planner the options that it has chosen."""

    options: list[ShardingOption]

    def log(self, *, best_plan: list[ShardingOption], **rest: Any) -> None:
        self.options = best_plan
