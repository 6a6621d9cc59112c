"""The optimisers of a sharded model, and the learning rate over a run.

Sharded tables are updated inside the backward pass. The optimisers here step the rest after it: Adam the dense part,
and row-wise Adagrad, the same as for sharded tables, the tables that the plan replicates on every rank.
"""

import math
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor
from torch.optim import Adam
from torchrec.distributed import DistributedModelParallel
from torchrec.optim import RowWiseAdagrad
from torchrec.optim.keyed import CombinedOptimizer, KeyedOptimizerWrapper
from torchrec.optim.optimizers import in_backward_optimizer_filter

from pipeline.training.private_apis import ShardedTensor, skip_step_unless
from pipeline.training.saving.tensor_files import StoredTensors, TensorShard, load_state, local_shards
from pipeline.training.stepping.precision import DensePrecision
from pipeline.training.tables.config import ADAGRAD_EPS, TablesConfig


class DenseConfig(BaseModel):
    """Adam, for the dense part of the model."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    learning_rate: float = Field(default=1e-3, gt=0)
    """Learning rate of Adam, before warm-up and decay."""
    weight_decay: float = Field(default=0.0, ge=0)
    """Weight decay, decoupled from the gradient as in AdamW."""
    precision: DensePrecision = "auto"
    """Precision of the dense network's products; auto is bf16 if the hardware multiplies it and the network gains."""


class ScheduleConfig(BaseModel):
    """How both learning rates change over the run."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    warmup: float = Field(default=0.05, ge=0, lt=1)
    """Share of all steps over which the rates grow from 0, linearly."""
    decay: Literal["none", "linear", "cosine"] = "cosine"
    """How the rates fall after the warm-up."""
    final: float = Field(default=0.05, ge=0, le=1)
    """Share of the full rates that is left at the last step."""

    def factor(self, step: int, total: int) -> float:
        """What both learning rates are multiplied by in a step: 0, 1, ..., total - 1."""
        warm = math.ceil(self.warmup * total)
        if step < warm:
            return (step + 1) / warm
        progress = (step - warm) / max(1, total - 1 - warm)
        match self.decay:
            case "none":
                return 1.0
            case "linear":
                left = 1.0 - progress
            case "cosine":
                left = (1.0 + math.cos(math.pi * progress)) / 2
        return self.final + (1.0 - self.final) * left


class Optimisers:
    """All optimisers of a run: steps those outside of the backward pass, and sets the learning rates of all."""

    def __init__(self, model: DistributedModelParallel, dense: DenseConfig, tables: TablesConfig) -> None:
        """The model must be sharded already."""
        outside = dict(in_backward_optimizer_filter(model.named_parameters()))
        replicated = {name: p for name, p in outside.items() if ".embedding_bags." in name}
        rest = {name: p for name, p in outside.items() if name not in replicated}
        adam = KeyedOptimizerWrapper(
            rest,
            lambda params: Adam(
                params, lr=dense.learning_rate, weight_decay=dense.weight_decay, decoupled_weight_decay=True, fused=True
            ),
        )
        self._stepped = {"adam": adam}
        self._rates: list[tuple[CombinedOptimizer | KeyedOptimizerWrapper, float]] = [
            (model.fused_optimizer, tables.learning_rate),
            (adam, dense.learning_rate),
        ]
        if replicated:
            adagrad = KeyedOptimizerWrapper(
                replicated, lambda params: RowWiseAdagrad(params, lr=tables.learning_rate, eps=ADAGRAD_EPS)
            )
            self._stepped["adagrad"] = adagrad
            self._rates.append((adagrad, tables.learning_rate))
        self._fused = model.fused_optimizer

    def set_rate(self, factor: float) -> None:
        """Scales every learning rate for the next step."""
        for optimiser, rate in self._rates:
            for group in optimiser.param_groups:
                group["lr"] = rate * factor
        self._fused.step()  # updates nothing: it hands the rate to the update inside the backward pass

    def zero_grad(self) -> None:
        """Clears the gradients of the replicated tables; each step overwrites those of the dense network."""
        if "adagrad" in self._stepped:
            self._stepped["adagrad"].zero_grad(set_to_none=True)

    def skip_unless(self, finite: Tensor) -> None:
        """Makes the next step of Adam do nothing where `finite`, a scalar on the device, is false."""
        skip_step_unless(finite, self._stepped["adam"])

    def step(self) -> None:
        for optimiser in self._stepped.values():
            optimiser.step()

    def state(self) -> dict[str, dict[str, Any]]:
        """Adam's tensors by parameter, and Adagrad's sums by table; zeros before the first step.

        The sums of a table are [rows]. Where the plan divides the columns, each shard has sums of its own:
        [shards x rows]. The tensors are the optimisers' own, so loading into them restores the optimisers.
        """
        for optimiser in self._stepped.values():
            if not optimiser.state_dict()["state"]:
                optimiser.init_state()
        states = {name: optimiser.state_dict()["state"] for name, optimiser in self._stepped.items()}
        sums = {table: next(iter(state.values())) for table, state in self._fused.state_dict()["state"].items()}
        sums |= {table: state["sum"].view(-1) for table, state in states.get("adagrad", {}).items()}
        return {"adam": states["adam"], "tables": sums}

    def load(self, checkpoint: Path) -> None:
        """Takes over the states that a checkpoint holds, whatever plan it was made with.

        Where the columns of a table were divided in another way, or not at all, each row goes on with the mean of its
        shards' sums. That is the sum of the undivided row: Adagrad adds the mean squared gradient of its columns.
        """
        state = self.state()
        with StoredTensors(checkpoint) as stored, torch.no_grad():
            divided = {}
            for table, sums in state["tables"].items():
                own = tuple(sums.metadata().size if isinstance(sums, ShardedTensor) else sums.shape)
                if stored.shapes.get(f"optimisers.tables.{table}", own) != own:
                    divided[table] = sums
            same = {table: sums for table, sums in state["tables"].items() if table not in divided}
            load_state(checkpoint, {"optimisers": state | {"tables": same}})
            for shard in local_shards(divided):
                first = first_row(shard, stored.shapes[f"model.{shard.name}"][0])
                shard.tensor.copy_(undivided_sums(stored, shard.name, first, first + len(shard.tensor)))


def first_row(sums: TensorShard, rows: int) -> int:
    """The row, in a table of `rows` rows, of the first of `sums`. Sums of a shard of columns begin at row 0."""
    return sums.offsets[0] % rows


def undivided_sums(stored: StoredTensors, table: str, first: int, last: int) -> Tensor:
    """The sums of a table's rows `first` to `last`, exclusive: the means over its shards of columns."""
    rows = stored.shapes[f"model.{table}"][0]
    shards = stored.shapes[f"optimisers.tables.{table}"][0] // rows
    sums = [stored.read(f"optimisers.tables.{table}", (at * rows + first,), (last - first,)) for at in range(shards)]
    return torch.stack(sums).mean(dim=0)
