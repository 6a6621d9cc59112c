"""What PyTorch may rename with its next version is replaced where it can be, and named where it cannot."""

import pytest
import torch

from pipeline.training.private_apis import copy_tensors, cpu_multiplies_bf16, skip_step_unless


def test_tensors_are_copied_with_and_without_the_private_function(monkeypatch: pytest.MonkeyPatch):
    sources = [torch.arange(3.0), torch.full((2, 2), 1 / 3)]
    expected = [source.bfloat16() for source in sources]
    for attempt in ("with", "without"):
        targets = [torch.zeros_like(tensor) for tensor in expected]
        copy_tensors(targets, sources)
        assert all(map(torch.equal, targets, expected)), attempt
        monkeypatch.delattr(torch, "_foreach_copy_", raising=False)


def test_a_cpu_of_which_nothing_is_known_multiplies_no_bf16(monkeypatch: pytest.MonkeyPatch):
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.delattr(torch.cpu, name)
    assert not cpu_multiplies_bf16()


def test_an_optimiser_that_cannot_be_found_is_an_error_not_a_step():
    with pytest.raises(RuntimeError, match="keeps the optimiser elsewhere"):
        skip_step_unless(torch.tensor(True), object())
