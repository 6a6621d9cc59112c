from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from pipeline.errors import StrataError
from pipeline.training.checkpoints import (
    Progress,
    best_checkpoint,
    complete_checkpoints,
    load_checkpoint,
    save_checkpoint,
)
from pipeline.training.processes import process_group


@pytest.fixture(autouse=True)
def group() -> Iterator[None]:
    with process_group("cpu"):
        yield


def tensors(value: float = 0.0) -> dict[str, dict[str, torch.Tensor]]:
    return {"model": {"w": torch.tensor([value, 2 * value])}}


def save(run: Path, step: int, valid_loss: float | None = None) -> Path:
    return save_checkpoint(run, tensors(step), Progress(encoding="", step=step, valid_loss=valid_loss))


def steps(run: Path) -> list[int]:
    return [int(path.name.removeprefix("step-")) for path in complete_checkpoints(run)]


def test_the_newest_and_the_best_are_kept(tmp_path: Path):
    kept = []
    for step, loss in ((10, 3.0), (20, 1.0), (25, None), (30, 1.0), (40, 2.0), (100, None)):
        save(tmp_path, step, loss)
        kept.append(steps(tmp_path))
    assert kept == [[10], [20], [20, 25], [20, 30], [20, 40], [20, 100]]
    assert best_checkpoint(tmp_path).name == "step-00000020"


def test_without_validation_the_newest_is_best(tmp_path: Path):
    for step in (8, 9, 10):
        save(tmp_path, step)
    assert best_checkpoint(tmp_path).name == "step-00000010"


def test_half_written_ones_do_not_exist(tmp_path: Path):
    (tmp_path / "checkpoints" / ".step-00000009.partial").mkdir(parents=True)
    (tmp_path / "checkpoints" / ".step-00000009.partial" / "progress.json").write_text('{"encoding": ""}')
    (tmp_path / "checkpoints" / "step-00000008").mkdir()
    with pytest.raises(StrataError, match="has no complete checkpoint; train it first"):
        best_checkpoint(tmp_path)
    save(tmp_path, 9)
    assert steps(tmp_path) == [9]


@pytest.mark.parametrize("alone", [True, False])
def test_what_was_saved_is_loaded_in_place(tmp_path: Path, alone: bool):
    checkpoint = save(tmp_path, 3)
    here = tensors()
    load_checkpoint(checkpoint, here, alone=alone)
    assert here["model"]["w"].tolist() == [3.0, 6.0]


@pytest.mark.parametrize(
    "other", [{"model": {"v": torch.zeros(2)}}, {"model": {"w": torch.zeros(3)}}], ids=["name", "shape"]
)
def test_one_of_another_model_is_refused(tmp_path: Path, other: dict[str, dict[str, torch.Tensor]]):
    checkpoint = save(tmp_path, 3)
    with pytest.raises(StrataError, match=f"{checkpoint}: cannot be loaded .* with the same spec and model"):
        load_checkpoint(checkpoint, other)


def test_a_damaged_one_is_refused(tmp_path: Path):
    checkpoint = save(tmp_path, 3)
    (checkpoint / ".metadata").write_bytes(b"")
    with pytest.raises(StrataError, match=f"{checkpoint}: cannot be loaded"):
        load_checkpoint(checkpoint, tensors(), alone=True)
