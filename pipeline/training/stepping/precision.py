"""The precision in which the dense network is multiplied."""

from typing import Literal

import torch

from models.ranker import Network
from pipeline.training.private_apis import cpu_multiplies_bf16
from pipeline.training.processes import Rank

DensePrecision = Literal["auto", "fp32", "bf16"]
# A network with fewer weights spends its time outside of the products, so rounding them would gain nothing.
LEAST_WEIGHTS = 50_000


def select_precision(wanted: DensePrecision, network: Network, rank: Rank) -> torch.dtype:
    """The precision of activations and of the weights' rounded copies. Adam keeps its weights in fp32 either way.

    `auto` is bf16 where the processor multiplies it in hardware and the network is large enough to gain. It follows
    from the machine and the model alone, never from a measurement: a resumed run decides as it did before.
    """
    if wanted == "auto":
        large = sum(weight.numel() for weight in network.parameters()) >= LEAST_WEIGHTS
        wanted = "bf16" if large and _has_fast_bf16(rank.device) else "fp32"
    return {"fp32": torch.float32, "bf16": torch.bfloat16}[wanted]


def _has_fast_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return cpu_multiplies_bf16()
