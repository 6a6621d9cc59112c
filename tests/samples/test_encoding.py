"""Encoders are learned on the training split alone; a value without a row, and a missing one, have row 0."""

from typing import Any

import numpy as np
import polars as pl
import pytest

from pipeline.samples.encoding import encode, fit_encoders, median_labels
from pipeline.samples.features import append_features
from pipeline.samples.hashing import hash_index
from pipeline.spec import Spec


def spec(tables: dict[str, Any], features: dict[str, Any], **objective: Any) -> Spec:
    types = {"user": "int64", "video": "int64", "ms": "int64", "x": "float64", "tags": "string", "click": "bool"}
    content = {
        "name": "small",
        "logs": {
            "impression": {
                "files": "log", "columns": types, "id": ["user", "video", "ms"],
                "user": "user", "video": "video", "time": "ms", "outcomes": ["click"],
            }
        },
        "tables": tables, "features": features,
        "objectives": {"goal": {"kind": "binary", "label": "click"} | objective},
        "scenes": {"all": {"where": "true", "weights": {"goal": 1}}},
    }  # fmt: skip
    return Spec.model_validate(content)


def column(name: str, values: list[Any], dtype: Any = None) -> pl.DataFrame:
    return pl.DataFrame({f"feature_{name}": pl.Series(values, dtype=dtype)})


VIDEO = spec(
    {"video": {"encode": "vocab", "min_count": 2, "dim": 4}},
    {
        "video": {"kind": "id", "table": "video"},
        "seen": {"kind": "history", "table": "video", "of": "video", "last": 3},
    },
)


def test_a_vocabulary_has_the_frequent_values_most_frequent_first() -> None:
    """7 and 5 come twice each, in the order of their values; 1 comes too rarely."""
    train = column("video", [9, 7, 9, 5, None, 7, 9, 1, 5]).with_columns(feature_seen=pl.Series([[1, 1, 1]] * 9))
    encoders = fit_encoders(train, VIDEO)
    expected = {"value": [9, 5, 7], "index": [1, 2, 3], "count": [3, 2, 2]}
    assert encoders.vocabularies["video"].to_dict(as_series=False) == expected
    assert encoders.rows("video", VIDEO.tables["video"]) == 4

    samples = column("video", [7, 1, None, 1000]).with_columns(feature_seen=pl.Series([[5, 1, 9], [], None, [7]]))
    found = encode(samples, VIDEO, encoders)
    assert found["feature_video"].to_list() == [3, 0, 0, 0]
    assert found["feature_seen"].to_list() == [[2, 0, 1], [], [], [3]]
    assert found.dtypes == [pl.Int32, pl.List(pl.Int32)]


def test_a_history_counts_where_no_other_feature_has_its_ids() -> None:
    table = {"tag": {"encode": "vocab", "min_count": 2, "dim": 4}}
    alone = spec(table, {"seen": {"kind": "history", "table": "tag", "of": "tags", "last": 3}})
    train = column("seen", [["b"], ["a", "b"], None, [], ["a", "c", None]])
    assert fit_encoders(train, alone).vocabularies["tag"]["value"].to_list() == ["a", "b"]


def test_lists_share_the_table_of_an_id() -> None:
    shared = spec(
        {"tag": {"encode": "vocab", "dim": 4}},
        {"main": {"kind": "id", "table": "tag", "source": "tags"}, "tags": {"kind": "id_list", "table": "tag"}},
    )
    train = column("main", ["a", None]).with_columns(feature_tags=pl.Series([["b", "b", "a"], []]))
    encoders = fit_encoders(train, shared)
    assert encoders.vocabularies["tag"].select("value", "count").rows() == [("a", 2), ("b", 2)]
    assert encode(train, shared, encoders)["feature_tags"].to_list() == [[2, 2, 1], []]


def test_a_vocabulary_of_nothing() -> None:
    train = column("video", [None], pl.Int64).with_columns(feature_seen=pl.Series([[]], dtype=pl.List(pl.Int64)))
    encoders = fit_encoders(train, VIDEO)
    assert encoders.rows("video", VIDEO.tables["video"]) == 1
    assert encode(column("video", [3]).with_columns(feature_seen=pl.Series([[3]])), VIDEO, encoders).rows() == [
        (0, [0])
    ]


def test_a_hash_needs_no_training() -> None:
    hashed = spec(
        {"user": {"encode": "hash", "rows": 100, "dim": 4}},
        {"user": {"kind": "id", "table": "user"}, "tags": {"kind": "id_list", "table": "user"}},
    )
    samples = column("user", [5, None]).with_columns(feature_tags=pl.Series([["a", "b"], []], dtype=pl.List(pl.String)))
    encoders = fit_encoders(samples.clear(), hashed)
    found = encode(samples, hashed, encoders)
    assert encoders.rows("user", hashed.tables["user"]) == 100
    assert found["feature_user"].to_list() == hash_index(pl.Series([5, None]), 100).to_list()
    assert found["feature_tags"].to_list() == [hash_index(pl.Series(["a", "b"]), 100).to_list(), []]


@pytest.mark.parametrize("buckets", [2, 5, 16])
def test_quantiles_are_those_of_numpy(buckets: int) -> None:
    quantiles = spec({"x": {"encode": "quantiles", "buckets": buckets, "dim": 4}}, {"x": {"kind": "id", "table": "x"}})
    values = np.random.default_rng(0).lognormal(size=1000)
    encoders = fit_encoders(column("x", [*values, None, float("nan")]), quantiles)
    expected = np.quantile(values, [i / buckets for i in range(1, buckets)])
    np.testing.assert_allclose(encoders.boundaries["x"], expected, rtol=1e-12)
    assert encoders.rows("x", quantiles.tables["x"]) == buckets + 1
    found = encode(column("x", [*values, None, float("nan"), -5.0, 1e9]), quantiles, encoders)["feature_x"].to_numpy()
    assert found[-4:].tolist() == [0, 0, 1, buckets]
    assert found[:1000].tolist() == [1 + sum(value >= boundary for boundary in expected) for value in values]
    shares = np.bincount(found[:1000])[1:] / 1000
    assert np.abs(shares - 1 / buckets).max() < 0.002


def test_quantiles_of_a_number_with_few_values() -> None:
    """Boundaries that coincide are one; integers are numbers as well."""
    quantiles = spec({"x": {"encode": "quantiles", "buckets": 4, "dim": 4}}, {"x": {"kind": "id", "table": "x"}})
    train = column("x", [0, 0, 0, 0, 0, 0, 0, 9])
    encoders = fit_encoders(train, quantiles)
    assert encoders.boundaries["x"] == [0]
    assert encode(column("x", [-1, 0, 9, None]), quantiles, encoders)["feature_x"].to_list() == [1, 2, 2, 0]
    nothing = fit_encoders(column("x", [None], pl.Int64), quantiles)
    assert encode(column("x", [3, None]), quantiles, nothing)["feature_x"].to_list() == [1, 0]


def dense(normalise: list[str]) -> Spec:
    return spec(
        {"user": {"encode": "hash", "rows": 9, "dim": 4}},
        {"user": {"kind": "id", "table": "user"}, "x": {"kind": "dense", "normalise": normalise}},
    )


def dense_column(train: list[Any], all_values: list[Any], normalise: list[str]) -> tuple[pl.Series, Any]:
    """Features of both lists of numbers, with normalisers learned on the first."""
    of = dense(normalise)
    frames = [
        append_features(pl.DataFrame({"user": 1, "x": pl.Series(values, dtype=pl.Float64)}), {}, of)
        for values in (train, all_values)
    ]
    encoders = fit_encoders(frames[0], of)
    return encode(frames[1], of, encoders)["feature_x"], encoders.normalisers.get("x")


def test_standardising_uses_mean_and_deviation_of_the_training_split_only() -> None:
    train = [1.0, 2.0, 6.0, None, float("nan"), float("inf")]
    found, normaliser = dense_column(train, [*train, 1e9], ["standardise"])
    mean, std = np.mean([1, 2, 6]), np.std([1, 2, 6])
    assert (normaliser.mean, normaliser.std) == (pytest.approx(mean), pytest.approx(std))
    expected = [(1 - mean) / std, (2 - mean) / std, (6 - mean) / std, 0, 0, 0, (1e9 - mean) / std]
    assert found.to_list() == pytest.approx(expected)
    assert found.dtype == pl.Float32


def test_log1p_comes_before_standardising_and_keeps_the_sign() -> None:
    values = [0.0, 9.0, -9.0, 99.0]
    logs = [0, np.log(10), -np.log(10), np.log(100)]
    assert dense_column(values, values, ["log1p"])[0].to_list() == pytest.approx(logs)
    found, normaliser = dense_column(values, values, ["log1p", "standardise"])
    assert found.to_list() == pytest.approx((np.array(logs) - np.mean(logs)) / np.std(logs))
    assert normaliser.mean == pytest.approx(np.mean(logs))


@pytest.mark.parametrize("values", [[3.0, 3.0], [None, None], []])
def test_a_number_that_never_varies_is_left_alone(values: list[Any]) -> None:
    found, normaliser = dense_column(values, [3.0, None], ["standardise"])
    assert normaliser.std == 1
    assert found.to_list() == [0.0 if values[:1] == [3.0] else 3.0, 0.0]


def test_without_normalisation_a_number_stays_as_it_is() -> None:
    found, normaliser = dense_column([1.0], [5.0, None], [])
    assert (found.to_list(), normaliser) == ([5.0, 0.0], None)


def test_median_labels_by_the_index_of_a_feature() -> None:
    buckets = spec(
        {"x": {"encode": "quantiles", "buckets": 3, "dim": 4}}, {"x": {"kind": "id", "table": "x"}},
        kind="regression", label="x", baseline_by="x",
    )  # fmt: skip
    train = column("x", [1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    encoders = fit_encoders(train, buckets)
    labels = pl.Series([10, 30, None, None, 7, 8], dtype=pl.Float32)
    samples = encode(train, buckets, encoders).with_columns(
        label_goal=labels, mask_goal=labels.is_not_null(), scene_all=pl.lit(True)
    )
    assert median_labels(samples, buckets, encoders) == {"goal": [9, 20, 9, 7.5]}  # 9 where nothing was learned
    learned = samples.with_columns(scene_all=pl.Series([False, True, True, True, True, True]))
    assert median_labels(learned, buckets, encoders) == {"goal": [8, 30, 8, 7.5]}  # without the 10 of no scene


def test_ids_in_a_list_are_stripped_and_the_first_are_kept() -> None:
    tags = spec(
        {"tag": {"encode": "vocab", "dim": 4}},
        {"tags": {"kind": "id_list", "table": "tag", "separator": "|", "max_length": 2}},
    )
    found = append_features(pl.DataFrame({"tags": ["a| b |c", "", None, "||x|", "y"]}), {}, tags)
    assert found["feature_tags"].to_list() == [["a", "b"], [], None, ["x"], ["y"]]
