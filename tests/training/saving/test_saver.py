import json
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from pipeline.errors import StrataError
from pipeline.training.processes import process_group
from pipeline.training.saving.checkpoints import Progress, complete_checkpoints
from pipeline.training.saving.saver import Saver
from tests.training.conftest import Launched


def test_it_saves_the_state_of_the_moment_while_that_changes(tmp_path: Path):
    state = {"w": torch.zeros(300_000), "steps": torch.tensor(0.0)}
    progress = Progress(manifest="")
    with process_group("cpu") as rank, Saver(tmp_path, rank, keep=100) as saver:
        for step in range(1, 21):
            progress.step = step
            for tensor in state.values():
                tensor.fill_(step)
            saver.save(state, progress)
            for tensor in state.values():
                tensor.fill_(-1)
            progress.step = -1
    for step, checkpoint in enumerate(complete_checkpoints(tmp_path), start=1):
        assert checkpoint.name == f"step-{step:08d}"
        for tensor in load_file(checkpoint / "rank-00000.safetensors").values():
            assert (tensor == step).all()
    assert step == 20
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("checkpoints")]


def test_what_a_thread_could_not_write_is_raised_where_it_is_waited_for(tmp_path: Path):
    blocked = tmp_path / "checkpoints" / ".step-00000001.partial"
    blocked.parent.mkdir()
    blocked.touch()
    with process_group("cpu") as rank:
        saver = Saver(tmp_path, rank, keep=1)
        saver.save({"w": torch.zeros(3)}, Progress(manifest="", step=1))
        with pytest.raises(StrataError, match=r"step-00000001: cannot be written \(rank 0: .*File exists") as caught:
            saver.save({"w": torch.zeros(3)}, Progress(manifest="", step=2))
        assert "go on with --resume" in str(caught.value)
        assert not saver.failed
    assert complete_checkpoints(tmp_path) == []


@pytest.mark.slow
def test_if_one_rank_cannot_write_all_end_at_once_with_one_line(
    tmp_path: Path, arguments: Callable[..., list[str]], launch: Callable[..., Launched]
):
    """Rank 1 may write files of 300 kB, and its half of the users' table has 640 kB."""
    run = tmp_path / "run"
    words = arguments(run, "--checkpoints.every 3 --tables.overrides user row_wise")
    launched = launch(2, [words], file_sizes=(0, 300_000))
    assert launched.wait() == [2, 2], launched.output()
    (error,) = (line for line in launched.output().splitlines() if line.startswith("error: "))
    assert error.startswith(f"error: {run}/checkpoints/step-00000003: cannot be written (rank 1: ")
    assert "File too large" in error
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["step"] <= 6
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["vocabularies"]
