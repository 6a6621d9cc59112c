"""Every row belongs to one step and one rank, and a step has the same rows for any number of ranks."""

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from torch.testing import assert_close

from pipeline.batches.batch import Batch
from pipeline.batches.reader import BatchReader
from pipeline.columns import SAMPLE_ID
from pipeline.errors import StrataError
from pipeline.manifest import Manifest, SampleFile
from pipeline.spec.features import IdFeature

Rows = list[list[int]]  # the ids of each step
NAN = float("nan")


@pytest.fixture
def store(tmp_path: Path, manifest: Manifest):
    """`store([[8, 8, 3], [7]])`: a reader of two files with row groups of these many rows, whose ids count from 0."""

    def make(files: list[list[int]], **options: int) -> BatchReader:
        first, described = 0, []
        for number, groups in enumerate(files):
            path = tmp_path / f"{number}.parquet"
            with pq.ParquetWriter(path, pa.schema({"id": pa.int64()})) as writer:
                for rows in groups:
                    writer.write_table(pa.table({"id": range(first, first + rows)}), row_group_size=rows)
                    first += rows
            sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
            file = SampleFile(path=path.name, split="train", date="", rows=sum(groups), bytes=0, sha256=sha256)
            described.append(file)
        small = manifest.model_copy(update={"files": described})
        return BatchReader(tmp_path, small, "train", **options)

    return make


def of_rank(reader: BatchReader, rank: int, ranks: int, epoch: int = 0, first_step: int = 0) -> Rows:
    part = replace(reader, rank=rank, ranks=ranks)
    part.check()
    steps = [table["id"].to_pylist() for table in part.tables(["id"], epoch, first_step)]
    assert len(steps) == part.steps - first_step
    return steps


def of_all_ranks(reader: BatchReader, ranks: int, **options: int) -> Rows:
    """The ids of each global step, after checking that the ranks have equal shares."""
    parts = [of_rank(reader, rank, ranks, **options) for rank in range(ranks)]
    for steps in zip(*parts, strict=True):
        sizes = list(map(len, steps))
        assert min(sizes) > 0
        assert max(sizes) - min(sizes) <= 2
    return [sorted(chain(*steps)) for steps in zip(*parts, strict=True)]


SHAPES = {
    "many row groups": {"files": [[16] * 187, [16] * 156, [1]], "batch_size": 300, "shuffle_rows": 1000},
    "one row group, a prime number of rows": {"files": [[997]], "batch_size": 128, "shuffle_rows": 300},
    "row groups of different sizes": {
        "files": [[128, 1, 77], [3], [90, 700], [1], [2, 204]],
        "batch_size": 97,
        "shuffle_rows": 400,
    },
    "one batch for everything": {"files": [[60], [40]], "batch_size": 5000, "shuffle_rows": 262_144},
    "one buffer for everything": {"files": [[600, 4], [401]], "batch_size": 50, "shuffle_rows": 262_144},
    "a buffer of less than a batch": {"files": [[64] * 9], "batch_size": 100, "shuffle_rows": 1},
    "small batches": {"files": [[900]], "batch_size": 30, "shuffle_rows": 100},
}
each_shape = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())


@each_shape
def test_every_row_once_and_the_same_rows_per_step_for_any_number_of_ranks(store, shape):
    reader = store(**shape)
    one_rank = of_all_ranks(reader, 1)
    assert sorted(chain(*one_rank)) == list(range(sum(map(sum, shape["files"]))))
    sizes = set(map(len, one_rank))
    assert max(sizes) <= shape["batch_size"]
    assert max(sizes) - min(sizes) <= 1
    for ranks in (2, 3, 4, 5, 8, 24):
        assert of_all_ranks(reader, ranks) == one_rank


def test_seed_and_epoch_change_the_order_and_repeat_it(store):
    def order(seed: int, epoch: int) -> Rows:
        reader = store([[64] * 7 + [52], [64] * 4 + [44]], batch_size=100, shuffle_rows=400, seed=seed)
        return of_rank(reader, 0, 1, epoch)

    orders = [order(seed, epoch) for seed in (0, 1) for epoch in (0, 1)]
    assert [order(seed, epoch) for seed in (0, 1) for epoch in (0, 1)] == orders
    flat = [list(chain(*steps)) for steps in orders]
    assert len(set(map(tuple, flat))) == 4
    assert all(sorted(rows) == list(range(800)) for rows in flat)
    # Rows move from one half of an epoch to the other: half of them, by chance.
    early = [set(rows[:400]) for rows in flat]
    assert all(120 < len(early[0] & other) < 280 for other in early[1:])


def test_rows_are_shuffled_not_only_row_groups(store):
    """In one row group a buffer is a stretch of rows, and every step has rows from all over it."""
    reader = store([[12_000]], batch_size=100, shuffle_rows=3000)
    epochs = [np.array(of_rank(reader, 0, 1, epoch)) for epoch in range(2)]
    for steps in epochs:
        buffers = steps.reshape(4, 30, 100)
        for number, buffer in enumerate(buffers):
            assert sorted(buffer.ravel()) == list(range(3000 * number, 3000 * (number + 1)))
        within = buffers % 3000
        # The standard error of the mean of 100 rows from all over 3000 is 87, if they are drawn apart from each other.
        assert np.abs(within.mean(axis=2) - 1499.5).max() < 4 * 87
        assert np.diff(np.sort(within, axis=2), axis=2).min() >= 1
        # Rows that were neighbours go to the same step by chance, if at all: one in 30.
        step_of_row = np.argsort(steps.ravel()) // 100
        assert (step_of_row[1:] == step_of_row[:-1]).mean() < 1 / 30
    # Two rows that share a step share one again in another epoch only by chance: 1 of 30.
    kept = [len(set(rows) & set(others)) for rows, others in zip(*epochs, strict=True)]
    assert np.mean(kept) == pytest.approx(100 / 30, abs=0.7)


def test_a_buffer_mixes_files_that_lie_far_apart(store):
    first, *_ = of_rank(store([[50] * 40, [50] * 40], batch_size=200, shuffle_rows=2000), 0, 1)
    assert abs(np.mean(first) - 1999.5) < 700  # of 40 row groups in any order; unshuffled it would be 500
    assert len({row // 50 for row in first}) > 30


@each_shape
def test_a_later_first_step_gives_the_tail_of_the_epoch(store, shape):
    reader = store(**shape)
    for ranks in (1, 3):
        for rank in range(ranks):
            whole = of_rank(reader, rank, ranks, epoch=3)
            for first_step in {0, 1, len(whole) // 2, len(whole) - 1, len(whole)}:
                assert of_rank(reader, rank, ranks, 3, first_step) == whole[first_step:]


def test_only_the_buffers_that_are_needed_are_read(store, tmp_path: Path):
    """A run that starts in mid-epoch reads no earlier buffer, and no run reads more than one buffer ahead."""
    reader = store([[10]] * 100, batch_size=20, shuffle_rows=200)

    def rows(first_step: int = 0) -> Iterator[list[int]]:
        return (table["id"].to_pylist() for table in reader.tables(["id"], epoch=0, first_step=first_step))

    def leave(steps: Rows) -> None:
        """Leaves only the files that have rows of these steps."""
        wanted = {row // 10 for step in steps for row in step}
        for number in range(100):
            here, away = tmp_path / f"{number}.parquet", tmp_path / f"{number}.away"
            if here.exists() and number not in wanted:
                here.rename(away)
            elif away.exists() and number in wanted:
                away.rename(here)

    whole = list(rows())  # the reader knows all files now
    assert len(whole) == 50
    leave(whole[40:])
    assert list(rows(first_step=43)) == whole[43:]
    leave(whole[:20])
    begun = rows()
    assert [next(begun) for _ in range(10)] == whole[:10]


def test_too_few_rows_for_the_ranks_are_refused(store, tmp_path: Path):
    for files, ranks in (([[4]], 5), ([[1, 1], [2]], 5), ([[99]], 50), ([], 1)):
        reader = store(files, batch_size=50, shuffle_rows=100)
        with pytest.raises(StrataError, match=f"{tmp_path}: the .* rows of the train split .* {ranks} ranks"):
            replace(reader, ranks=ranks).check()
        rows = sum(map(sum, files))
        if rows:
            assert min(map(len, chain(*[of_rank(reader, rank, ranks - 1) for rank in range(ranks - 1)]))) > 0


@pytest.mark.parametrize("ranks", [1, 3])
def test_batches_are_the_rows_of_the_files(samples: Path, manifest: Manifest, ranks: int):
    """Every tensor of an epoch against the plain values of each row, found by its sample id."""
    spec = manifest.spec
    paths = [samples / file.path for file in manifest.files if file.split == "train"]
    values = pa.concat_tables(pq.read_table(path) for path in paths).to_pydict()
    place = {sample: row for row, sample in enumerate(values[SAMPLE_ID])}
    reader = BatchReader(samples, manifest, "train", batch_size=370, shuffle_rows=2000, seed=1, ranks=ranks)
    seen, sizes = [], set()
    for batch, table in steps(reader):
        rows = [place[sample] for sample in table[SAMPLE_ID].to_pylist()]
        seen += rows
        sizes.add(len(batch))
        inert = [0.0] * (len(batch) - len(rows))
        assert len(inert) <= 1
        for name, feature in spec.sparse_features.items():
            column = values[f"feature_{name}"]
            lists = [[column[row]] if isinstance(feature, IdFeature) else column[row] for row in rows]
            jagged = batch.sparse[name]
            assert jagged.lengths().tolist() == list(map(len, lists)) + [0] * len(inert)
            assert jagged.values().tolist() == list(chain(*lists))
        for tensor, prefix, names in (
            (batch.dense, "feature", spec.dense_features),
            (batch.labels, "label", spec.objectives),
            (batch.masks, "mask", spec.objectives),
            (batch.scenes, "scene", spec.scenes),
            (batch.weight[:, None], "sample", ["weight"]),
        ):
            columns = [values[f"{prefix}_{name}"] for name in names]
            plain = [[NAN if column[row] is None else column[row] for row in rows] + inert for column in columns]
            assert_close(tensor.T.double(), torch.tensor(plain).double(), equal_nan=True)
    assert sorted(seen) == list(range(len(place)))
    assert len(sizes) == 1


def steps(reader: BatchReader) -> Iterator[tuple[Batch, pa.Table]]:
    for rank in range(reader.ranks):
        part = replace(reader, rank=rank)
        yield from zip(part.batches(epoch=2), part.tables([SAMPLE_ID], epoch=2), strict=True)
