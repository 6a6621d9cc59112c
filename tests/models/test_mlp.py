import math

import pytest
import torch
from pydantic import ValidationError

from models.config import ModelConfig
from models.mlp import MLP


def test_without_widths_it_is_the_identity():
    mlp = MLP(3, (), ModelConfig())
    x = torch.randn(2, 3)
    assert torch.equal(mlp(x), x)
    assert mlp.d_out == 3


@pytest.mark.parametrize(
    ("activation", "formula"),
    [
        ("relu", lambda z: max(0.0, z)),
        ("gelu", lambda z: z * (1 + math.erf(z / math.sqrt(2))) / 2),
        ("silu", lambda z: z / (1 + math.exp(-z))),
    ],
)
def test_a_layer_is_linear_then_normalised_then_activated(activation, formula):
    mlp = MLP(2, (2,), ModelConfig(activation=activation, norm="layer"))
    with torch.no_grad():
        mlp[0].weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 2.0]]))
        mlp[0].bias.copy_(torch.tensor([1.0, -1.0]))
    # x = (2, 5): linear (3, 9), mean 6, standard deviation 3: normalised (-1, 1).
    expected = torch.tensor([[formula(-1.0), formula(1.0)]])
    torch.testing.assert_close(mlp(torch.tensor([[2.0, 5.0]])), expected, atol=1e-5, rtol=0)


def test_dropout_zeroes_a_share_in_training_and_nothing_in_evaluation():
    torch.manual_seed(0)
    mlp = MLP(2, (1000,), ModelConfig(dropout=0.25))
    torch.nn.init.zeros_(mlp[0].weight)
    torch.nn.init.ones_(mlp[0].bias)
    assert 0.2 < (mlp(torch.ones(1, 2)) == 0).float().mean() < 0.3
    assert torch.equal(mlp.eval()(torch.ones(1, 2)), torch.ones(1, 1000))


@pytest.mark.parametrize("wrong", [{"head": "plee"}, {"expert": ()}, {"levels": 0}, {"dropout": 1.0}, {"widths": (3,)}])
def test_a_configuration_that_makes_no_sense_is_refused(wrong):
    with pytest.raises(ValidationError):
        ModelConfig(**wrong)
