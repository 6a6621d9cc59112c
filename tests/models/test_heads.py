"""Every head against its published equations, written out here in NumPy with the module's weights."""

import numpy as np
import pytest
import torch
from torch import nn

from models.config import ModelConfig
from models.heads import HEADS, Gate, mix

D, T, B = 6, 3, 5


def make(head: str, **options) -> nn.Module:
    """A head of double precision with biases that are not small."""
    torch.manual_seed(7)
    config = ModelConfig(head=head, **{"shared_experts": 2, "own_experts": 2, "expert": (5, 4), **options})
    module = HEADS[head](D, T, config).double()
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.7)
    return module


def rows() -> torch.Tensor:
    return torch.randn(B, D, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


# ------------------------------------------------------------------------------- the equations, independently


def f(network: nn.Module, x: np.ndarray) -> np.ndarray:
    """Linear layers, each followed by a ReLU."""
    for linear in network.modules():
        if isinstance(linear, nn.Linear):
            x = np.maximum(0, x @ linear.weight.detach().numpy().T + linear.bias.detach().numpy())
    return x


def g(gate: nn.Module, x: np.ndarray) -> np.ndarray:
    """softmax(W x), x behind the gate's hidden layers."""
    assert gate.scores.bias is None
    e = np.exp(f(gate.hidden, x) @ gate.scores.weight.detach().numpy().T)
    return e / e.sum(axis=1, keepdims=True)


def weighted(weights: np.ndarray, experts: list[np.ndarray]) -> np.ndarray:
    return np.einsum("be,ebh->bh", weights, np.stack(experts))


def single_task(head, x):
    return [f(head.networks[k], x) for k in range(T)]


def shared_bottom(head, x):
    return [f(head.network, x)] * T


def moe(head, x):
    return [weighted(g(head.gate, x), [f(e, x) for e in head.experts])] * T


def mmoe(head, x):
    return [weighted(g(head.gates[k], x), [f(e, x) for e in head.experts]) for k in range(T)]


def cgc(head, x):
    (level,) = head.levels
    shared = [f(e, x) for e in level.shared]
    return [weighted(g(level.gates[k], x), [f(e, x) for e in level.own[k]] + shared) for k in range(T)]


def ple(head, x):
    task, common = [x] * T, x
    for j, level in enumerate(head.levels):
        shared = [f(e, common) for e in level.shared]
        own = [[f(e, task[k]) for e in level.own[k]] for k in range(T)]
        after = [weighted(g(level.gates[k], task[k]), own[k] + shared) for k in range(T)]
        if j + 1 < len(head.levels):
            common = weighted(g(level.shared_gate, common), own[0] + own[1] + own[2] + shared)
        task = after
    return task


EQUATIONS = {
    "single_task": single_task,
    "shared_bottom": shared_bottom,
    "moe": moe,
    "mmoe": mmoe,
    "cgc": cgc,
    "ple": ple,
}


@pytest.mark.parametrize("gate", [(), (3,)], ids=["linear gates", "gates with a hidden layer"])
@pytest.mark.parametrize(
    ("head", "levels"), [*((name, 1) for name in EQUATIONS if name != "cgc"), ("cgc", 3), ("ple", 2), ("ple", 3)]
)
def test_forward_is_the_published_equation(head, levels, gate):
    module = make(head, levels=levels, gate=gate)
    expected = EQUATIONS[head](module, rows().numpy())
    outputs = module(rows())
    assert len(outputs) == T
    assert module.d_out == 4
    for output, tower in zip(outputs, expected, strict=True):
        np.testing.assert_allclose(output.detach().numpy(), tower, rtol=1e-12)


def test_levels_are_as_many_as_configured_and_only_the_last_has_no_shared_gate():
    assert [level.shared_gate is None for level in make("ple", levels=3).levels] == [False, False, True]
    assert [level.shared_gate is None for level in make("cgc", levels=3).levels] == [True]


# ----------------------------------------------------------------------------------------------- who sees what


def changed_towers(head: nn.Module, expert: nn.Module) -> list[bool]:
    """Which towers' representations change when one expert does."""
    before = head(rows())
    with torch.no_grad():
        list(expert.parameters())[-1].add_(1.0)
    return [not torch.equal(a, b) for a, b in zip(before, head(rows()), strict=True)]


def test_in_cgc_an_own_expert_reaches_only_its_tower():
    head = make("cgc")
    assert changed_towers(head, head.levels[0].own[1][0]) == [False, True, False]


def test_in_cgc_a_shared_expert_reaches_all_towers():
    head = make("cgc")
    assert changed_towers(head, head.levels[0].shared[1]) == [True, True, True]


def test_in_ple_an_own_expert_reaches_all_towers_through_the_next_level():
    head = make("ple", levels=2)
    assert changed_towers(head, head.levels[0].own[1][0]) == [True, True, True]


def test_in_ple_an_own_expert_of_the_last_level_reaches_only_its_tower():
    head = make("ple", levels=2)
    assert changed_towers(head, head.levels[1].own[1][0]) == [False, True, False]


def test_in_single_task_a_network_reaches_only_its_tower():
    head = make("single_task")
    assert changed_towers(head, head.networks[2]) == [False, False, True]


# ------------------------------------------------------------------------------------------- parts and training


def test_a_gate_must_have_a_weight_for_each_expert():
    with pytest.raises(ValueError, match="zip"):
        mix(torch.ones(2, 3), [torch.ones(2, 4)] * 2)


def test_gate_weights_can_be_read_with_a_hook():
    head, seen = make("ple"), []
    for module in head.modules():
        if isinstance(module, Gate):
            module.register_forward_hook(lambda _module, _inputs, weights: seen.append(weights))
    head(rows())
    # Per level T gates over 2 own and 2 shared experts; at the first also one over all T * 2 + 2.
    assert [tuple(weights.shape) for weights in seen] == [(B, 4)] * T + [(B, 8)] + [(B, 4)] * T
    for weights in seen:
        torch.testing.assert_close(weights.sum(dim=1), torch.ones(B, dtype=torch.float64))


@pytest.mark.parametrize("head", list(HEADS))
def test_every_parameter_gets_a_gradient(head):
    module = make(head, activation="silu", gate=(3,))
    torch.stack(module(rows())).square().sum().backward()
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


EXPERT, EXPERT_2 = (D * 5 + 5) + (5 * 4 + 4), (4 * 5 + 5) + (5 * 4 + 4)


@pytest.mark.parametrize(
    ("head", "parameters"),
    [
        ("single_task", T * EXPERT),
        ("shared_bottom", EXPERT),
        ("moe", 2 * EXPERT + D * 2),
        ("mmoe", 2 * EXPERT + T * D * 2),
        ("cgc", (T * 2 + 2) * EXPERT + T * D * 4),
        ("ple", (T * 2 + 2) * EXPERT + T * D * 4 + D * 8 + (T * 2 + 2) * EXPERT_2 + T * 4 * 4),
    ],
)
def test_parameters_are_those_of_the_experts_and_gates_and_no_more(head, parameters):
    assert sum(parameter.numel() for parameter in make(head).parameters()) == parameters
