"""The dense network's gradients, in slices and in bf16, against one plain backward pass."""

import threading

import pytest
import torch

from models.config import ModelConfig
from models.losses import Objectives
from models.ranker import Network
from models.towers import OutputLayout
from pipeline.manifest import Manifest
from pipeline.training.stepping.gradients import LEAST_ROWS, DenseGradients

D, ROWS = 24, 4 * LEAST_ROWS + 37


@pytest.fixture(scope="module")
def objectives(manifest: Manifest) -> Objectives:
    return Objectives(manifest.spec, OutputLayout.from_spec(manifest.spec, "objective"))


@pytest.fixture
def network(objectives: Objectives) -> Network:
    torch.manual_seed(0)
    return Network(D, objectives.layout, ModelConfig(head="ple", expert=(32, 16), tower=(16,)))


@pytest.fixture(scope="module")
def rows(manifest: Manifest) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
    """Inputs, and labels, masks, scenes and weights, of which some labels are missing."""
    generator = torch.Generator().manual_seed(1)
    scenes, objectives = len(manifest.spec.scenes), len(manifest.spec.objectives)
    masks = torch.rand(ROWS, objectives, generator=generator) < 0.7
    labels = (torch.rand(ROWS, objectives, generator=generator) < 0.3).float()
    labels[~masks] = torch.nan
    targets = labels, masks, torch.rand(ROWS, scenes, generator=generator) < 0.6, torch.rand(ROWS, generator=generator)
    return torch.randn(ROWS, D, generator=generator), targets


def plain(
    network: Network, objectives: Objectives, x: torch.Tensor, targets: tuple[torch.Tensor, ...]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Losses, gradient of x and of all weights in one row."""
    x = x.clone().requires_grad_()
    losses, weights = objectives.weighted_sums(network(x), *targets)
    objectives.combine(losses, weights).backward()
    assert x.grad is not None
    flat = torch.cat(
        [torch.zeros_like(p).view(-1) if p.grad is None else p.grad.view(-1) for p in network.parameters()]
    )
    network.zero_grad()
    return losses.detach(), x.grad, flat


@pytest.mark.parametrize("slices", [1, 2, 3])
def test_slices_add_up_to_the_whole_batch(network: Network, objectives: Objectives, rows, slices: int):
    x, targets = rows
    expected = plain(network, objectives, x, targets)
    gradients = DenseGradients(network, objectives, torch.float32, slices)
    threads = torch.get_num_threads()
    for _ in range(2):  # nothing of the step before is left
        losses, gradient = gradients(x, targets, objectives.weights(*targets[1:]))
    for found, wanted in zip((losses, gradient, gradients.flat_P), expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-6)
    grads = torch.cat([weight.grad.view(-1) for weight in network.parameters()])
    assert torch.equal(grads, gradients.flat_P)  # these are what Adam looks at
    assert torch.get_num_threads() == threads


def test_a_slice_has_one_thread_and_the_caller_keeps_all(network: Network, objectives: Objectives):
    together = threading.Barrier(2, timeout=60)

    def threads(_: int) -> int:
        together.wait()
        return torch.get_num_threads()

    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        gradients = DenseGradients(network, objectives, torch.float32, 2)
        assert list(gradients._pool.map(threads, range(2))) == [1, 1]
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_the_same_slices_give_the_same_bits(network: Network, objectives: Objectives, rows):
    x, targets = rows
    weights = objectives.weights(*targets[1:])
    found = []
    for _ in range(3):
        gradients = DenseGradients(network, objectives, torch.bfloat16, 2)
        found.append([*gradients(x, targets, weights), gradients.flat_P])
    assert all(torch.equal(a, b) for other in found[1:] for a, b in zip(found[0], other, strict=True))


def test_bf16_rounds_products_but_neither_weights_nor_outputs(network: Network, objectives: Objectives, rows):
    x, targets = rows
    before = [weight.clone() for weight in network.parameters()]
    expected = plain(network, objectives, x, targets)
    gradients = DenseGradients(network, objectives, torch.bfloat16, 2)
    losses, gradient = gradients(x, targets, objectives.weights(*targets[1:]))
    assert all(tensor.dtype == torch.float32 for tensor in (losses, gradient, gradients.flat_P))
    torch.testing.assert_close(losses, expected[0], rtol=2e-2, atol=1e-3)
    for found, wanted in zip((gradient, gradients.flat_P), expected[1:], strict=True):
        assert 1e-4 < (found - wanted).norm() / wanted.norm() < 0.15  # of small gradients, where ReLUs tip over
    assert all(torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True))
    assert {tower.output.weight.dtype for tower in gradients.network.towers.towers} == {torch.float32}
    with torch.no_grad():  # what Adam does is seen by the next step
        for weight in network.parameters():
            weight.mul_(0)
    losses, _ = gradients(torch.zeros_like(x), targets, objectives.weights(*targets[1:]))
    with torch.no_grad():
        zeros, _ = objectives.weighted_sums(network(torch.zeros_like(x)), *targets)
    torch.testing.assert_close(losses, zeros, rtol=1e-5, atol=0)


def test_a_row_that_is_not_finite_shows(network: Network, objectives: Objectives, rows):
    x, targets = rows
    x = x.clone()
    x[5] = torch.inf
    losses, gradient = DenseGradients(network, objectives, torch.float32, 2)(
        x, targets, objectives.weights(*targets[1:])
    )
    assert not torch.stack([losses.sum(), gradient.sum()]).isfinite().any()
