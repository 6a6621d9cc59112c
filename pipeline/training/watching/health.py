"""What may be wrong with a model although its loss is finite. Each validation looks for it.

Shapes: B rows, K terms of the loss, E experts of a gate.
"""

import math
from types import TracebackType
from typing import Any, Self

import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from models.heads import Gate
from models.losses import Objectives
from models.ranker import Network
from pipeline.batches.batch import Batch
from pipeline.spec.spec import Spec
from pipeline.training.private_apis import ShardedTensor

LEAST_SPREAD = 1e-5  # of an objective's outputs, relative to the largest: with less, all rows get the same
COLLAPSED, UNIFORM = 0.01, 0.9999  # entropies of a gate's weights, relative to that of equal weights


class Health:
    """Watches a validation: `with` it, `add` every batch, then ask for `warnings` and `entropies`."""

    def __init__(self, spec: Spec, objectives: Objectives, network: Network) -> None:
        """`network` is the one that the validation runs."""
        self.spec = spec
        self.objectives = objectives
        self.gates = {
            name: gate
            for name, gate in network.named_modules()
            if isinstance(gate, Gate) and gate.scores.out_features > 1
        }
        device = next(network.parameters()).device
        terms = len(objectives.layout.terms)
        self._least_K = torch.full((terms,), math.inf, device=device)
        self._greatest_K = torch.full((terms,), -math.inf, device=device)
        self._rows_K = torch.zeros(terms, device=device)
        self._entropy = torch.zeros(len(self.gates), device=device)
        self._rows = torch.zeros((), device=device)
        self._hooks: list[RemovableHandle] = []

    def __enter__(self) -> Self:
        gates = self.gates.values()
        self._hooks = [gate.register_forward_hook(self._entropy_hook(at)) for at, gate in enumerate(gates)]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for hook in self._hooks:
            hook.remove()

    def add(self, outputs_BC: Tensor, batch: Batch) -> None:
        """Takes the model's outputs for a batch, right after its forward pass."""
        self._rows += len(batch)
        spaces = self.objectives.spaces(batch.masks, batch.scenes)
        for k, (term, m_B) in enumerate(zip(self.objectives.layout.terms, spaces, strict=True)):
            self._rows_K[k] += m_B.sum()
            output_B = outputs_BC[:, term.column].float()
            self._least_K[k] = torch.minimum(self._least_K[k], torch.where(m_B, output_B, math.inf).min())
            self._greatest_K[k] = torch.maximum(self._greatest_K[k], torch.where(m_B, output_B, -math.inf).max())

    def gather(self) -> None:
        """Adds up what the ranks have seen. Every rank calls it."""
        dist.all_reduce(self._least_K, dist.ReduceOp.MIN)
        dist.all_reduce(self._greatest_K, dist.ReduceOp.MAX)
        dist.all_reduce(self._rows_K)
        dist.all_reduce(self._entropy)
        dist.all_reduce(self._rows)

    @property
    def entropies(self) -> dict[str, float]:
        """The mean entropy of each gate, by its name: 1 where all experts weigh the same, 0 where one does all."""
        mean = (self._entropy / self._rows).tolist()
        return dict(zip(self.gates, mean, strict=True))

    def warnings(self, table_sums: dict[str, Tensor | ShardedTensor]) -> list[str]:
        """A line for each objective, gate and table that has stopped learning or never began. Every rank calls it.

        `table_sums` are the sums of squared gradients of the tables' rows, by the name of their weights. After
        --init-from they include the gradients of the earlier run.
        """
        return [*self._constant(), *self._gates(), *_untouched(table_sums)]

    def _constant(self) -> list[str]:
        lines = []
        seen = (self._least_K.tolist(), self._greatest_K.tolist(), self._rows_K.tolist())
        for (scene, objective, _), least, greatest, rows in zip(self.spec.terms, *seen, strict=True):
            if rows > 1 and greatest - least <= LEAST_SPREAD * max(1.0, abs(greatest)):
                lines.append(f"`{objective}` is dead: all rows of scene `{scene}` get the same prediction")
        return lines

    def _gates(self) -> list[str]:
        lines = []
        for name, entropy in self.entropies.items():
            if entropy <= COLLAPSED:
                lines.append(f"gate `{name}` has collapsed: one expert has all the weight (entropy {entropy:.3f} of 1)")
            elif entropy >= UNIFORM:
                lines.append(
                    f"gate `{name}` does not choose: its experts have equal weights (entropy {entropy:.4f} of 1)"
                )
        return lines

    def _entropy_hook(self, at: int) -> Any:
        """A forward hook that adds the entropy of each row's weights to that of gate number `at`."""

        def add_entropy(gate: Gate, inputs: tuple[Tensor, ...], g_BE: Tensor) -> None:
            g_BE = g_BE.float()
            self._entropy[at] -= (g_BE * g_BE.clamp(min=1e-12).log()).sum() / math.log(g_BE.shape[1])

        return add_entropy


def _untouched(table_sums: dict[str, Tensor | ShardedTensor]) -> list[str]:
    """The tables of which no row has had a gradient yet. A rank passes the tables that it holds."""
    greatest = {}
    for weight, sums in table_sums.items():
        parts = [part.tensor for part in sums.local_shards()] if isinstance(sums, ShardedTensor) else [sums]
        greatest[weight.split(".")[-2]] = max((part.max().item() for part in parts if part.numel()), default=0.0)
    of_ranks: list[dict[str, float]] = [{}] * dist.get_world_size()
    dist.all_gather_object(of_ranks, greatest)
    tables = sorted({table for of_rank in of_ranks for table in of_rank})
    return [f"table `{t}` gets no gradient" for t in tables if not any(of_rank.get(t) for of_rank in of_ranks)]
