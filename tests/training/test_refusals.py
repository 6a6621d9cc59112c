"""What a run refuses before it has written anything."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import tyro
from torch.distributed import TCPStore

from pipeline.errors import StrataError
from pipeline.manifest import MANIFEST, Manifest
from pipeline.training.config import TrainConfig
from pipeline.training.predict import predict
from pipeline.training.processes import Job
from pipeline.training.saving.checkpoints import Progress, commit
from pipeline.training.train import train
from tests.training.altered import linked, manifest_content

Arguments = Callable[..., list[str]]


def refusal(arguments: list[str]) -> str:
    with pytest.raises(StrataError) as caught:
        train(tyro.cli(TrainConfig, args=arguments))
    return str(caught.value)


@pytest.fixture
def run(tmp_path: Path, arguments: Arguments) -> Path:
    """A run before its first checkpoint."""
    folder = tmp_path / "run"
    folder.mkdir()
    tyro.cli(TrainConfig, args=arguments(folder)).save()
    return folder


def test_a_run_is_not_overwritten(run: Path, arguments: Arguments):
    assert refusal(arguments(run)) == (
        f"{run}: already holds a run; pass --resume to go on with it, or choose another --out"
    )


def test_a_restart_by_torchrun_takes_up_its_own_run_only(
    run: Path, arguments: Arguments, monkeypatch: pytest.MonkeyPatch
):
    """torchrun --max-restarts starts a refused command again. That restart must not count as --resume."""
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    place = {"TORCHELASTIC_USE_AGENT_STORE": "True", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port)}
    for name, value in (place | {"TORCHELASTIC_RESTART_COUNT": "1"}).items():
        monkeypatch.setenv(name, value)
    assert "already holds a run" in refusal(arguments(run))
    Job(run).begin()
    assert "was trained with another" in refusal(arguments(run, "--loop.seed 5"))


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


def test_a_run_is_not_resumed_on_other_samples(run: Path, arguments: Arguments, manifest: Manifest):
    aside = run / "checkpoints" / ".step-00000001.partial"
    aside.mkdir(parents=True)
    commit(aside, run, Progress(manifest="of others", step=1), {}, keep=1)
    assert f"{run}: lacks manifest.json" in refusal(arguments(run, "--resume"))
    (run / MANIFEST).write_text(manifest.model_dump_json())
    assert "was trained on other samples" in refusal(arguments(run, "--resume"))


def test_a_folder_with_something_else_is_left_alone(tmp_path: Path, arguments: Arguments):
    note = tmp_path / "thesis.tex"
    note.touch()
    assert "is not empty and is no run" in refusal(arguments(tmp_path))
    assert "is not empty and is no run" in refusal(arguments(note))
    assert list(tmp_path.iterdir()) == [note]


@pytest.mark.skipif(torch.cuda.is_available(), reason="here CUDA is no mistake")
def test_cuda_is_refused_where_there_is_none(tmp_path: Path, arguments: Arguments):
    assert refusal(arguments(tmp_path / "run", "--device cuda")) == (
        "--device cuda: there is no CUDA device; use --device cpu"
    )
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("option", ["--tables.overrides usr row_wise", "--tables.kernel-overrides usr fused"])
def test_an_override_of_no_table_is_refused(tmp_path: Path, arguments: Arguments, option: str):
    message = refusal(arguments(tmp_path / "run", option))
    assert message.startswith(f"{option.split()[0]}: there is no table `usr`; use user, video, ")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--tables.weights bf16", "--tables.weights: bf16 needs CUDA; use fp16 or fp32"),
        ("--tables.communication bf16", "--tables.communication: bf16 needs CUDA; use fp16 or fp32"),
        ("--tables.kernels fused fused_uvm", "--tables.kernels: fused_uvm needs CUDA; use fused"),
        (
            "--tables.kernel-overrides user fused_uvm_caching",
            "--tables.kernel-overrides: fused_uvm_caching needs CUDA; use fused",
        ),
        (
            "--tables.overrides user data_parallel --tables.kernel-overrides user fused_uvm",
            "--tables.kernel-overrides: `user` is replicated, and a replicated table has no kernel but fused; "
            "shard it in another way, or give it no kernel",
        ),
    ],
)
def test_what_a_cpu_cannot_do_with_tables_is_refused(tmp_path: Path, arguments: Arguments, option: str, message: str):
    assert refusal(arguments(tmp_path / "run", option)) == message
    assert not (tmp_path / "run").exists()


def test_a_table_too_large_for_this_machine_is_refused(tmp_path: Path, arguments: Arguments, samples: Path):
    """Its weights would take 6.4 TB, its sums 0.4, and both have a copy."""
    manifest = manifest_content(samples)
    manifest["learned"]["table_rows"]["user"] = 10**11
    large = linked(samples, tmp_path / "samples", manifest)
    message = refusal(arguments(tmp_path / "run", f"--samples {large}"))
    assert message.startswith(
        "--tables: do not fit: at least 13.6 TB needed for 1 rank on cpu together, with copies for checkpoints (largest"
    )
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("split", ["train", "valid"])
def test_too_few_rows_are_refused_before_the_folder_is_made(
    tmp_path: Path, arguments: Arguments, samples: Path, split: str
):
    """Every split is checked at the start, not when training first reads it."""
    manifest = manifest_content(samples)
    manifest["files"] = [file for file in manifest["files"] if file["split"] != split]
    few = linked(samples, tmp_path / "samples", manifest)
    message = refusal(arguments(tmp_path / "run", f"--samples {few}"))
    assert f"rows of the {split} split in batches of" in message
    assert not (tmp_path / "run").exists()


def test_a_split_without_rows_is_not_predicted(tmp_path: Path, run: Path, samples: Path):
    few = linked(samples, tmp_path / "samples", manifest_content(samples) | {"files": []})
    with pytest.raises(StrataError, match=f"{few}: has no rows of the test split; evaluate another split"):
        predict(run, few, "test", tmp_path / "predictions")
    assert not (tmp_path / "predictions").exists()


def test_a_loss_that_is_not_finite_ends_the_run(tmp_path: Path, arguments: Arguments):
    message = refusal(arguments(tmp_path / "run", "--dense.learning-rate 1e30 --loop.bad-steps 2"))
    assert "2 steps in a row, the last of them 3, had no finite gradient (" in message
    assert "lower --dense.learning-rate" in message
