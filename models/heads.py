"""The heads: from one feature vector per row to one representation per tower.

Shapes: B rows, T towers, E experts, D input, H output of an expert. A head maps x_BD to a list of T tensors [B, H].

Experts are mixed by plain weighted sums: on a CPU they take a fifth of the time of stacking the experts' outputs and
one `bmm`.
"""

from collections.abc import Callable, Sequence
from functools import reduce

import torch
from torch import Tensor, nn

from models.config import ModelConfig
from models.experts import Experts, side_by_side
from models.linear import Linear
from models.mlp import MLP


class Gate(nn.Module):
    """Weights of E experts, g(x) = softmax(W x), [B, D] -> [B, E]; `config.gate` puts hidden layers before W.

    Its output is these weights and nothing else, so that a forward hook on a gate sees them.
    """

    def __init__(self, d_in: int, experts: int, config: ModelConfig) -> None:
        """W has no bias, as published."""
        super().__init__()
        self.hidden = MLP(d_in, config.gate, config)
        self.scores = Linear(self.hidden.d_out, experts, bias=False)

    def forward(self, x_BD: Tensor) -> Tensor:
        """Returns g_BE, each row of which sums to 1."""
        g_BE: Tensor = self.scores(self.hidden(x_BD)).softmax(dim=1)
        return g_BE


def mix(g_BE: Tensor, experts: Sequence[Tensor]) -> Tensor:
    """The weighted sum of E expert outputs [B, H], Σ_i g(x)_i f_i(x), as [B, H]."""
    weighted = (g_B1 * f_BH for g_B1, f_BH in zip(g_BE.split(1, dim=1), experts, strict=True))
    mixed_BH: Tensor = reduce(torch.add, weighted)
    return mixed_BH


class Head(nn.Module):
    """The base of all heads. `d_out` is H, the width of each tower's representation."""

    def __init__(self, towers: int, config: ModelConfig) -> None:
        """Every head ends in the outputs of experts, or of networks like them."""
        super().__init__()
        self.towers = towers
        self.d_out = config.expert[-1]


class SingleTask(Head):
    """A private network f_k for each tower, y_k = h_k(f_k(x)). The towers share nothing but x."""

    def __init__(self, d_in: int, towers: int, config: ModelConfig) -> None:
        """Each network has the layers of one expert."""
        super().__init__(towers, config)
        self.networks = Experts(towers, d_in, config)

    def forward(self, x_BD: Tensor) -> list[Tensor]:
        """One [B, H] per tower."""
        networks: list[Tensor] = self.networks(x_BD)
        return networks


class SharedBottom(Head):
    """One network f for all towers, y_k = h_k(f(x))."""

    def __init__(self, d_in: int, towers: int, config: ModelConfig) -> None:
        """The network has the layers of one expert."""
        super().__init__(towers, config)
        self.network = MLP(d_in, config.expert, config)

    def forward(self, x_BD: Tensor) -> list[Tensor]:
        """The same [B, H] for every tower."""
        return [self.network(x_BD)] * self.towers


class MoE(Head):
    """One gate for all towers, y_k = h_k(Σ_i g(x)_i f_i(x)): OMoE of Ma et al., KDD 2018."""

    def __init__(self, d_in: int, towers: int, config: ModelConfig) -> None:
        """Has `config.shared_experts` experts."""
        super().__init__(towers, config)
        self.experts = Experts(config.shared_experts, d_in, config)
        self.gate = Gate(d_in, config.shared_experts, config)

    def forward(self, x_BD: Tensor) -> list[Tensor]:
        """The same [B, H] for every tower."""
        return [mix(self.gate(x_BD), self.experts(x_BD))] * self.towers


class MMoE(Head):
    """A gate per tower over experts shared by all, y_k = h_k(Σ_i g_k(x)_i f_i(x)): Ma et al., KDD 2018."""

    def __init__(self, d_in: int, towers: int, config: ModelConfig) -> None:
        """Has `config.shared_experts` experts."""
        super().__init__(towers, config)
        self.experts = Experts(config.shared_experts, d_in, config)
        self.gates = nn.ModuleList(Gate(d_in, config.shared_experts, config) for _ in range(towers))

    def forward(self, x_BD: Tensor) -> list[Tensor]:
        """One [B, H] per tower."""
        experts = self.experts(x_BD)
        return [mix(gate(x_BD), experts) for gate in self.gates]


class Extraction(nn.Module):
    """One level of PLE: experts of each tower, shared experts, and gates over them (Tang et al., RecSys 2020).

    The gate of tower k sees tower k's own experts and then the shared ones. The shared gate sees all experts: the own
    experts of every tower in turn, then the shared ones. The last level has no shared gate.
    """

    def __init__(self, d_in: int, towers: int, config: ModelConfig, *, last: bool) -> None:
        """Has `config.own_experts` experts for each tower and `config.shared_experts` shared ones."""
        super().__init__()
        own, shared = config.own_experts, config.shared_experts
        self.own = nn.ModuleList(Experts(own, d_in, config) for _ in range(towers))
        self.shared = Experts(shared, d_in, config)
        self.gates = nn.ModuleList(Gate(d_in, own + shared, config) for _ in range(towers))
        self.shared_gate = None if last else Gate(d_in, towers * own + shared, config)

    def forward(self, inputs: list[Tensor], shared_BD: Tensor) -> tuple[list[Tensor], Tensor | None]:
        """From the towers' inputs and the shared input, [B, D], to the towers' outputs and the shared one, [B, H]."""
        *own, shared = side_by_side([*self.own, self.shared], [*inputs, shared_BD])
        outputs = [mix(gate(x_BD), mine + shared) for gate, x_BD, mine in zip(self.gates, inputs, own, strict=True)]
        if self.shared_gate is None:
            return outputs, None
        of_all = [f_BH for mine in own for f_BH in mine] + shared
        return outputs, mix(self.shared_gate(shared_BD), of_all)


class PLE(Head):
    """`config.levels` levels of extraction; x is every input of the first (Tang et al., RecSys 2020)."""

    def __init__(self, d_in: int, towers: int, config: ModelConfig) -> None:
        """All levels have the same numbers and widths of experts and gates."""
        super().__init__(towers, config)
        inputs = [d_in] + [self.d_out] * (config.levels - 1)
        self.levels = nn.ModuleList(
            Extraction(d, towers, config, last=level == config.levels) for level, d in enumerate(inputs, start=1)
        )

    def forward(self, x_BD: Tensor) -> list[Tensor]:
        """One [B, H] per tower."""
        outputs, shared = [x_BD] * self.towers, x_BD
        for level in self.levels:
            outputs, shared = level(outputs, shared)
        return outputs


class CGC(PLE):
    """Customised gate control, f_k(x) = Σ_i g_k(x)_i S_k(x)_i with S_k tower k's own and the shared experts.

    It is PLE of a single level (Tang et al., RecSys 2020), and ignores `config.levels`.
    """

    def __init__(self, d_in: int, towers: int, config: ModelConfig) -> None:
        """Has the experts and gates of one level."""
        super().__init__(d_in, towers, config.model_copy(update={"levels": 1}))


HEADS: dict[str, Callable[[int, int, ModelConfig], Head]] = {
    "single_task": SingleTask,
    "shared_bottom": SharedBottom,
    "moe": MoE,
    "mmoe": MMoE,
    "cgc": CGC,
    "ple": PLE,
}
