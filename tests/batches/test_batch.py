"""A batch holds the rows of a table, number by number."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import torch
from torch.testing import assert_close

from pipeline.batches.batch import Batch, RowArrays, join, model_columns, to_batch
from pipeline.manifest import Manifest
from pipeline.spec.features import IdFeature
from pipeline.spec.spec import Spec

NAN = float("nan")


@pytest.fixture
def spec() -> Spec:
    columns = {"user": "int64", "video": "int64", "time": "int64", "click": "bool", "play": "float64"}
    impression = {"files": "log", "columns": columns, "id": ["user"], "user": "user", "video": "video", "time": "time"}
    return Spec.model_validate(
        {
            "name": "small",
            "logs": {"impression": {**impression, "outcomes": ["click", "play"]}},
            "tables": {"video": {"encode": "hash", "rows": 9, "dim": 2}, "tag": {"encode": "vocab", "dim": 2}},
            "features": {
                "tags": {"kind": "id_list", "table": "tag"},
                "age": {"kind": "dense"},
                "video": {"kind": "id", "table": "video"},
                "seen": {"kind": "history", "table": "video", "of": "video", "last": 3},
                "hour": {"kind": "dense"},
            },
            "objectives": {"click": {"kind": "binary", "label": "click"}, "play": {"kind": "regression", "label": "1"}},
            "scenes": {"feed": {"where": "1", "weights": {"click": 1}}, "page": {"where": "0", "weights": {"play": 1}}},
        }
    )


@pytest.fixture
def rows() -> pa.Table:
    return pa.table(
        {
            "feature_tags": pa.array([[3, 1], [], None, [2]], pa.large_list(pa.int32())),
            "feature_age": pa.array([0.5, -1.0, 2.0, 0.0], pa.float32()),
            "feature_video": pa.array([8, 0, 5, 8], pa.int32()),
            "feature_seen": pa.array([[], [1, 2, 3], [4], []], pa.large_list(pa.int32())),
            "feature_hour": pa.array([1.0, 2.0, 3.0, 4.0], pa.float32()),
            "label_click": pa.array([1.0, 0.0, 1.0, None], pa.float32()),
            "label_play": pa.array([None, None, 2.5, 7.0], pa.float32()),
            "mask_click": [True, True, True, False],
            "mask_play": [False, False, True, True],
            "scene_feed": [True, True, False, True],
            "scene_page": [False, False, True, True],
            "sample_weight": pa.array([1.0, 0.5, 2.0, 0.0], pa.float32()),
        }
    )


def check(batch: Batch) -> None:
    """The batch holds the four rows above, and after them only inert rows."""
    inert = len(batch) - 4
    assert batch.sparse.keys() == ["tags", "video", "seen"]
    assert batch.sparse.length_per_key_or_none() == [3, 4, 4]  # known on the host
    assert [batch.sparse[key].values().tolist() for key in batch.sparse.keys()] == [  # noqa: SIM118
        [3, 1, 2],
        [8, 0, 5, 8],
        [1, 2, 3, 4],
    ]
    assert batch.sparse.lengths().view(3, -1).tolist() == [
        [2, 0, 0, 1] + [0] * inert,
        [1, 1, 1, 1] + [0] * inert,
        [0, 3, 1, 0] + [0] * inert,
    ]
    assert_close(batch.dense[:4], torch.tensor([[0.5, 1.0], [-1.0, 2.0], [2.0, 3.0], [0.0, 4.0]]))
    labels = torch.tensor([[1.0, NAN], [0.0, NAN], [1.0, 2.5], [NAN, 7.0]])
    assert_close(batch.labels[:4], labels, equal_nan=True)
    assert batch.masks.tolist() == [[True, False], [True, False], [True, True], [False, True]] + [[False] * 2] * inert
    assert batch.scenes.tolist() == [[True, False], [True, False], [False, True], [True, True]] + [[False] * 2] * inert
    assert batch.weight.tolist() == [1.0, 0.5, 2.0, 0.0] + [0.0] * inert
    assert (batch.dense.dtype, batch.labels.dtype, batch.weight.dtype) == (torch.float32,) * 3
    assert {tensor.shape[0] for tensor in (batch.dense, batch.labels, batch.masks, batch.scenes)} == {len(batch)}
    assert torch.isfinite(batch.dense).all()


def test_a_batch_holds_the_rows(spec: Spec, rows: pa.Table):
    check(to_batch(rows, spec))


@pytest.mark.parametrize("size", [4, 5, 9])
def test_it_is_joined_from_parts_of_reordered_rows_and_filled_up_with_inert_ones(spec: Spec, rows: pa.Table, size: int):
    order = np.array([3, 2, 0, 1, 0])
    reordered = RowArrays.from_table(rows, spec, order)
    taken_first = RowArrays.from_table(rows.take(pa.array(order)), spec, np.arange(5))
    for arrays in (reordered, taken_first):
        parts = [(arrays, 2, 4), (arrays, 1, 2), (arrays, 1, 1), (arrays, 0, 1)]
        batch = join(parts, spec, size)
        assert len(batch) == size
        check(batch)


def test_lists_may_have_any_integers_and_either_kind_of_offsets(spec: Spec, rows: pa.Table):
    for at, name in ((0, "feature_tags"), (3, "feature_seen")):
        rows = rows.set_column(at, name, rows[name].cast(pa.list_(pa.int64())))
    check(to_batch(rows, spec))
    check(to_batch(pa.concat_tables([rows, rows]).combine_chunks().slice(4), spec))


def test_slices_and_chunks_of_a_table_are_the_same_rows(spec: Spec, rows: pa.Table):
    check(to_batch(pa.concat_tables([rows.slice(0, 1), rows.slice(1)]), spec))
    check(to_batch(pa.concat_tables([rows.slice(3), rows, rows]).slice(1, 4), spec))


def test_no_rows_are_an_empty_batch(spec: Spec, rows: pa.Table):
    for empty in (rows.slice(0, 0), rows.schema.empty_table()):
        batch = to_batch(empty, spec)
        assert len(batch) == 0
        assert batch.sparse.lengths().tolist() == []
        assert batch.labels.shape == (0, 2)


def test_moving_to_a_device_keeps_everything(spec: Spec, rows: pa.Table):
    check(to_batch(rows, spec).to(torch.device("cpu")))


def test_samples_of_a_real_store_arrive_whole(samples, manifest: Manifest):
    """Compares every value with the Parquet file."""
    spec = manifest.spec
    table = pq.read_table(samples / manifest.files[-1].path).slice(100, 300)
    batch = to_batch(table.select(model_columns(spec)), spec)
    for name, feature in spec.sparse_features.items():
        column = table[f"feature_{name}"].to_pylist()
        bags = [[value] for value in column] if isinstance(feature, IdFeature) else column
        jagged = batch.sparse[name]
        assert [bag.tolist() for bag in jagged.to_dense()] == bags
        assert jagged.values().max() < manifest.learned.table_rows[feature.table]
    assert any(len(set(map(len, table[f"feature_{name}"].to_pylist()))) > 2 for name in ("tags", "clicked_videos"))
    for tensor, prefix, names in (
        (batch.dense, "feature", spec.dense_features),
        (batch.labels, "label", spec.objectives),
        (batch.masks, "mask", spec.objectives),
        (batch.scenes, "scene", spec.scenes),
    ):
        plain = [[NAN if v is None else v for v in table[f"{prefix}_{name}"].to_pylist()] for name in names]
        assert_close(tensor.T.double(), torch.tensor(plain).double(), equal_nan=True)
    # A label is NaN exactly where its mask is false.
    assert torch.equal(batch.labels.isnan(), ~batch.masks)
    assert np.array_equal(batch.weight.numpy(), pc.cast(table["sample_weight"], pa.float32()).to_numpy())
