"""The gradients of the dense network, which is where training spends its time.

On a CPU the rows of a batch are divided into as many slices as there are threads, and each thread takes one through
forward and backward by itself: the layers of a ranking head are too narrow for threads to share a product.
Shapes: B rows of this rank, D input of the network, K terms of the loss, P weights of the network in one row.
"""

import threading
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from models.config import ModelConfig
from models.losses import Objectives
from models.ranker import Network
from pipeline.training.processes import Rank

LEAST_ROWS = 256  # of a slice: below, starting the operations takes longer than they do


def slices(config: ModelConfig, rank: Rank) -> int:
    """Into how many slices a rank divides its batches: one where dropout would share a generator among threads."""
    return torch.get_num_threads() if rank.device.type == "cpu" and not config.dropout else 1


def _alone() -> None:
    """Has this thread compute by itself."""
    torch.get_num_threads()  # when first asked, PyTorch sets a thread's number to the process's, which would undo ours
    torch.set_num_threads(1)


class DenseGradients:
    """Computes the losses of a batch and their gradients, with weights and activations in `precision`.

    The weights are rounded to it once per step. Gradients are added up in fp32, in `flat_P`, of which the `.grad` of
    every parameter of `network` is a part.
    """

    def __init__(self, network: Network, objectives: Objectives, precision: torch.dtype, slices: int) -> None:
        """With fewer than `slices * LEAST_ROWS` rows there are fewer slices."""
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
        self._pool = ThreadPoolExecutor(slices, "slice", initializer=_alone)
        together = threading.Barrier(slices)
        list(self._pool.map(lambda _: together.wait(), range(slices)))  # a thread starts only while the others wait
        torch.set_num_threads(threads)  # which otherwise would be 1 for all threads to come

    def __call__(self, x_BD: Tensor, targets: tuple[Tensor, ...], weights_K: Tensor) -> tuple[Tensor, Tensor]:
        """The losses over these rows [K], and the gradient of the whole loss with respect to x_BD, [B, D] fp32.

        `targets` are labels, masks, scenes and weights of the rows, `weights_K` the sums over the global batch.
        Gradients of the weights are left in `flat_P`.
        """
        if self.precision != torch.float32:
            with torch.no_grad():
                torch._foreach_copy_(self.rounded, self.weights)
        size = -(-len(x_BD) // max(1, min(self.slices, len(x_BD) // LEAST_ROWS)))
        parts = zip(*(rows.split(size) for rows in (x_BD, *targets)), strict=True)
        work = [(part, weights_K) for part in parts]
        mapped = map if len(work) == 1 else self._pool.map  # a single slice has all threads for itself
        done = list(mapped(self._slice, *zip(*work, strict=True)))
        losses, gradients, flats = zip(*done, strict=True)
        for at, flat in enumerate(flats):
            (self.flat_P.add_ if at else self.flat_P.copy_)(flat)
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
