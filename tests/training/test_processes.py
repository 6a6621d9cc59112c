"""The cores that a rank takes, seen in a process of its own."""

import os
import subprocess
import sys

import pytest

SHOWN = """
import os
from pipeline.training.processes import process_group
with process_group("cpu"):
    print(*sorted(os.sched_getaffinity(0)))
"""


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two cores")
@pytest.mark.parametrize(("rank", "threads", "expected"), [(0, 1, [0]), (1, 1, [1]), (1, 2, [0, 1])])
def test_ranks_that_take_all_cores_keep_to_their_own(rank: int, threads: int, expected: list[int]):
    cores = sorted(os.sched_getaffinity(0))[:2]
    environment = {"LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": 2, "OMP_NUM_THREADS": threads}
    done = subprocess.run(
        [sys.executable, "-c", f"import os; os.sched_setaffinity(0, {cores})\n{SHOWN}"],
        env=os.environ | {name: str(value) for name, value in environment.items()},
        capture_output=True,
        text=True,
        check=True,
    )
    assert [int(core) for core in done.stdout.split()] == [cores[at] for at in expected]
