"""The settings of the embedding tables, and the check that this machine can do what they ask."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt
from torchrec import EmbeddingBagCollection
from torchrec.modules.embedding_configs import DataType

from pipeline.errors import StrataError

Sharding = Literal["table_wise", "row_wise", "table_row_wise", "column_wise", "data_parallel"]
Kernel = Literal["fused", "fused_uvm_caching", "fused_uvm"]
TablePrecision = Literal["fp32", "bf16", "fp16"]
ADAGRAD_EPS = 1e-8


class TablesConfig(BaseModel):
    """The embedding tables: their optimiser, and how they are spread over the ranks."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    learning_rate: float = Field(default=0.02, gt=0)
    """Learning rate of row-wise Adagrad, before warm-up and decay."""
    init_std: float = Field(default=0.05, ge=0)
    """Standard deviation of the normal distribution that fills the tables at the start."""
    weights: TablePrecision = "fp32"
    """Precision of the tables in memory; bf16 needs CUDA. Updates are computed in fp32 and rounded. CUDA rounds at
    random, which keeps their mean; a CPU rounds to the nearest, which loses the smallest. Replicated tables stay fp32.
    With less than fp32 the planner replicates a table only if --tables.overrides says so."""
    sharding: tuple[Sharding, ...] = Field(default=("table_wise", "row_wise", "data_parallel"), min_length=1)
    """The kinds of sharding that the planner may choose from for a table: the table on one rank (table_wise), its rows
    divided among all ranks (row_wise) or among those of one machine (table_row_wise), its columns divided
    (column_wise), or a copy on every rank (data_parallel)."""
    overrides: dict[str, Sharding] = {}
    """Tables whose sharding is fixed, as in `--tables.overrides user row_wise page data_parallel`."""
    column_width: PositiveInt = Field(default=32, multiple_of=4)
    """Least columns of a column_wise shard; a table too narrow for two shards stays undivided. Each shard of a row has
    its own learning rate. So column_wise gives slightly other results than the other kinds, from the second step on."""
    kernels: tuple[Kernel, ...] = Field(default=("fused",), min_length=1)
    """Where the planner may put a sharded table: on the device (fused), in the machine's memory with a cache of its
    most used rows on the device (fused_uvm_caching), or in the machine's memory alone (fused_uvm). The last two need
    CUDA."""
    kernel_overrides: dict[str, Kernel] = {}
    """Tables whose kernel is fixed, as in `--tables.kernel-overrides video fused_uvm_caching`."""
    cache_load_factor: float = Field(default=0.2, gt=0, lt=1)
    """Share of a table's rows that the cache of fused_uvm_caching holds."""
    communication: TablePrecision = "fp32"
    """Precision of embeddings and their gradients on the way between ranks; bf16 needs CUDA. The gradients of the dense
    part and of replicated tables stay fp32."""

    def kinds(self, table: str, ranks: int) -> list[str]:
        """The kinds of sharding that the planner may use for a table."""
        kinds: Sequence[str] = [self.overrides[table]] if table in self.overrides else self.sharding
        if set(kinds) != {"data_parallel"} and (self.weights != "fp32" or "fused" not in self.kernels_of(table)):
            kinds = [kind for kind in kinds if kind != "data_parallel"]
        if ranks == 1:  # the rows of a table stay together, and the planner calls that table_wise
            kinds = ["table_wise" if kind in ("row_wise", "table_row_wise") else kind for kind in kinds]
        return list(dict.fromkeys(kinds))

    def kernels_of(self, table: str) -> list[str]:
        """The kernels that the planner may use for a table, unless it is replicated."""
        return [self.kernel_overrides[table]] if table in self.kernel_overrides else list(self.kernels)

    def precision(self, table: str) -> TablePrecision:
        """The precision of a table's weights."""
        return "fp32" if self.kinds(table, ranks=1) == ["data_parallel"] else self.weights


def with_precision(tables: EmbeddingBagCollection, config: TablesConfig) -> EmbeddingBagCollection:
    """The same tables, on the same device, with weights in the precision that the configuration asks for."""
    wanted = {table.name: DataType(config.precision(table.name).upper()) for table in tables.embedding_bag_configs()}
    return EmbeddingBagCollection(
        tables=[replace(table, data_type=wanted[table.name]) for table in tables.embedding_bag_configs()],
        device=tables.device,
    )


def check_tables(config: TablesConfig, tables: Sequence[str], device: str) -> None:
    """Raises StrataError if an override names no table, or the device ("cpu", "cuda") cannot do what is asked."""
    for option, overrides in (("overrides", config.overrides), ("kernel-overrides", config.kernel_overrides)):
        for table in overrides:
            if table not in tables:
                raise StrataError(
                    f"there is no table `{table}`", where=f"--tables.{option}", fix=f"use {', '.join(tables)}"
                )
    for table in tables:
        if config.kinds(table, ranks=1) == ["data_parallel"] and config.kernel_overrides.get(table, "fused") != "fused":
            raise StrataError(
                f"`{table}` is replicated, and a replicated table has no kernel but fused",
                where="--tables.kernel-overrides",
                fix="shard it in another way, or give it no kernel",
            )
    if device == "cuda":
        return
    for option, kernels in (("kernels", config.kernels), ("kernel-overrides", config.kernel_overrides.values())):
        for kernel in kernels:
            if kernel != "fused":
                raise StrataError(f"{kernel} needs CUDA", where=f"--tables.{option}", fix="use fused")
    for option, precision in (("weights", config.weights), ("communication", config.communication)):
        if precision == "bf16":
            raise StrataError("bf16 needs CUDA", where=f"--tables.{option}", fix="use fp16 or fp32")
