"""In which precision the dense network is multiplied."""

from typing import Literal

import torch

from models.ranker import Network
from pipeline.training.processes import Rank

Precision = Literal["auto", "fp32", "bf16"]
# Below so many weights a product takes no longer than what goes on around it, and rounding would buy nothing.
LEAST_WEIGHTS = 50_000


def chosen(wanted: Precision, network: Network, rank: Rank) -> torch.dtype:
    """The precision of activations and of the weights' rounded copies; Adam's weights are in fp32 either way.

    `auto` is bf16 where the processor multiplies it in hardware and the network is large enough to gain. It follows
    from the machine and the model alone, never from a measurement: a resumed run decides as it did before.
    """
    if wanted == "auto":
        large = sum(weight.numel() for weight in network.parameters()) >= LEAST_WEIGHTS
        wanted = "bf16" if large and _fast_bf16(rank.device) else "fp32"
    return {"fp32": torch.float32, "bf16": torch.bfloat16}[wanted]


def _fast_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
