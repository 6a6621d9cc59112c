"""Codecs that send embeddings and their gradients between ranks in less than fp32."""

import torch
from fbgemm_gpu.quantize_comm import QuantizationContext, QuantizedCommCodec
from fbgemm_gpu.split_embedding_configs import SparseType
from torch import Tensor
from torchrec.distributed.fbgemm_qcomm_codec import CommType, QCommsConfig, get_qcomm_codecs_registry
from torchrec.distributed.types import QuantizedCommCodecs

from pipeline.training.tables.config import TablePrecision


class ScaledCodec(QuantizedCommCodec):
    """Sends gradients in fp16, scaled up: each is a share of a mean over many rows, and would be rounded to zero.

    FBGEMM's own scale does not help: it is taken off again while the numbers are still fp16.
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


def codecs(precision: TablePrecision, device: str, rows: int) -> dict[str, QuantizedCommCodecs] | None:
    """The codecs of a sharder, by collective operation; None for fp32. `rows` is the size of a rank's batch."""
    kind = CommType(precision)
    made = get_qcomm_codecs_registry(QCommsConfig(kind, kind), device=torch.device(device))
    if made and kind == CommType.FP16:
        for both in made.values():
            both.backward = ScaledCodec(float(1 << rows.bit_length()))  # a power of two, which rounds nothing
    return dict(made) if made else None
