"""The linear layer of all networks.

On a CPU it multiplies with oneDNN where that is possible. PyTorch's own choice for fp32 is MKL, which is slower on
AMD's processors (docs/performance.md). Shapes: B rows, D input, H output.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def _onednn_types() -> tuple[torch.dtype, ...]:
    """The types that oneDNN multiplies on this CPU; none where this PyTorch lacks oneDNN or the product used here.

    Tried on torch 2.13.0: `torch.ops.mkldnn._linear_pointwise`, and `_is_mkldnn_bf16_supported`, which is false on a
    CPU without AVX-512. There oneDNN refuses the product in bf16.
    """
    if not torch.backends.mkldnn.is_available() or not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return ()
    multiplies_bf16 = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False)
    return (torch.float32, torch.bfloat16) if multiplies_bf16() else (torch.float32,)


ONEDNN = _onednn_types()


class _OneDNN(torch.autograd.Function):
    """y = x Wᵀ + b. PyTorch computes the gradient of W: its product of two transposed matrices is as fast."""

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
    """The product of oneDNN, [B, D] -> [B, H], which has no public name: see `_onednn_types`."""
    product_BH: Tensor = torch.ops.mkldnn._linear_pointwise(x_BD, weight_HD, bias_H, "none", [], "")
    return product_BH


class Linear(nn.Linear):
    """`nn.Linear`, [B, D] -> [B, H]; on a CPU by oneDNN."""

    def forward(self, x_BD: Tensor) -> Tensor:
        if x_BD.dtype in ONEDNN and x_BD.device.type == "cpu":
            y_BH: Tensor = _OneDNN.apply(x_BD, self.weight, self.bias)  # type: ignore[no-untyped-call]
            return y_BH
        return F.linear(x_BD, self.weight, self.bias)
