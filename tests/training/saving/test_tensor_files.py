import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from pipeline.errors import LocalError, StrataError
from pipeline.training.saving import tensor_files
from pipeline.training.saving.tensor_files import StoredTensors, load_state, write_tensors

WHOLE = torch.arange(63, dtype=torch.float32).reshape(9, 7)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """`w` [9, 7] in four shards of two ranks, cut by rows and by columns; `step` and `bias` undivided."""
    cut = {(0, 0): (5, 3), (0, 3): (5, 4), (5, 0): (4, 6), (5, 6): (4, 1)}
    parts = {
        f"w@{row},{column}": WHOLE[row : row + rows, column : column + columns].contiguous()
        for (row, column), (rows, columns) in cut.items()
    }
    names = sorted(parts)
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    whole = {"step": torch.tensor(3.5), "bias": torch.tensor([1.0, float("nan")]), "none@9,0": torch.zeros(0, 7)}
    write_tensors(folder / "rank-00000.safetensors", {name: parts[name] for name in names[::2]} | whole)
    write_tensors(folder / "rank-00001.safetensors", {name: parts[name] for name in names[1::2]})
    return folder


def test_tensors_are_put_together_from_their_shards(folder: Path):
    with StoredTensors(folder) as stored:
        assert stored.shapes == {"w": (9, 7), "step": (), "bias": (2,), "none": (9, 7)}
        assert torch.equal(stored.read("w"), WHOLE)
        assert stored.read("step").item() == 3.5
        np.testing.assert_array_equal(stored.read("bias"), [1.0, np.nan])


def test_any_part_is_read_and_one_that_reaches_beyond_is_refused(folder: Path):
    drawn = np.random.default_rng(5)
    with StoredTensors(folder) as stored:
        for _ in range(200):
            row, column, rows, columns = (int(drawn.integers(0, size)) for size in (11, 9, 6, 6))
            box = torch.full((rows, columns), -1.0)
            if rows * columns and (row + rows > 9 or column + columns > 7):
                with pytest.raises(LocalError, match=rf"^{folder}: cannot be loaded \(it lacks a part of `w`\)"):
                    stored.copy_into("w", box, (row, column))
                continue
            stored.copy_into("w", box, (row, column))
            assert torch.equal(box, WHOLE[row : row + rows, column : column + columns].reshape(rows, columns))
            assert torch.equal(stored.read("w", (row, column), (rows, columns)), box)


def test_a_whole_tensor_has_its_own_name_in_the_file_and_everyone_may_read_it(folder: Path):
    path = folder / "rank-00000.safetensors"
    assert torch.equal(load_file(path)["step"], torch.tensor(3.5))
    before = os.umask(0)
    os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o666 & ~before


def test_types_of_numbers_are_converted(folder: Path):
    state = {"w": torch.empty(9, 7, dtype=torch.bfloat16), "bias": torch.empty(2, dtype=torch.float64)}
    load_state(folder, state)
    assert torch.equal(state["w"], WHOLE.bfloat16())
    assert state["bias"][0] == 1.0


@pytest.mark.parametrize(
    ("state", "problem"),
    [
        ({"model": {"w": torch.zeros(9, 7)}}, r"it has no `model\.w`"),
        ({"w": torch.zeros(10, 7)}, r"`w` is \[9, 7\] in it, but \[10, 7\] here"),
        ({"w": torch.zeros(63)}, r"`w` is \[9, 7\] in it, but \[63\] here"),
        ({"none": torch.zeros(9, 7)}, "it lacks a part of `none`"),
    ],
    ids=["name", "rows", "dimensions", "part"],
)
def test_what_does_not_hold_the_state_is_refused(folder: Path, state: dict[str, object], problem: str):
    with pytest.raises(StrataError, match=rf"^{folder}: cannot be loaded \({problem}"):
        load_state(folder, state)


class Malice:
    """Makes a folder when it is unpickled."""

    def __init__(self, sign: Path) -> None:
        self.sign = sign

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.sign),)


def test_nothing_in_a_file_is_executed(folder: Path, tmp_path: Path):
    sign = tmp_path / "executed"
    planted = pickle.dumps(Malice(sign))
    pickle.loads(planted)
    assert sign.is_dir()  # so it would show
    sign.rmdir()
    (folder / ".metadata").write_bytes(planted)  # where PyTorch's own reader would execute it
    load_state(folder, {"w": torch.zeros(9, 7)})
    for content in (planted, b""):
        (folder / "rank-00001.safetensors").write_bytes(content)
        with pytest.raises(StrataError, match=r"rank-00001\.safetensors: cannot be read"):
            load_state(folder, {"w": torch.zeros(9, 7)})
    torch.save({"w@0,0": Malice(sign)}, folder / "rank-00001.safetensors")
    with pytest.raises(StrataError, match=r"rank-00001\.safetensors: cannot be read"):
        load_state(folder, {"w": torch.zeros(9, 7)})
    assert not sign.exists()


def test_a_disk_that_keeps_something_else_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """No real disk fails on demand, so the write is altered here."""

    def forgetful(tensors: dict[str, torch.Tensor], path: Path) -> None:
        save_file(tensors, path)
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content)

    monkeypatch.setattr(tensor_files, "save_file", forgetful)
    with pytest.raises(OSError, match="the disk holds something else"):
        write_tensors(tmp_path / "x.safetensors", {"w": WHOLE})
