"""The gradients of the dense network. Training spends most of its time here.

On a CPU a batch is divided into one slice of rows for each thread, and each thread takes its slice through forward
and backward alone: the layers of a ranking head are too narrow for threads to share a product.
Shapes: B rows of this rank, D input of the network, K terms of the loss, P weights of the network, all in one vector.
"""

import threading
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from models.config import ModelConfig
from models.losses import Objectives
from models.ranker import Network
from pipeline.training.private_apis import copy_tensors
from pipeline.training.processes import Rank

LEAST_ROWS = 256  # of a slice: with fewer rows, starting the operations takes longer than the operations


def slice_count(config: ModelConfig, rank: Rank) -> int:
    """Into how many slices a rank divides its batches. Dropout allows one: threads would share its random generator."""
    return torch.get_num_threads() if rank.device.type == "cpu" and not config.dropout else 1


def _use_one_thread() -> None:
    """Makes this thread compute alone."""
    # PyTorch sets the number of a new thread to that of the process when it is first asked for, so ask before setting.
    torch.get_num_threads()
    torch.set_num_threads(1)


class DenseGradients:
    """Computes the losses of a batch and their gradients, with weights and activations in `precision`.

    The weights are rounded to it once per step. Gradients are added up in fp32, in the vector `flat_P`. The `.grad` of
    every parameter of `network` is a view of a part of it.
    """

    def __init__(self, network: Network, objectives: Objectives, precision: torch.dtype, slices: int) -> None:
        """A batch of fewer than `slices * LEAST_ROWS` rows is divided into fewer slices."""
        self.objectives = objectives
        self.precision = precision
        self.weights: list[Tensor] = list(network.parameters())
        self.network = network if precision == torch.float32 else network.rounded(precision)
        self.rounded: list[Tensor] = list(self.network.parameters())
        self.flat_P = torch.zeros(sum(weight.numel() for weight in self.weights), device=self.weights[0].device)
        parts = self.flat_P.split([weight.numel() for weight in self.weights])
        self.parts = [part.view_as(weight) for weight, part in zip(self.weights, parts, strict=True)]
        self.slices = slices
        threads = torch.get_num_threads()
        self._pool = ThreadPoolExecutor(slices, "slice", initializer=_use_one_thread)
        # The pool starts another thread only while all its threads are busy, so all of them wait for each other here.
        together = threading.Barrier(slices)
        list(self._pool.map(lambda _: together.wait(), range(slices)))
        torch.set_num_threads(threads)  # the pool's threads have set it to 1 for every thread that starts later

    def __call__(self, x_BD: Tensor, targets: tuple[Tensor, ...], weights_K: Tensor) -> tuple[Tensor, Tensor]:
        """The losses over these rows [K], and the gradient of the whole loss with respect to x_BD, [B, D] fp32.

        `targets` are labels, masks, scenes and weights of the rows. `weights_K` are the sums over the global batch.
        The gradients of the weights are left in `flat_P`.
        """
        if self.precision != torch.float32:
            with torch.no_grad():
                copy_tensors(self.rounded, self.weights)
        size = -(-len(x_BD) // max(1, min(self.slices, len(x_BD) // LEAST_ROWS)))
        slices = list(zip(*(rows.split(size) for rows in (x_BD, *targets)), strict=True))
        if len(slices) == 1:
            results = [self._slice(slices[0], weights_K)]  # in this thread, which may use all cores
        else:
            results = list(self._pool.map(self._slice, slices, [weights_K] * len(slices)))
        losses, gradients, flats = zip(*results, strict=True)
        self.flat_P.copy_(flats[0])
        for flat in flats[1:]:
            self.flat_P.add_(flat)
        for weight, part in zip(self.weights, self.parts, strict=True):
            weight.grad = part
        return torch.stack(losses).sum(dim=0), torch.cat([gradient.float() for gradient in gradients])

    def _slice(self, rows: tuple[Tensor, ...], weights_K: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Losses [K], gradient of x [B, D] and of the weights [P], over some rows."""
        x_BD, *targets = rows
        x_BD = x_BD.to(self.precision).detach().requires_grad_()
        losses_K = self.objectives.losses(self.network(x_BD), *targets)
        loss = self.objectives.combine(losses_K, weights_K)
        gradient, *parts = torch.autograd.grad(loss, [x_BD, *self.rounded], materialize_grads=True)
        return losses_K.detach(), gradient, torch.cat([part.reshape(-1) for part in parts])
