"""The optimisers of a sharded model, and the learning rate over a run.

Sharded tables are updated inside the backward pass. What is left are the dense part (Adam) and the tables that the
plan replicates on every rank, which get the same row-wise Adagrad from dense gradients.
"""

import math
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor
from torch.distributed._shard.sharded_tensor.api import ShardedTensor
from torch.optim import Adam
from torchrec.distributed import DistributedModelParallel
from torchrec.optim import RowWiseAdagrad
from torchrec.optim.keyed import CombinedOptimizer, KeyedOptimizerWrapper
from torchrec.optim.optimizers import in_backward_optimizer_filter

from pipeline.training.precision import Precision
from pipeline.training.saving.chunks import Chunk, StoredTensors, chunks_of, load_state
from pipeline.training.tables.config import ADAGRAD_EPS, TablesConfig


class DenseConfig(BaseModel):
    """Adam, for the dense part of the model."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    learning_rate: float = Field(default=1e-3, gt=0)
    """Before warm-up and decay."""
    weight_decay: float = Field(default=0.0, ge=0)
    """Decoupled from the gradient, as in AdamW."""
    precision: Precision = "auto"
    """Of the dense network's products: auto takes bf16 where the hardware multiplies it and the network is large."""


class ScheduleConfig(BaseModel):
    """How both learning rates change over the run."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    warmup: float = Field(default=0.05, ge=0, lt=1)
    """Share of all steps over which the rates grow from 0, linearly."""
    decay: Literal["none", "linear", "cosine"] = "cosine"
    """How they fall after that."""
    final: float = Field(default=0.05, ge=0, le=1)
    """Share of the full rates that is left at the last step."""

    def factor(self, step: int, total: int) -> float:
        """What both learning rates are multiplied by in step 0, 1, ..., total - 1."""
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
    """Everything that is stepped after a backward pass, and the learning rates of all."""

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
        self._fused.step()  # hands the rate to the fused update, which happens in the backward pass

    def zero_grad(self) -> None:
        """Of the replicated tables; those of the dense network are overwritten in each step."""
        if "adagrad" in self._stepped:
            self._stepped["adagrad"].zero_grad(set_to_none=True)

    def skip_unless(self, finite: Tensor) -> None:
        """Makes the next step of Adam do nothing where `finite`, a scalar on the device, is false."""
        self._stepped["adam"]._optimizer.found_inf = (~finite).float()

    def step(self) -> None:
        for optimiser in self._stepped.values():
            optimiser.step()

    def state(self) -> dict[str, dict[str, Any]]:
        """Adam's tensors by parameter, and Adagrad's sums by table.

        The sums are [rows], whatever the plan does with the table, unless it divides the columns: then each shard has
        its own, [shards x rows].
        Zeros where no step was taken yet. They are the optimisers' own: loading into them restores the optimisers.
        """
        for optimiser in self._stepped.values():
            if not optimiser.state_dict()["state"]:
                optimiser.init_state()
        states = {name: optimiser.state_dict()["state"] for name, optimiser in self._stepped.items()}
        sums = {table: next(iter(state.values())) for table, state in self._fused.state_dict()["state"].items()}
        sums |= {table: state["sum"].view(-1) for table, state in states.get("adagrad", {}).items()}
        return {"adam": states["adam"], "tables": sums}

    def load(self, checkpoint: Path) -> None:
        """Takes over the states that a checkpoint holds, whatever the plan that it was made with.

        A row of a table whose columns were divided in another way, or not, goes on with the mean of its shards' sums,
        which is the sum that it would have undivided: that is over the mean of all its columns' squared gradients.
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
            for chunk in chunks_of(divided):
                first = first_row(chunk, stored.shapes[f"model.{chunk.name}"][0])
                chunk.tensor.copy_(undivided_sums(stored, chunk.name, first, first + len(chunk.tensor)))


def first_row(sums: Chunk, rows: int) -> int:
    """The row of a table of `rows` rows to which the first of `sums` belongs; a shard of columns has all rows."""
    return sums.offsets[0] % rows


def undivided_sums(stored: StoredTensors, table: str, first: int, last: int) -> Tensor:
    """The sums of rows `first` to `last` of a table, exclusive: the means of those of its shards of columns."""
    rows = stored.shapes[f"model.{table}"][0]
    shards = stored.shapes[f"optimisers.tables.{table}"][0] // rows
    sums = [stored.read(f"optimisers.tables.{table}", (at * rows + first,), (last - first,)) for at in range(shards)]
    return torch.stack(sums).mean(dim=0)
