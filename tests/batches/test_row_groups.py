"""What is read is what was written; damaged and foreign files are refused in one line."""

import hashlib
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.batches.batch import model_columns
from pipeline.batches.reader import BatchReader
from pipeline.batches.row_groups import RowGroups, stored_tables
from pipeline.columns import SAMPLE_ID
from pipeline.errors import LocalError, StrataError
from pipeline.manifest import Manifest


@pytest.fixture
def damaged(tmp_path: Path, samples: Path, manifest: Manifest) -> Path:
    """The path of one of the files of a copy of the samples."""
    shutil.copytree(samples, tmp_path / "samples", ignore=shutil.ignore_patterns(".*"))
    file = [file for file in manifest.files if file.split == "test"][-1]
    return tmp_path / "samples" / file.path


def refusals(file: Path, manifest: Manifest) -> list[str]:
    """The errors of batches and of stored rows for the test split of the store that has this file."""
    store = file.parents[2]
    messages = []
    for reading in (
        lambda: BatchReader(store, manifest, "test", batch_size=64, shuffle_rows=256).batches(epoch=0),
        lambda: stored_tables(store, manifest, "test", model_columns(manifest.spec), rows=100),
    ):
        with pytest.raises(StrataError) as refused:
            for _ in reading():
                pass
        messages.append(str(refused.value))
    return messages


def test_stored_tables_are_the_rows_in_stored_order(samples: Path, manifest: Manifest):
    paths = [samples / file.path for file in manifest.files if file.split == "train"]
    columns = [SAMPLE_ID, "label_click", "feature_tags"]
    tables = list(stored_tables(samples, manifest, "train", columns, rows=100))
    assert pa.concat_tables(tables).equals(pa.concat_tables(pq.read_table(path, columns=columns) for path in paths))
    assert max(table.num_rows for table in tables) == 100


def test_a_damaged_file_is_named(damaged: Path, manifest: Manifest):
    whole = damaged.read_bytes()
    middle = len(whole) // 2
    flipped = whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]
    # Cut off; the footer is fine, the data are not; one bit is another; not there.
    for content in (whole[:middle], whole[:4] + bytes(middle - 4) + whole[middle:], flipped, None):
        damaged.write_bytes(content) if content else damaged.unlink()
        what = "is not what was written (" if content else "cannot be read ("
        for message in refusals(damaged, manifest):
            assert message.startswith(f"{damaged}: {what}")
            assert message.endswith(
                "); it is damaged: restore it from a copy, or delete it and build the samples again"
            )


def test_two_files_that_changed_places_are_refused(damaged: Path, manifest: Manifest):
    other = next(damaged.parents[2] / f.path for f in manifest.files if f.split == "valid")
    content = damaged.read_bytes()
    damaged.write_bytes(other.read_bytes())
    other.write_bytes(content)
    assert all("is not what was written" in message for message in refusals(damaged, manifest))


def test_every_file_is_checked_by_one_of_the_ranks(damaged: Path, manifest: Manifest):
    store = damaged.parents[2]
    files = [store / file.path for file in manifest.files if file.split == "train"]
    assert len(files) > 2
    for file in files:
        whole = file.read_bytes()
        file.write_bytes(whole[:100] + bytes([whole[100] ^ 1]) + whole[101:])
        refused = []
        for rank in range(2):
            try:
                RowGroups(store, manifest, "train", rank, ranks=2)
            except LocalError as error:
                refused.append(error.where)
        assert refused == [file]
        file.write_bytes(whole)


def test_each_machine_checks_its_own_copy(damaged: Path, manifest: Manifest):
    """Two machines with a rank each: both find the damage of the copy that they read, whoever has the lower rank."""
    whole = damaged.read_bytes()
    damaged.write_bytes(whole[:100] + bytes([whole[100] ^ 1]) + whole[101:])
    for rank in range(2):
        reader = BatchReader(damaged.parents[2], manifest, "test", 64, 1024, rank=rank, ranks=2)
        with pytest.raises(LocalError, match="is not what was written"):
            next(reader.batches(epoch=0))


def as_written(file: Path, manifest: Manifest) -> Manifest:
    """The manifest of a build that wrote the file as it is now."""
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    files = [f.model_copy(update={"sha256": sha256}) if file.match(f.path) else f for f in manifest.files]
    return manifest.model_copy(update={"files": files})


@pytest.mark.parametrize(
    ("feature", "value", "message"),
    [
        ("video_id", "beyond", "has the id {rows}, but its table `video` has the rows 0 to {last}"),
        ("video_id", -1, "has the id -1, but its table `video` has the rows 0 to {last}"),
        ("tags", "beyond", "has the id {rows}, but its table `tag` has the rows 0 to {last}"),
        ("clicked_videos", -7, "has the id -7, but its table `video` has the rows 0 to {last}"),
        ("video_id", None, "holds int32 with 1 nulls, not ids"),
        ("video_id", 0.5, "holds double with 0 nulls, not ids"),
    ],
)
def test_an_id_without_a_row_in_its_table_is_refused(
    damaged: Path, manifest: Manifest, feature: str, value: object, message: str
):
    """The wrong id is the last of the list in the last row of a file. Taken for row 0, it would be used silently."""
    table_of_feature = manifest.spec.sparse_features[feature].table
    rows = manifest.learned.table_rows[table_of_feature]
    wrong = rows if value == "beyond" else value
    table = pq.read_table(damaged, partitioning=None)
    name = f"feature_{feature}"
    values = table[name].to_pylist()
    values[-1] = [0, wrong] if isinstance(values[-1], list) else wrong
    type_ = pa.float64() if isinstance(wrong, float) else table.schema.field(name).type
    changed = table.set_column(table.column_names.index(name), name, pa.array(values, type_))
    pq.write_table(changed, damaged, row_group_size=1000)
    expected = f"feature `{feature}` {message.format(rows=rows, last=rows - 1)}"
    assert refusals(damaged, as_written(damaged, manifest)) == [f"{damaged}: {expected}; build the samples again"] * 2


def test_a_file_with_other_columns_or_rows_is_refused(damaged: Path, manifest: Manifest):
    table = pq.read_table(damaged, partitioning=None)
    pq.write_table(table.drop_columns("feature_video_id"), damaged)
    said = f"{damaged}: has no column `feature_video_id`; build the samples again"
    assert refusals(damaged, as_written(damaged, manifest)) == [said] * 2
    pq.write_table(table.slice(1), damaged)
    count = table.num_rows
    said = f"{damaged}: has {count - 1} rows, but was written with {count}; build the samples again"
    assert refusals(damaged, as_written(damaged, manifest)) == [said] * 2
