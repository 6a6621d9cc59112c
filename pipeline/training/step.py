"""One step of training: lookups, the dense network, and what the ranks have to tell each other.

TorchRec's pipeline drives it: while a step computes, the ids of the next one are on their way to the ranks that hold
their rows. On a GPU the host starts what a step does and waits for none of it, but TorchRec for how many ids of a later
batch the ranks exchange. Shapes: B rows of this rank, E width of all pooled embeddings, K terms of the loss.
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
from pipeline.training.gradients import DenseGradients
from pipeline.training.optimisers import Optimisers


@dataclass(frozen=True)
class Outcome:
    """Of one step, over the global batch; tensors, which may still be computed."""

    losses: Tensor
    """[K]"""
    weights: Tensor
    """[K]"""
    finite: Tensor
    """Scalar bool. Where it is false, nothing was updated."""
    signals: Tensor
    """Scalar: how many ranks were asked to stop."""
    rows: int
    """Of this rank."""


class _Lookup(nn.Module):
    """What of the model the pipeline looks into for tables."""

    def __init__(self, embeddings: Embeddings) -> None:
        super().__init__()
        self.embeddings = embeddings

    def forward(self, batch: Batch) -> Tensor:
        pooled_BE: Tensor = self.embeddings(batch.sparse)
        return pooled_BE


class _Known(torch.autograd.Function):
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

    def step(self, batches: Iterator[Batch], *, asked_to_stop: bool) -> Outcome:
        """One update by the next batch. Raises StopIteration after the last one."""
        self._asked_to_stop = asked_to_stop
        outcome: Outcome = self.pipeline.progress(batches)
        return outcome

    def pause(self) -> None:
        """Gives the model back for other uses; the next step takes it again. Batches in flight stay."""
        self.pipeline.detach()

    def _forward(self, batch: Batch) -> tuple[Tensor, Outcome]:
        weights_K = self.gradients.objectives.weights(batch.masks, batch.scenes, batch.weight)
        dist.all_reduce(weights_K)
        pooled_BE = self.lookup(batch)
        x_BD = torch.cat([pooled_BE.detach(), batch.dense], dim=1)
        targets = batch.labels, batch.masks, batch.scenes, batch.weight
        losses_K, gradient_BD = self.gradients(x_BD, targets, weights_K)
        # A sum with a NaN or an infinity in it is one, or becomes NaN.
        here = torch.stack([gradient_BD.sum(), self.gradients.flat_P.sum(), losses_K.sum()]).isfinite().all()
        told = torch.cat([losses_K, (~here).float().view(1), losses_K.new_full((1,), self._asked_to_stop)])
        if self.ranks > 1:
            dist.all_reduce(self.gradients.flat_P)
        dist.all_reduce(told)
        finite = told[-2] == 0
        self.optimisers.skip_unless(finite)
        # TorchRec averages the tables' gradients over the ranks, but the ranks' losses add up: hence the factor.
        gradient_BE = torch.where(finite, gradient_BD[:, : pooled_BE.shape[1]] * self.ranks, 0.0)
        loss = _Known.apply(pooled_BE, gradient_BE)  # type: ignore[no-untyped-call]
        return loss, Outcome(told[:-2], weights_K, finite, told[-1], len(batch))
