"""The reader deals every row to one rank and one step, and the same rows to a step whatever the number of ranks."""

from itertools import chain
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.batches.reader import BatchReader
from pipeline.errors import StrataError
from pipeline.manifest import Manifest, SampleFile

Rows = list[list[int]]  # the ids of each step


@pytest.fixture
def store(tmp_path: Path, manifest: Manifest):
    """`store(files=[30, 7], group=8)`: a reader of files with these many rows, whose ids count from 0."""

    def make(files: list[int], group: int = 64, **options: object) -> BatchReader:
        first, described = 0, []
        for number, rows in enumerate(files):
            path = tmp_path / f"{number}.parquet"
            pq.write_table(pa.table({"id": range(first, first + rows)}), path, row_group_size=group)
            described.append(SampleFile(path=path.name, split="train", date="", rows=rows, bytes=0, sha256=""))
            first += rows
        small = manifest.model_copy(update={"files": described})
        return BatchReader(tmp_path, small, "train", ["id"], **options)

    return make


def of_rank(reader: BatchReader, rank: int, ranks: int, epoch: int = 0, first_step: int = 0) -> Rows:
    part = BatchReader(**{**reader.__dict__, "rank": rank, "ranks": ranks})
    sizes = part.sizes(epoch)[first_step:]
    steps = [table["id"].to_pylist() for table in part.tables(epoch, first_step)]
    assert len(steps) == len(sizes) == part.steps - first_step
    return steps


def of_all_ranks(reader: BatchReader, ranks: int, **options: int) -> Rows:
    """The ids of each global step, after checking what the ranks owe each other."""
    parts = [of_rank(reader, rank, ranks, **options) for rank in range(ranks)]
    first_step = options.get("first_step", 0)
    sizes = BatchReader(**{**reader.__dict__, "ranks": ranks}).sizes(options.get("epoch", 0))[first_step:]
    assert [max(map(len, steps)) for steps in zip(*parts, strict=True)] == sizes.tolist()
    assert min(len(step) for part in parts for step in part) > 0
    return [sorted(chain(*steps)) for steps in zip(*parts, strict=True)]


SHAPES = {
    "many row groups": {"files": [3000, 2500, 1], "group": 16, "batch_size": 300},
    "one row group": {"files": [1000], "group": 1000, "batch_size": 128},
    "a batch for everything": {"files": [60, 40], "batch_size": 5000},
    "fewer rows than lanes": {"files": [4, 3], "batch_size": 100},
    "batches smaller than the number of lanes": {"files": [900], "batch_size": 23},
    "uneven files": {"files": [700, 3, 90, 1, 206], "group": 128, "batch_size": 97},
}


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
def test_every_row_once_and_the_same_rows_per_step_for_any_number_of_ranks(store, shape, shuffle):
    reader = store(**shape, shuffle=shuffle)
    alone = of_all_ranks(reader, 1)
    assert sorted(chain(*alone)) == list(range(sum(shape["files"])))
    for ranks in (2, 3, 5):
        assert of_all_ranks(reader, ranks) == alone


def test_global_batches_have_about_the_same_size(store):
    sizes = [len(step) for step in of_all_ranks(store(files=[1920], group=100, batch_size=10), 1)]
    assert len(sizes) == 192
    assert set(sizes) <= {9, 10, 11}


def test_seed_and_epoch_change_the_order_and_repeat_it(store):
    def order(seed: int, epoch: int) -> Rows:
        return of_rank(store(files=[500, 300], batch_size=100, seed=seed), 0, 1, epoch)

    orders = [order(seed, epoch) for seed in (0, 1) for epoch in (0, 1)]
    assert [order(seed, epoch) for seed in (0, 1) for epoch in (0, 1)] == orders
    flat = [list(chain(*steps)) for steps in orders]
    assert len(set(map(tuple, flat))) == 4
    assert all(sorted(rows) == list(range(800)) for rows in flat)
    # Rows move from one end of an epoch to the other, not only within their neighbourhood: half of them by chance.
    early = [set(rows[:400]) for rows in flat]
    assert all(150 < len(early[0] & other) < 250 for other in early[1:])


def test_shuffling_mixes_files_that_lie_far_apart(store):
    first, *_ = of_rank(store(files=[2000, 2000], group=50, batch_size=200), 0, 1)
    assert abs(np.mean(first) - 1999.5) < 500  # unshuffled it would be about 100; the standard error is 82
    assert sorted(first) != list(range(min(first), max(first) + 1))


@pytest.mark.parametrize("ranks", [1, 2, 3])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
def test_a_later_first_step_gives_the_tail_of_the_epoch(store, shape, ranks):
    reader = store(**shape)
    for rank in range(ranks):
        whole = of_rank(reader, rank, ranks, epoch=3)
        for first_step in {0, 1, len(whole) // 2, len(whole) - 1, len(whole)}:
            assert of_rank(reader, rank, ranks, 3, first_step) == whole[first_step:]


def test_too_few_rows_for_the_ranks_are_refused(store, tmp_path: Path):
    with pytest.raises(StrataError, match=f"{tmp_path}: the 4 rows of the train split .* 5 ranks"):
        of_rank(store(files=[4], batch_size=100), 0, 5)


def test_a_damaged_file_is_named(store, tmp_path: Path):
    reader = store(files=[500, 500], batch_size=100)
    damaged = tmp_path / "1.parquet"
    whole = damaged.read_bytes()
    damaged.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(StrataError, match=f"{damaged}: cannot be read"):
        of_rank(reader, 0, 1)
    # The footer is fine, the data are not.
    damaged.write_bytes(whole[:4] + bytes(len(whole) // 2 - 4) + whole[len(whole) // 2 :])
    with pytest.raises(StrataError, match=f"{damaged}: cannot be read"):
        of_rank(reader, 0, 1)
    damaged.unlink()
    with pytest.raises(StrataError, match=f"{damaged}: cannot be read"):
        of_rank(reader, 0, 1)
