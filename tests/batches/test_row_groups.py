"""What is read is what was written; damaged and foreign files are refused in one line."""

import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.batches.batch import model_columns
from pipeline.batches.reader import BatchReader
from pipeline.batches.row_groups import stored_tables
from pipeline.columns import SAMPLE_ID
from pipeline.errors import StrataError
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
    # Cut off; data damaged under a sound footer; missing.
    for content in (whole[:middle], whole[:4] + bytes(middle - 4) + whole[middle:], None):
        damaged.write_bytes(content) if content else damaged.unlink()
        for message in refusals(damaged, manifest):
            assert message.startswith(f"{damaged}: cannot be read (")
            assert message.endswith("); build the samples again")


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
    assert refusals(damaged, manifest) == [f"{damaged}: {expected}; build the samples again"] * 2


def test_a_file_with_other_columns_or_rows_is_refused(damaged: Path, manifest: Manifest):
    table = pq.read_table(damaged, partitioning=None)
    pq.write_table(table.drop_columns("feature_video_id"), damaged)
    assert refusals(damaged, manifest) == [f"{damaged}: has no column `feature_video_id`; build the samples again"] * 2
    pq.write_table(table.slice(1), damaged)
    count = table.num_rows
    message = f"{damaged}: has {count - 1} rows, but was written with {count}; build the samples again"
    assert refusals(damaged, manifest) == [message] * 2
