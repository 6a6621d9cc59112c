"""Batched experts, as a GPU runs them, against the experts one by one."""

import pytest
import torch
from torch import Tensor

from models import experts, heads
from models.config import ModelConfig
from models.experts import Experts, batched
from models.heads import HEADS

B, D, T = 9, 6, 3
OPTIONS = {
    "plain": {},
    "normalised": {"norm": "layer", "activation": "gelu"},
    "dropping": {"dropout": 0.5, "gate": (3,)},  # in evaluation: there is no second draw like the first
}


def run(head: torch.nn.Module, x_BD: Tensor) -> list[Tensor]:
    """Outputs, and the gradients of the input and of every parameter."""
    x_BD = x_BD.clone().requires_grad_()
    outputs = head(x_BD)
    loss = sum((output * (k + 1)).square().sum() for k, output in enumerate(outputs))
    return [*outputs, *torch.autograd.grad(loss, [x_BD, *head.parameters()])]


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("name", HEADS)
def test_batched_experts_give_the_outputs_and_gradients_of_single_ones(
    name: str, options: str, monkeypatch: pytest.MonkeyPatch
):
    torch.manual_seed(3)
    config = ModelConfig(head=name, levels=3, shared_experts=3, own_experts=2, expert=(5, 4), **OPTIONS[options])
    head = HEADS[name](D, T, config).double().eval()
    for parameter in head.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    x_BD = torch.randn(B, D, dtype=torch.float64)
    expected = run(head, x_BD)
    batches = []

    def counted(*arguments: list) -> list[list[Tensor]]:
        batches.append([len(group) for group in arguments[0]])
        return batched(*arguments)

    for module in (experts, heads):
        monkeypatch.setattr(module, "side_by_side", counted)
    for found, tensor in zip(run(head, x_BD), expected, strict=True):
        torch.testing.assert_close(found, tensor, rtol=1e-10, atol=1e-10)
    level = [2] * T + [3]
    assert batches == {"single_task": [[T]], "shared_bottom": [], "moe": [[3]], "mmoe": [[3]], "cgc": [level]}.get(
        name, [level] * 3
    )


def test_each_expert_drops_elements_of_its_own():
    group = Experts(3, D, ModelConfig(expert=(64,), dropout=0.5, activation="silu"))
    for expert in group:
        expert.load_state_dict(group[0].state_dict())
    first, second, third = batched([group], [torch.randn(B, D)])[0]
    assert not torch.equal(first == 0, second == 0)
    assert not torch.equal(second == 0, third == 0)
