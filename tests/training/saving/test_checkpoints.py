import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from pipeline.errors import StrataError
from pipeline.training.processes import Rank, process_group
from pipeline.training.saving.checkpoints import (
    Progress,
    best_checkpoint,
    check,
    complete_checkpoints,
    damage,
    newest_sound,
    read_progress,
    sweep,
)
from pipeline.training.saving.saver import Saver
from pipeline.training.saving.tensor_files import load_state

Save = Callable[..., Path]


@pytest.fixture(autouse=True)
def rank() -> Iterator[Rank]:
    with process_group("cpu") as rank:
        yield rank


@pytest.fixture
def save(tmp_path: Path, rank: Rank) -> Save:
    """`save(step, valid_loss, keep=)` makes a checkpoint of the run `tmp_path`, in which `w` is [step, 2 * step]."""

    def save(step: int, valid_loss: float | None = None, keep: int = 1) -> Path:
        with Saver(tmp_path, rank, keep) as saver:
            saver.save(
                {"model": {"w": torch.tensor([1.0, 2.0]) * step}},
                Progress(manifest="", step=step, valid_loss=valid_loss),
            )
        return complete_checkpoints(tmp_path)[-1]

    return save


def steps(run: Path) -> list[int]:
    return [int(path.name.removeprefix("step-")) for path in complete_checkpoints(run)]


def flip(path: Path, at: int) -> None:
    """Changes one bit."""
    content = bytearray(path.read_bytes())
    content[at] ^= 4
    path.write_bytes(content)


def test_the_newest_and_the_best_are_kept(tmp_path: Path, save: Save):
    kept = []
    for step, loss in ((10, 3.0), (20, 1.0), (25, None), (30, 1.0), (40, 2.0), (100, None), (100_000_000, None)):
        save(step, loss)
        kept.append(steps(tmp_path))
    assert kept == [[10], [20], [20, 25], [20, 30], [20, 40], [20, 100], [20, 100_000_000]]
    assert best_checkpoint(tmp_path).name == "step-00000020"


def test_as_many_of_the_newest_are_kept_as_asked(tmp_path: Path, save: Save):
    kept = []
    for step, loss in ((1, 2.0), (2, 1.0), (3, None), (4, 1.5), (5, 0.5), (6, None)):
        save(step, loss, keep=3)
        kept.append(steps(tmp_path))
    assert kept == [[1], [1, 2], [1, 2, 3], [2, 3, 4], [3, 4, 5], [4, 5, 6]]


def test_one_that_may_be_the_best_is_not_deleted(tmp_path: Path, save: Save):
    flip(save(1, 0.5) / "progress.json", 20)
    for step in (2, 3):
        save(step, 1.0)
    assert steps(tmp_path) == [1, 2, 3]
    with pytest.raises(StrataError, match=r"step-00000001: is damaged \(progress\.json is not what SHA256SUMS says\)"):
        best_checkpoint(tmp_path)


def test_without_validation_the_newest_is_best(tmp_path: Path, save: Save):
    for step in (8, 9, 10):
        save(step)
    assert best_checkpoint(tmp_path).name == "step-00000010"


def test_half_written_and_half_deleted_ones_do_not_exist(tmp_path: Path, save: Save):
    for name in (".step-00000009.partial", ".step-00000008.old", "step-00000007.damaged", "notes"):
        (tmp_path / "checkpoints" / name).mkdir(parents=True)
        (tmp_path / "checkpoints" / name / "progress.json").write_text('{"encoding": ""}')
    with pytest.raises(StrataError, match="has no complete checkpoint; train it first"):
        best_checkpoint(tmp_path)
    save(9)
    assert steps(tmp_path) == [9]
    sweep(tmp_path, {})
    found = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert found == ["notes", "step-00000007.damaged", "step-00000009"]


def test_nothing_is_deleted_behind_a_symbolic_link(tmp_path: Path, save: Save):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "progress.json").write_text("of someone else")
    (tmp_path / "checkpoints").mkdir()
    for name in (".step-00000009.partial", ".step-00000001.old", "step-00000003.damaged"):
        (tmp_path / "checkpoints" / name).symlink_to(outside)
    damaged = save(3)
    sweep(tmp_path, {damaged: "a reason"})
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000003.damaged"]
    assert not (tmp_path / "checkpoints" / "step-00000003.damaged").is_symlink()
    assert (outside / "progress.json").read_text() == "of someone else"


def test_what_was_saved_is_loaded_in_place(save: Save):
    checkpoint = save(3)
    w = torch.zeros(2)
    load_state(checkpoint, {"model": {"w": w}})
    assert w.tolist() == [3.0, 6.0]
    check(checkpoint)
    assert read_progress(checkpoint) == Progress(manifest="", step=3)
    subprocess.run(["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=checkpoint, check=True)
    assert sorted(path.name for path in checkpoint.iterdir()) == [
        "SHA256SUMS",
        "progress.json",
        "rank-00000.safetensors",
    ]


@pytest.mark.parametrize("name", ["SHA256SUMS", "progress.json", "rank-00000.safetensors"])
def test_any_bit_that_changed_is_noticed_and_so_is_any_byte_that_is_gone(save: Save, name: str):
    checkpoint = save(3, 0.5)
    path = checkpoint / name
    whole = path.read_bytes()
    for at in range(len(whole)):
        flip(path, at)
        assert damage(checkpoint), at
        path.write_bytes(whole[:at])
        assert damage(checkpoint) or (name == "SHA256SUMS" and at == len(whole) - 1)  # only its last line feed
        path.write_bytes(whole)
    path.unlink()
    assert damage(checkpoint)
    path.write_bytes(whole)
    assert damage(checkpoint) is None
    (checkpoint / "rank-00001.safetensors").write_bytes(b"of another run")
    assert damage(checkpoint) == "rank-00001.safetensors is not what SHA256SUMS says"


def test_the_ranks_together_look_at_every_file(save: Save):
    checkpoint = save(3)
    flip(checkpoint / "rank-00000.safetensors", -1)
    assert [damage(checkpoint, rank, 3) for rank in range(3)].count(None) == 2


def test_the_newest_that_is_not_damaged_is_taken_and_the_damaged_are_set_aside(tmp_path: Path, rank: Rank, save: Save):
    for step in (1, 2, 3, 4):
        save(step, keep=9)
    third, fourth = complete_checkpoints(tmp_path)[2:]
    flip(third / "rank-00000.safetensors", -1)
    (fourth / "rank-00000.safetensors").unlink()
    start, damaged = newest_sound(tmp_path, rank)
    assert start == complete_checkpoints(tmp_path)[1]
    assert damaged == {
        fourth: "rank-00000.safetensors: No such file or directory",
        third: "rank-00000.safetensors is not what SHA256SUMS says",
    }
    sweep(tmp_path, damaged)
    assert steps(tmp_path) == [1, 2]
    assert (tmp_path / "checkpoints" / "step-00000003.damaged" / "rank-00000.safetensors").exists()
    assert newest_sound(tmp_path, rank) == (start, {})


def test_one_that_is_reached_again_is_replaced(tmp_path: Path, save: Save):
    flip(save(3) / "rank-00000.safetensors", -1)
    check(save(3))
    assert steps(tmp_path) == [3]
    assert not list((tmp_path / "checkpoints").glob(".*"))


def test_if_all_are_damaged_it_says_so_and_leaves_them(tmp_path: Path, rank: Rank, save: Save):
    for step in (1, 2):
        flip(save(step, keep=2) / "rank-00000.safetensors", 0)
    with pytest.raises(StrataError, match=f"^{tmp_path}: all checkpoints are damaged .*step-0+2: .*step-0+1: "):
        newest_sound(tmp_path, rank)
    assert steps(tmp_path) == [1, 2]
    assert newest_sound(tmp_path / "nowhere", rank) == (None, {})
