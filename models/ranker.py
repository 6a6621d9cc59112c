"""The whole model: embeddings and, on top of them, the dense network.

Shapes: B rows, F dense features, D combined features, C output columns.
"""

from collections.abc import Mapping
from copy import deepcopy
from typing import Self

import torch
from torch import Tensor, nn
from torchrec import KeyedJaggedTensor

from models.config import ModelConfig
from models.embeddings import Embeddings, pooled_width
from models.heads import HEADS
from models.mlp import MLP
from models.towers import OutputLayout, Tower, Towers
from pipeline.spec.spec import Spec


class Network(nn.Module):
    """The dense part: an optional shared bottom, a head, and towers."""

    def __init__(self, d_in: int, layout: OutputLayout, config: ModelConfig) -> None:
        """`d_in` is D."""
        super().__init__()
        self.d_in = d_in
        self.bottom = MLP(d_in, config.bottom, config)
        self.head = HEADS[config.head](self.bottom.d_out, len(layout.widths), config)
        self.towers = Towers(self.head.d_out, layout, config)

    def forward(self, x_BD: Tensor) -> Tensor:
        """Logits of the binary and transformed values of the regression objectives, [B, C]."""
        outputs_BC: Tensor = self.towers(self.head(self.bottom(x_BD)))
        return outputs_BC

    def rounded(self, precision: torch.dtype) -> Self:
        """A copy with weights of `precision`. The last layers stay fp32, so that no logit and no time is rounded."""
        copied = deepcopy(self).to(precision)
        for tower in copied.towers.towers:
            assert isinstance(tower, Tower)
            tower.output.float()
        return copied


def table_weight(table: str) -> str:
    """The name of a table's weights in the state of a `Ranker`, sharded or not."""
    return f"embeddings.tables.embedding_bags.{table}.weight"


class Ranker(nn.Module):
    """Predicts every objective of a spec for every row; `layout` says which output column is which.

    It knows nothing of sharding, devices and precision: training applies them from outside.
    """

    def __init__(self, spec: Spec, rows: Mapping[str, int], config: ModelConfig, tables_device: torch.device) -> None:
        """`rows` is the number of rows of each embedding table. Only the tables are made on `tables_device`."""
        super().__init__()
        self.layout = OutputLayout.from_spec(spec, config.towers)
        self.network = Network(pooled_width(spec) + len(spec.dense_features), self.layout, config)
        # The tables come last, so that the rest begins with the same weights for any sizes and device of the tables.
        self.embeddings = Embeddings(spec, rows, tables_device)

    def forward(self, sparse: KeyedJaggedTensor, dense_BF: Tensor) -> Tensor:
        """Logits of the binary and transformed values of the regression objectives, [B, C].

        `sparse` has a key for each of `spec.sparse_features`; `dense_BF` is in the order of `spec.dense_features`.
        """
        outputs_BC: Tensor = self.network(torch.cat([self.embeddings(sparse), dense_BF], dim=1))
        return outputs_BC
