"""The sample is bounded, spread over all files, and the same each time."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from pipeline.data_report.sample import PLACES, SAMPLE_ROWS, read_sample
from pipeline.errors import StrataError
from pipeline.manifest import Manifest, SampleFile
from pipeline.statistics import Statistics

FILES, ROWS_PER_FILE = 5, 60_000
Build = Callable[..., tuple[Path, Manifest, Statistics]]


@pytest.fixture
def large(build: Build, rows: pl.DataFrame, tmp_path: Path) -> Manifest:
    """300,000 rows of training in 5 files; the number of the row in the split is its price."""
    files = []
    many = pl.concat([rows.drop("date")] * (ROWS_PER_FILE // rows.height))
    for part in range(FILES):
        price = pl.int_range(part * ROWS_PER_FILE, (part + 1) * ROWS_PER_FILE).cast(pl.Float64)
        many.with_columns(feature_price=price).write_parquet(tmp_path / f"{part}.parquet", row_group_size=2048)
        sha256 = hashlib.sha256((tmp_path / f"{part}.parquet").read_bytes()).hexdigest()
        path, date = f"{part}.parquet", "2026-03-01"
        files.append(SampleFile(path=path, split="train", date=date, rows=many.height, bytes=0, sha256=sha256))
    return build()[1].model_copy(update={"files": files})


def test_a_large_split_is_sampled_evenly(large: Manifest, tmp_path: Path) -> None:
    sample = read_sample(tmp_path, large, "train")
    assert 0.9 * SAMPLE_ROWS < sample.height <= SAMPLE_ROWS
    assert sample["feature_price"].n_unique() == sample.height
    per_file = (sample["feature_price"] // ROWS_PER_FILE).value_counts()["count"]
    assert len(per_file) == FILES
    assert per_file.min() > 0.8 * sample.height / FILES  # type: ignore[operator]
    # From about PLACES row groups, of each from its end as well as from its beginning: rows beside each other may be
    # those of one user.
    price = pl.col("feature_price")
    groups = sample.group_by(price // ROWS_PER_FILE, at=price % ROWS_PER_FILE // 2048).agg(
        spread=price.max() - price.min()
    )
    assert 0.9 * PLACES < len(groups) <= PLACES
    assert groups["spread"].median() > 1900  # type: ignore[operator]


def test_the_sample_is_the_same_each_time(large: Manifest, tmp_path: Path) -> None:
    assert read_sample(tmp_path, large, "train").equals(read_sample(tmp_path, large, "train"))


def test_a_small_split_is_read_whole_and_one_that_is_not_there_is_empty(build: Build, rows: pl.DataFrame) -> None:
    store, manifest, _ = build(lambda rows: rows.filter(pl.col("date") != "2026-03-05"))
    sample, none = read_sample(store, manifest, "train"), read_sample(store, manifest, "test")
    assert sample.equals(rows.head(3600).select(sample.columns))
    assert (none.height, none.columns) == (0, sample.columns)


def test_a_damaged_file_is_one_clear_error(build: Build) -> None:
    store, manifest, _ = build()
    (store / manifest.files[0].path).write_bytes(b"PAR1 and no more")
    with pytest.raises(StrataError, match=r"date=2026-03-01/part-0000.parquet: is not what was written"):
        read_sample(store, manifest, "train")
