"""Embeddings and their gradients in less than fp32 on the way between ranks."""

import torch
from fbgemm_gpu.quantize_comm import QuantizationContext, QuantizedCommCodec
from fbgemm_gpu.split_embedding_configs import SparseType
from torch import Tensor
from torchrec.distributed.fbgemm_qcomm_codec import CommType, QCommsConfig, get_qcomm_codecs_registry
from torchrec.distributed.types import QuantizedCommCodecs

from pipeline.training.tables.config import Precision


class ScaledCodec(QuantizedCommCodec):
    """fp16 for gradients, scaled up on the way: being of a mean over many rows, they would become zero.

    FBGEMM's own scale does not help, because it is taken off again before the numbers are fp32.
    """

    def __init__(self, scale: float) -> None:
        super().__init__(comm_precision=SparseType.FP16, is_fwd=False)
        self._scale = scale

    def encode(self, input_tensor: Tensor, ctx: QuantizationContext | None = None) -> Tensor:
        encoded: Tensor = super().encode(input_tensor * self._scale, ctx)
        return encoded

    def decode(self, input_tensor: Tensor, ctx: QuantizationContext | None = None) -> Tensor:
        decoded: Tensor = super().decode(input_tensor, ctx) / self._scale
        return decoded


def codecs(precision: Precision, device: str, rows: int) -> dict[str, QuantizedCommCodecs] | None:
    """By collective operation, for a sharder; None is fp32. `rows` are those of a rank's batch."""
    kind = CommType(precision)
    made = get_qcomm_codecs_registry(QCommsConfig(kind, kind), device=torch.device(device))
    if made and kind == CommType.FP16:
        for both in made.values():
            both.backward = ScaledCodec(float(1 << rows.bit_length()))  # a power of two, which rounds nothing
    return dict(made) if made else None
