"""The linear layer that all networks are made of.

On a CPU it multiplies with oneDNN where it can: in fp32 PyTorch would take MKL, which is slower on AMD's processors
(docs/performance.md). Shapes: B rows, D input, H output.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def _onednn_types() -> tuple[torch.dtype, ...]:
    """What oneDNN multiplies on this processor: bf16 only where it has AVX-512 or better."""
    if not torch.backends.mkldnn.is_available():
        return ()
    has_bf16 = torch.ops.mkldnn._is_mkldnn_bf16_supported()  # tried on torch 2.13.0
    return (torch.float32, torch.bfloat16) if has_bf16 else (torch.float32,)


ONEDNN = _onednn_types()


class _OneDNN(torch.autograd.Function):
    """y = x Wᵀ + b; the gradient of W stays with PyTorch, whose product of two transposed matrices is as fast."""

    @staticmethod
    def forward(ctx: Any, x_BD: Tensor, weight_HD: Tensor, bias_H: Tensor | None) -> Tensor:
        ctx.save_for_backward(x_BD, weight_HD)
        return _product(x_BD, weight_HD, bias_H)

    @staticmethod
    def backward(ctx: Any, grad_BH: Tensor) -> tuple[Tensor | None, ...]:
        x_BD, weight_HD = ctx.saved_tensors
        wants_x, wants_weight, wants_bias = ctx.needs_input_grad
        return (
            _product(grad_BH, weight_HD.t(), None) if wants_x else None,
            grad_BH.t() @ x_BD if wants_weight else None,
            grad_BH.sum(0) if wants_bias else None,
        )


def _product(x_BD: Tensor, weight_HD: Tensor, bias_H: Tensor | None) -> Tensor:
    product_BH: Tensor = torch.ops.mkldnn._linear_pointwise(x_BD, weight_HD, bias_H, "none", [], "")
    return product_BH


class Linear(nn.Linear):
    """`nn.Linear`, [B, D] -> [B, H]; on a CPU by oneDNN."""

    def forward(self, x_BD: Tensor) -> Tensor:
        if x_BD.dtype in ONEDNN and x_BD.device.type == "cpu":
            y_BH: Tensor = _OneDNN.apply(x_BD, self.weight, self.bias)  # type: ignore[no-untyped-call]
            return y_BH
        return F.linear(x_BD, self.weight, self.bias)
