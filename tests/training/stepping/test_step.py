"""A step never waits for the device. Tensors on the device "meta" have no values, so reading one fails."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.testing._internal.distributed.fake_pg import FakeStore
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torchrec import KeyedJaggedTensor

from models.config import ModelConfig
from models.losses import Objectives
from models.ranker import Ranker
from pipeline.batches.batch import Batch
from pipeline.spec.file import load_spec
from pipeline.spec.spec import Spec
from pipeline.training.stepping.gradients import DenseGradients
from pipeline.training.stepping.step import Stepper
from pipeline.training.watching.window import Window

B, META = 6, torch.device("meta")


class NothingFromTheHost(TorchDispatchMode):
    """Fails where an operation takes, or copies to the device, a tensor of the host."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        hosted = [value for value in tree_leaves((args, kwargs)) if isinstance(value, Tensor) and not value.is_meta]
        assert not hosted, f"{func} takes a tensor of the host"
        return func(*args, **(kwargs or {}))


class NothingFromLists(TorchFunctionMode):
    """Fails where a tensor is made of Python's numbers, which copies them to the device unseen by the mode above."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        assert func not in (torch.tensor, torch.as_tensor, Tensor.new_tensor), f"{func} copies from the host"
        return func(*args, **(kwargs or {}))


@pytest.fixture
def two_ranks() -> Iterator[None]:
    """A process group whose collectives do nothing."""
    dist.init_process_group("fake", rank=0, world_size=2, store=FakeStore())
    yield
    dist.destroy_process_group()


def batch(spec: Spec) -> Batch:
    features, objectives, scenes = len(spec.sparse_features), len(spec.objectives), len(spec.scenes)
    ids, lengths = torch.zeros(features * B, dtype=torch.int64), torch.ones(features * B, dtype=torch.int32)
    return Batch(
        KeyedJaggedTensor(list(spec.sparse_features), ids, lengths=lengths, length_per_key=[B] * features),
        dense=torch.ones(B, len(spec.dense_features)),
        labels=torch.ones(B, objectives),
        masks=torch.ones(B, objectives, dtype=torch.bool),
        scenes=torch.ones(B, scenes, dtype=torch.bool),
        weight=torch.ones(B),
    ).to(META)


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_a_step_asks_the_device_for_nothing(spec_path: Path, precision: torch.dtype, two_ranks: None):
    spec = load_spec(spec_path)
    ranker = Ranker(spec, dict.fromkeys(spec.tables, 3), ModelConfig(norm="layer", dropout=0.1), META).to(META)
    objectives = Objectives(spec, ranker.layout)
    gradients = DenseGradients(ranker.network, objectives, precision, slices=1)
    skipping: list[Tensor] = []
    optimisers = SimpleNamespace(skip_unless=skipping.append)  # Adam's own step asks for nothing
    stepper = Stepper(ranker.embeddings, gradients, optimisers, torch.device("cpu"))
    window = Window(objectives, META, skipped=0, in_a_row=0)
    rows = batch(spec)
    stepper._forward(rows)  # the first step may copy constants to the device, where they stay
    with NothingFromTheHost(), NothingFromLists():
        for _ in range(2):
            loss, result = stepper._forward(rows)
            loss.backward()
            window.add(result)
    assert all(weight.grad is not None and weight.grad.is_meta for weight in ranker.network.parameters())
    assert [finite.is_meta for finite in skipping] == [True] * 3
    with pytest.raises(RuntimeError, match="meta"):
        _ = window.skipped
