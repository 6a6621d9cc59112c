"""The multi-layer perceptron of bottoms, experts, gates and towers.

Shapes: B rows, D input, H width of the last layer.
"""

from collections.abc import Sequence
from itertools import pairwise

from torch import nn

from models.config import ModelConfig
from models.linear import Linear

ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "gelu": nn.GELU, "silu": nn.SiLU}


class MLP(nn.Sequential):
    """Hidden layers of the given widths, [B, D] -> [B, H].

    A layer is linear, then normalised, activated and dropped out. Without widths the MLP is the identity. `d_out` is H.
    """

    def __init__(self, d_in: int, widths: Sequence[int], config: ModelConfig) -> None:
        """Takes activation, norm and dropout from `config`."""
        layers: list[nn.Module] = []
        for d_from, d_to in pairwise((d_in, *widths)):
            layers.append(Linear(d_from, d_to))
            if config.norm == "layer":
                layers.append(nn.LayerNorm(d_to))
            layers.append(ACTIVATIONS[config.activation]())
            if config.dropout:
                layers.append(nn.Dropout(config.dropout))
        super().__init__(*layers)
        self.d_out = widths[-1] if widths else d_in
