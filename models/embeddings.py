"""The embedding tables of a spec, and the pooled embeddings of a row's ids.

Shapes: B rows, D width of all pooled embeddings side by side.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torchrec import EmbeddingBagCollection, EmbeddingBagConfig, KeyedJaggedTensor

from pipeline.spec.features import IdFeature
from pipeline.spec.spec import Spec


def embedding_tables(spec: Spec, rows: Mapping[str, int], device: torch.device) -> EmbeddingBagCollection:
    """One table of `rows[table]` rows for each of `spec.tables`; all features that name it use it.

    Every table pools by sums, and `Embeddings` makes means of them. TorchRec 1.8 gets means wrong: where a plan shards
    one table with mean pooling by rows and another table otherwise, it divides twice, or divides sums.
    """
    assert rows.keys() == spec.tables.keys(), f"rows of {sorted(rows)} for tables {sorted(spec.tables)}"
    return EmbeddingBagCollection(
        tables=[
            EmbeddingBagConfig(
                name=name,
                num_embeddings=rows[name],
                embedding_dim=table.dim,
                feature_names=[f for f, feature in spec.sparse_features.items() if feature.table == name],
            )
            for name, table in spec.tables.items()
        ],
        device=device,
    )


def pooled_width(spec: Spec) -> int:
    """The width D of all pooled embeddings of a spec."""
    return sum(spec.tables[feature.table].dim for feature in spec.sparse_features.values())


class Embeddings(nn.Module):
    """Looks up and pools every sparse feature; `tables` is the collection that TorchRec shards.

    All features are bags of ids: a single id is a bag of one, and an empty bag pools to zeros.
    """

    def __init__(self, spec: Spec, rows: Mapping[str, int], device: torch.device) -> None:
        """On the device "meta" the tables take no memory until they are sharded."""
        super().__init__()
        self.tables = embedding_tables(spec, rows, device)
        features = spec.sparse_features
        self.names = list(features)
        # A bag of one is its own mean.
        self.means = {
            name
            for name, feature in features.items()
            if spec.tables[feature.table].pooling == "mean" and not isinstance(feature, IdFeature)
        }

    def forward(self, sparse: KeyedJaggedTensor) -> Tensor:
        """The features' embeddings side by side, [B, D], in the order of `spec.sparse_features`.

        The keys of `sparse` are those names, in any order.
        """
        # By name: the order of the output depends on how the tables are sharded.
        pooled: dict[str, Tensor] = self.tables(sparse).to_dict()
        return torch.cat([self._mean(name, pooled[name], sparse) for name in self.names], dim=1)

    def _mean(self, name: str, sum_BD: Tensor, sparse: KeyedJaggedTensor) -> Tensor:
        """The mean of each bag, from its sum, for features with mean pooling; the sum for others."""
        if name not in self.means:
            return sum_BD
        lengths_B: Tensor = sparse[name].lengths()
        return sum_BD / lengths_B.clamp(min=1).unsqueeze(1)
