"""What training takes from PyTorch and TorchRec that has no public name: one function each.

All were tried on torch 2.13.0, torchrec 1.8.0 and fbgemm 1.8.0. With another version, look here first.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.distributed._shard.sharded_tensor.api import ShardedTensor
from torchrec.optim.keyed import KeyedOptimizerWrapper

__all__ = ["ShardedTensor", "copy_tensors", "cpu_multiplies_bf16", "skip_step_unless"]
# ShardedTensor: the type of a table's weights in the state of a sharded model. TorchRec takes it from the same place,
# so a version without it cannot import TorchRec either.


def copy_tensors(targets: Sequence[Tensor], sources: Sequence[Tensor]) -> None:
    """Copies each source into its target, with one call for all of them.

    `torch._foreach_copy_` of torch 2.13.0; without it, one call for each tensor.
    """
    copy_all = getattr(torch, "_foreach_copy_", None)
    if copy_all is not None:
        copy_all(targets, sources)
        return
    for target, source in zip(targets, sources, strict=True):
        target.copy_(source)


def cpu_multiplies_bf16() -> bool:
    """Whether this CPU has instructions that multiply bf16.

    `torch.cpu._is_avx512_bf16_supported` and `torch.cpu._is_amx_tile_supported` of torch 2.13.0. Without them the
    answer is no, and `--dense.precision auto` takes fp32.
    """
    questions = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(bool(getattr(torch.cpu, question, lambda: False)()) for question in questions)


def skip_step_unless(finite: Tensor, optimiser: KeyedOptimizerWrapper) -> None:
    """Makes the next step of a fused optimiser do nothing where `finite`, a scalar on its device, is false.

    The attribute `found_inf` of a fused optimiser of torch 2.13.0, which PyTorch's gradient scaler sets in the same
    way, and `KeyedOptimizerWrapper._optimizer` of torchrec 1.8.0, the optimiser inside.
    """
    inner = getattr(optimiser, "_optimizer", None)
    if not isinstance(inner, torch.optim.Optimizer):
        raise RuntimeError("this version of torchrec keeps the optimiser elsewhere: see pipeline/training/private_apis")
    inner.found_inf = (~finite).float()  # type: ignore[attr-defined]
