"""Experts: groups of networks of the same shape. The experts of a group share an input.

On a CPU they run one after another, which is faster than stacking them. On a GPU one batched product replaces many
small ones, which would each leave most of the GPU idle. Shapes: E experts of all groups, B rows, D input, H output.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.config import ModelConfig
from models.linear import Linear
from models.mlp import MLP


class Experts(nn.ModuleList):
    """A group of `count` networks, from x_BD to a list of `count` tensors [B, H]."""

    def __init__(self, count: int, d_in: int, config: ModelConfig) -> None:
        """Each expert has the layers of `config.expert`."""
        super().__init__(MLP(d_in, config.expert, config) for _ in range(count))

    def forward(self, x_BD: Tensor) -> list[Tensor]:
        """One [B, H] per expert."""
        (outputs,) = side_by_side([self], [x_BD])
        return outputs


def side_by_side(groups: Sequence[Experts], inputs: Sequence[Tensor]) -> list[list[Tensor]]:
    """The outputs of each group for its input [B, D]: one [B, H] per expert."""
    if inputs[0].device.type == "cuda":
        return batched(groups, inputs)
    return [[expert(x_BD) for expert in experts] for experts, x_BD in zip(groups, inputs, strict=True)]


def batched(groups: Sequence[Experts], inputs: Sequence[Tensor]) -> list[list[Tensor]]:
    """The same outputs by products of [E, B, D], layer by layer. An input that all groups share is not copied."""
    sizes = [len(experts) for experts in groups]
    if all(x_BD is inputs[0] for x_BD in inputs):
        x_EBD = inputs[0].expand(sum(sizes), -1, -1)
    else:
        x_EBD = torch.cat([x_BD.expand(size, -1, -1) for x_BD, size in zip(inputs, sizes, strict=True)])
    for layers in zip(*(expert for experts in groups for expert in experts), strict=True):
        x_EBD = _layer(layers, x_EBD)
    return [list(x_EBH.unbind()) for x_EBH in x_EBD.split(sizes)]


def _layer(layers: Sequence[nn.Module], x_EBD: Tensor) -> Tensor:
    """One layer of E experts. Their weights are stacked for the call only: each expert stays a module of its own."""
    first = layers[0]
    if not isinstance(first, Linear | nn.LayerNorm):
        y_EBD: Tensor = first(x_EBD)  # activation or dropout: each expert only adds rows
        return y_EBD
    weights = torch.stack([layer.get_parameter("weight") for layer in layers])
    bias_E1H = torch.stack([layer.get_parameter("bias") for layer in layers]).unsqueeze(1)
    if isinstance(first, Linear):
        return torch.baddbmm(bias_E1H, x_EBD, weights.transpose(1, 2))
    return torch.addcmul(bias_E1H, F.layer_norm(x_EBD, first.normalized_shape, eps=first.eps), weights.unsqueeze(1))
