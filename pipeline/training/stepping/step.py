"""One step of training: lookups, the dense network, and the sums over all ranks.

TorchRec's pipeline drives it: while a step computes, the ids of the next one are on their way to the ranks that hold
their rows. On a GPU the host never waits for a step. TorchRec alone waits: it must know how many ids of a later batch
the ranks will exchange. Shapes: B rows of this rank, D input of the dense network, E width of all pooled embeddings,
K terms of the loss.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torchrec.distributed.train_pipeline import TrainPipelineSparseDist

from models.embeddings import Embeddings
from pipeline.batches.batch import Batch
from pipeline.training.stepping.gradients import DenseGradients
from pipeline.training.stepping.optimisers import Optimisers


@dataclass(frozen=True)
class StepResult:
    """The sums of one step over the global batch. The device may still be computing these tensors."""

    losses: Tensor
    """[K]"""
    weights: Tensor
    """[K]"""
    finite: Tensor
    """Scalar bool. Where it is false, nothing was updated."""
    signals: Tensor
    """Scalar: how many ranks were asked to stop."""
    rows: int
    """Rows of this rank."""


class _Lookup(nn.Module):
    """The part of the model in which the pipeline looks for tables."""

    def __init__(self, embeddings: Embeddings) -> None:
        super().__init__()
        self.embeddings = embeddings

    def forward(self, batch: Batch) -> Tensor:
        pooled_BE: Tensor = self.embeddings(batch.sparse)
        return pooled_BE


class _KnownGradient(torch.autograd.Function):
    """A scalar whose gradient with respect to pooled_BE has been computed already."""

    @staticmethod
    def forward(ctx: Any, pooled_BE: Tensor, gradient_BE: Tensor) -> Tensor:
        ctx.save_for_backward(gradient_BE)
        return pooled_BE.new_zeros(())

    @staticmethod
    def backward(ctx: Any, one: Tensor) -> tuple[Tensor, None]:
        (gradient_BE,) = ctx.saved_tensors
        return gradient_BE, None


class Stepper:
    """Takes batches through forward, backward and update."""

    def __init__(
        self, embeddings: Embeddings, gradients: DenseGradients, optimisers: Optimisers, device: torch.device
    ) -> None:
        self.gradients = gradients
        self.optimisers = optimisers
        self.lookup = _Lookup(embeddings)
        self.ranks = dist.get_world_size()
        self._asked_to_stop = False
        self.pipeline = TrainPipelineSparseDist(self.lookup, optimisers, device, custom_model_fwd=self._forward)

    def step(self, batches: Iterator[Batch], *, asked_to_stop: bool) -> StepResult:
        """Updates the model by the next batch. Raises StopIteration after the last one."""
        self._asked_to_stop = asked_to_stop
        result: StepResult = self.pipeline.progress(batches)
        return result

    def pause(self) -> None:
        """Gives the model back for other uses until the next step. Batches in flight stay."""
        self.pipeline.detach()

    def _forward(self, batch: Batch) -> tuple[Tensor, StepResult]:
        weights_K = self.gradients.objectives.weights(batch.masks, batch.scenes, batch.weight)
        dist.all_reduce(weights_K)
        pooled_BE = self.lookup(batch)
        x_BD = torch.cat([pooled_BE.detach(), batch.dense], dim=1)
        targets = batch.labels, batch.masks, batch.scenes, batch.weight
        losses_K, gradient_BD = self.gradients(x_BD, targets, weights_K)
        # A NaN or an infinity anywhere makes the sum over it NaN or infinite.
        finite_here = torch.stack([gradient_BD.sum(), self.gradients.flat_P.sum(), losses_K.sum()]).isfinite().all()
        asked_here = losses_K.new_full((1,), self._asked_to_stop)
        sums = torch.cat([losses_K, (~finite_here).float().view(1), asked_here])
        if self.ranks > 1:
            dist.all_reduce(self.gradients.flat_P)
        dist.all_reduce(sums)
        losses_K, not_finite, asked = sums[:-2], sums[-2], sums[-1]
        finite = not_finite == 0
        self.optimisers.skip_unless(finite)
        # The losses of the ranks add up, but TorchRec averages the gradients of the tables over the ranks.
        gradient_BE = torch.where(finite, gradient_BD[:, : pooled_BE.shape[1]] * self.ranks, 0.0)
        loss = _KnownGradient.apply(pooled_BE, gradient_BE)  # type: ignore[no-untyped-call]
        return loss, StepResult(losses_K, weights_K, finite, asked, len(batch))
