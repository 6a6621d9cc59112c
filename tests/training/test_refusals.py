"""What a run refuses before it has written anything."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import tyro

from pipeline.errors import StrataError
from pipeline.manifest import MANIFEST
from pipeline.training.config import TrainConfig
from pipeline.training.predict import predict
from pipeline.training.train import train

Arguments = Callable[..., list[str]]


def refusal(arguments: list[str]) -> str:
    with pytest.raises(StrataError) as caught:
        train(tyro.cli(TrainConfig, args=arguments))
    return str(caught.value)


@pytest.fixture
def run(tmp_path: Path, arguments: Arguments) -> Path:
    """A run that has not come to its first checkpoint."""
    folder = tmp_path / "run"
    folder.mkdir()
    tyro.cli(TrainConfig, args=arguments(folder)).save()
    return folder


def test_a_run_is_not_overwritten(run: Path, arguments: Arguments):
    assert refusal(arguments(run)) == (
        f"{run}: already holds a run; pass --resume to go on with it, or choose another --out"
    )


@pytest.mark.parametrize(
    ("change", "option"),
    [
        ("--model.head mmoe", "--model"),
        ("--model.expert 8", "--model"),
        ("--loop.batch-size 400", "--loop.batch-size"),
        ("--loop.shuffle-rows 512", "--loop.shuffle-rows"),
        ("--loop.seed 5", "--loop.seed"),
    ],
)
def test_a_run_is_not_resumed_as_another(run: Path, arguments: Arguments, change: str, option: str):
    message = refusal(arguments(run, f"--resume {change}"))
    assert message.startswith(f"{run}: was trained with another ")
    assert option in message


def test_a_run_is_not_resumed_on_other_samples(run: Path, arguments: Arguments, samples: Path):
    checkpoint = run / "checkpoints" / "step-00000001"
    checkpoint.mkdir(parents=True)
    (checkpoint / "progress.json").write_text('{"encoding": "of others"}')
    assert "was trained on other samples" in refusal(arguments(run, "--resume"))


def test_a_folder_with_something_else_is_left_alone(tmp_path: Path, arguments: Arguments):
    note = tmp_path / "thesis.tex"
    note.touch()
    assert "is not empty and is no run" in refusal(arguments(tmp_path))
    assert "is not empty and is no run" in refusal(arguments(note))
    assert list(tmp_path.iterdir()) == [note]


@pytest.mark.skipif(torch.cuda.is_available(), reason="here CUDA is no mistake")
def test_cuda_is_refused_where_there_is_none(tmp_path: Path, arguments: Arguments):
    assert refusal([*arguments(tmp_path / "run"), "--device", "cuda"]) == (
        "--device cuda: there is no CUDA device; use --device cpu"
    )
    assert not (tmp_path / "run").exists()


def test_an_override_of_no_table_is_refused(tmp_path: Path, arguments: Arguments):
    assert "there is no table `usr`" in refusal(arguments(tmp_path / "run", "--tables.overrides usr row_wise"))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("split", ["train", "valid"])
def test_too_few_rows_are_refused_before_the_folder_is_made(
    tmp_path: Path, arguments: Arguments, samples: Path, split: str
):
    """Every split is checked at once, not when training first comes to it."""
    few = tmp_path / "samples"
    few.mkdir()
    manifest = json.loads((samples / MANIFEST).read_text())
    manifest["files"] = [file for file in manifest["files"] if file["split"] != split]
    for file in manifest["files"]:
        (few / file["path"]).parent.mkdir(parents=True, exist_ok=True)
        (few / file["path"]).symlink_to(samples / file["path"])
    (few / MANIFEST).write_text(json.dumps(manifest))
    message = refusal(arguments(tmp_path / "run", f"--samples {few}"))
    assert f"rows of the {split} split in batches of" in message
    assert not (tmp_path / "run").exists()


def test_a_split_without_rows_is_not_predicted(tmp_path: Path, run: Path, samples: Path):
    few = tmp_path / "samples"
    few.mkdir()
    (few / MANIFEST).write_text(json.dumps(json.loads((samples / MANIFEST).read_text()) | {"files": []}))
    with pytest.raises(StrataError, match=f"{few}: has no rows of the test split; evaluate another split"):
        predict(run, few, "test", tmp_path / "predictions")
    assert not (tmp_path / "predictions").exists()


def test_a_loss_that_is_not_finite_ends_the_run(tmp_path: Path, arguments: Arguments):
    message = refusal(arguments(tmp_path / "run", "--dense.learning-rate 1e30"))
    assert "the loss is nan" in message or "the loss is inf" in message
    assert "lower --dense.learning-rate" in message
