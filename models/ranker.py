"""The whole model: embeddings, an optional shared bottom, a head, and towers.

Shapes: B rows, F dense features, D combined features, C output columns.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torchrec import KeyedJaggedTensor

from models.config import ModelConfig
from models.embeddings import Embeddings, pooled_width
from models.heads import HEADS
from models.mlp import MLP
from models.towers import OutputLayout, Towers
from pipeline.spec import Spec


class Ranker(nn.Module):
    """Predicts every objective of a spec for every row; `layout` says which output column is which.

    It knows nothing of sharding, devices or precision: those are applied from outside.
    """

    def __init__(self, spec: Spec, rows: Mapping[str, int], config: ModelConfig, tables_device: torch.device) -> None:
        """`rows` gives the number of rows of each embedding table; only these are made on `tables_device`."""
        super().__init__()
        self.layout = OutputLayout.from_spec(spec, config.towers)
        self.bottom = MLP(pooled_width(spec) + len(spec.dense_features), config.bottom, config)
        self.head = HEADS[config.head](self.bottom.d_out, len(self.layout.widths), config)
        self.towers = Towers(self.head.d_out, self.layout, config)
        # The tables come last: the rest then starts from the same weights whatever their sizes and their device.
        self.embeddings = Embeddings(spec, rows, tables_device)

    def forward(self, sparse: KeyedJaggedTensor, dense_BF: Tensor) -> Tensor:
        """Logits of the binary and transformed values of the regression objectives, [B, C].

        `sparse` has a key for each of `spec.sparse_features`; `dense_BF` is in the order of `spec.dense_features`.
        """
        x_BD = torch.cat([self.embeddings(sparse), dense_BF], dim=1)
        outputs_BC: Tensor = self.towers(self.head(self.bottom(x_BD)))
        return outputs_BC
