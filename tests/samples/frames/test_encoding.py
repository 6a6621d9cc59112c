"""Encoders are learned on the training split alone; a value without a row, and a missing one, have row 0."""

from collections.abc import Mapping
from datetime import date
from typing import Any

import numpy as np
import polars as pl
import pytest

from pipeline.manifest import Normaliser
from pipeline.samples.frames.dictionary import dictionary_encode
from pipeline.samples.frames.encoding import (
    Encoders,
    encode,
    encode_past,
    fit_normalisers,
    fit_quantiles,
    fit_vocabulary,
    label_counts,
    median_labels,
)
from pipeline.samples.frames.features import append_features, split_list
from pipeline.samples.frames.hashing import hash_index
from pipeline.samples.frames.tallies import COUNT, SLOT, VALUE, merge, significant, tallies
from pipeline.spec.features import IdListFeature, QuantileTable, VocabTable
from pipeline.spec.spec import Spec


def spec(tables: dict[str, Any], features: dict[str, Any], **objective: Any) -> Spec:
    types = {"user": "int64", "video": "int64", "ms": "int64", "x": "float64", "tags": "string", "click": "bool"}
    content = {
        "name": "small",
        "logs": {
            "impression": {
                "files": "log",
                "columns": types,
                "id": ["user", "video", "ms"],
                "user": "user",
                "video": "video",
                "time": "ms",
                "outcomes": ["click"],
            }
        },
        "tables": tables,
        "features": features,
        "objectives": {"goal": {"kind": "binary", "label": "click"} | objective},
        "scenes": {"all": {"where": "true", "weights": {"goal": 1}}},
    }
    return Spec.model_validate(content)


def column(name: str, values: list[Any], dtype: Any = None) -> pl.DataFrame:
    return pl.DataFrame({f"feature_{name}": pl.Series(values, dtype=dtype)})


Past = Mapping[str, pl.Series]
NO_PAST: Past = {}


def history(name: str, lists: list[list[Any]]) -> tuple[list[pl.Series], Past]:
    """The two columns that a draft has of a history, and the past values that they point to."""
    lengths = np.array([len(values) for values in lists], np.int64)
    columns = [
        pl.Series(f"feature_{name}", lengths),
        pl.Series(f" start of {name}", np.cumsum(lengths, dtype=np.int64) - lengths),
    ]
    return columns, {name: pl.Series([value for values in lists for value in values])}


def fit(train: pl.DataFrame, of: Spec, past: Past = NO_PAST) -> Encoders:
    """What these training rows teach."""
    constants = {SLOT: 0, "scene_all": True, "mask_goal": False, "label_goal": None, "day": date(2026, 3, 1)}
    samples = train.with_columns(pl.lit(v).alias(name) for name, v in constants.items() if name not in train.columns)
    found = tallies(dictionary_encode(samples, of), past, of)
    counts = {name: values.select(VALUE, COUNT) for name, values in found.values.items()}
    return Encoders(
        {name: fit_vocabulary(counts[name], t) for name, t in of.tables.items() if isinstance(t, VocabTable)},
        {name: fit_quantiles(counts[name], t) for name, t in of.tables.items() if isinstance(t, QuantileTable)},
        fit_normalisers(found.sums, of),
    )


def encoded(samples: pl.DataFrame, of: Spec, encoders: Encoders, past: Past = NO_PAST) -> pl.DataFrame:
    return encode(dictionary_encode(samples, of), encode_past(past, of, encoders), of, encoders)


VIDEO = spec(
    {"video": {"encode": "vocab", "min_count": 2, "dim": 4}},
    {
        "video": {"kind": "id", "table": "video"},
        "seen": {"kind": "history", "table": "video", "of": "video", "last": 3},
    },
)


def test_a_vocabulary_has_the_frequent_values_most_frequent_first() -> None:
    """7 and 5 come twice each, in the order of their values; 1 comes too rarely."""
    seen, past = history("seen", [[1, 1, 1]] * 9)
    train = column("video", [9, 7, 9, 5, None, 7, 9, 1, 5]).with_columns(seen)
    encoders = fit(train, VIDEO, past)
    expected = {"value": [9, 5, 7], "index": [1, 2, 3], "count": [3, 2, 2]}
    assert encoders.vocabularies["video"].to_dict(as_series=False) == expected
    assert encoders.rows("video", VIDEO.tables["video"]) == 4

    seen, past = history("seen", [[5, 1, 9], [], [], [7]])
    found = encode(
        dictionary_encode(column("video", [7, 1, None, 1000]).with_columns(seen), VIDEO),
        encode_past(past, VIDEO, encoders),
        VIDEO,
        encoders,
    )
    assert found["feature_video"].to_list() == [3, 0, 0, 0]
    assert found["feature_seen"].to_list() == [[2, 0, 1], [], [], [3]]
    assert found.select("feature_video", "feature_seen").dtypes == [pl.Int32, pl.List(pl.Int32)]


def test_a_history_counts_where_no_other_feature_has_its_ids() -> None:
    table = {"tag": {"encode": "vocab", "min_count": 2, "dim": 4}}
    alone = spec(table, {"seen": {"kind": "history", "table": "tag", "of": "tags", "last": 3}})
    seen, past = history("seen", [["b"], ["a", "b"], [], [], ["a", "c"]])
    assert fit(pl.DataFrame(seen), alone, past).vocabularies["tag"]["value"].to_list() == ["a", "b"]


def test_lists_share_the_table_of_an_id() -> None:
    shared = spec(
        {"tag": {"encode": "vocab", "dim": 4}},
        {"main": {"kind": "id", "table": "tag", "source": "tags"}, "tags": {"kind": "id_list", "table": "tag"}},
    )
    train = column("main", ["a", None]).with_columns(feature_tags=pl.Series(["b, b,a", ""]))
    encoders = fit(train, shared)
    assert encoders.vocabularies["tag"].select("value", "count").rows() == [("a", 2), ("b", 2)]
    assert encoded(train, shared, encoders)["feature_tags"].to_list() == [[2, 2, 1], []]


def test_a_vocabulary_of_nothing() -> None:
    seen, past = history("seen", [[]])
    encoders = fit(column("video", [None], pl.Int64).with_columns(seen), VIDEO, past)
    assert encoders.rows("video", VIDEO.tables["video"]) == 1
    seen, past = history("seen", [[3]])
    found = encode(
        dictionary_encode(column("video", [3]).with_columns(seen), VIDEO),
        encode_past(past, VIDEO, encoders),
        VIDEO,
        encoders,
    )
    assert found.select("feature_video", "feature_seen").rows() == [(0, [0])]


def test_a_hash_needs_no_training() -> None:
    hashed = spec(
        {"user": {"encode": "hash", "rows": 100, "dim": 4}},
        {"user": {"kind": "id", "table": "user"}, "tags": {"kind": "id_list", "table": "user"}},
    )
    samples = column("user", [5, None]).with_columns(feature_tags=pl.Series(["a,b", None]))
    encoders = fit(samples.clear(), hashed)
    found = encoded(samples, hashed, encoders)
    assert encoders.rows("user", hashed.tables["user"]) == 100
    assert found["feature_user"].to_list() == hash_index(pl.Series([5, None]), 100).to_list()
    assert found["feature_tags"].to_list() == [hash_index(pl.Series(["a", "b"]), 100).to_list(), []]


@pytest.mark.parametrize("buckets", [2, 5, 16])
def test_quantiles_are_those_of_numpy(buckets: int) -> None:
    quantiles = spec({"x": {"encode": "quantiles", "buckets": buckets, "dim": 4}}, {"x": {"kind": "id", "table": "x"}})
    values = np.random.default_rng(0).lognormal(size=1000)
    encoders = fit(column("x", [*values, None, float("nan")]), quantiles)
    rounded = significant(pl.Series(values)).to_numpy()
    places = [i / buckets for i in range(1, buckets)]
    np.testing.assert_allclose(encoders.boundaries["x"], np.quantile(rounded, places), rtol=1e-12)
    np.testing.assert_allclose(encoders.boundaries["x"], np.quantile(values, places), rtol=2**-15)
    assert encoders.rows("x", quantiles.tables["x"]) == buckets + 1
    asked = column("x", [*values, None, float("nan"), -5.0, 1e9])
    found = encoded(asked, quantiles, encoders)["feature_x"].to_numpy()
    assert found[-4:].tolist() == [0, 0, 1, buckets]
    assert found[:1000].tolist() == [1 + sum(value >= b for b in encoders.boundaries["x"]) for value in rounded]
    shares = np.bincount(found[:1000])[1:] / 1000
    assert np.abs(shares - 1 / buckets).max() < 0.002


def test_quantiles_of_a_number_with_few_values() -> None:
    """Boundaries that coincide are one; integers are numbers as well."""
    quantiles = spec({"x": {"encode": "quantiles", "buckets": 4, "dim": 4}}, {"x": {"kind": "id", "table": "x"}})
    train = column("x", [0, 0, 0, 0, 0, 0, 0, 9])
    encoders = fit(train, quantiles)
    assert encoders.boundaries["x"] == [0]
    assert encoded(column("x", [-1, 0, 9, None]), quantiles, encoders)["feature_x"].to_list() == [1, 2, 2, 0]
    nothing = fit(column("x", [None], pl.Int64), quantiles)
    assert encoded(column("x", [3, None]), quantiles, nothing)["feature_x"].to_list() == [1, 0]


@pytest.mark.parametrize("buckets", [2, 3, 16, 100])
@pytest.mark.parametrize("seed", range(3))
def test_quantiles_of_counted_values_are_those_of_the_values_written_out(seed: int, buckets: int) -> None:
    rng = np.random.default_rng(seed)
    values = rng.choice(np.arange(-40, 40) / 8, size=rng.integers(1, 60), replace=False)
    counts = rng.integers(1, 20, len(values))
    table = QuantileTable(encode="quantiles", dim=4, buckets=buckets)
    found = fit_quantiles(pl.DataFrame({VALUE: values, COUNT: counts}), table)
    expected = np.quantile(np.repeat(values, counts), np.linspace(0, 1, buckets + 1)[1:-1])
    assert np.all(np.diff(found) > 0)
    assert np.max(np.min(np.abs(expected[:, None] - found), axis=1)) < 1e-12  # each is there
    assert np.max(np.min(np.abs(expected - np.array(found)[:, None]), axis=1)) < 1e-12  # and nothing else


def test_a_number_falls_between_declared_boundaries() -> None:
    """One that equals a boundary lies above it; infinities lie beyond the outer ones."""
    buckets = spec(
        {"x": {"encode": "buckets", "boundaries": [-1.0, 0.0, 2.5], "dim": 4}}, {"x": {"kind": "id", "table": "x"}}
    )
    encoders = fit(column("x", [7.0]), buckets)
    infinity, nan = float("inf"), float("nan")
    asked = [-1.1, -1.0, -0.5, 0.0, 2.4999, 2.5, 2.5001, 1e9, -infinity, infinity, nan, None]
    found = encoded(column("x", asked), buckets, encoders)["feature_x"]
    assert found.to_list() == [1, 2, 2, 3, 3, 4, 4, 4, 1, 4, 0, 0]
    assert found.dtype == pl.Int32
    assert encoded(column("x", [3, None]), buckets, encoders)["feature_x"].to_list() == [
        4,
        0,
    ]  # integers too
    assert encoders.rows("x", buckets.tables["x"]) == 5


def test_significant_numbers_keep_16_bits() -> None:
    rng = np.random.default_rng(0)
    numbers = rng.normal(size=2000) * 10.0 ** rng.integers(-300, 300, 2000)
    found = significant(pl.Series(numbers)).to_numpy()
    assert np.abs(found / numbers - 1).max() <= 2**-16
    assert np.abs(found / numbers - 1).max() > 2**-18
    for number in found[:200]:
        numerator, denominator = float(number).as_integer_ratio()
        odd = numerator // (numerator & -numerator) if denominator == 1 else numerator
        assert odd.bit_length() <= 16
    assert np.array_equal(significant(pl.Series(found)).to_numpy(), found)  # rounded once for all


def test_small_whole_numbers_are_significant_as_they_are() -> None:
    numbers = [0.0, -0.0, 1.0, -7.0, 65535.0, 65536.0, 65537.0, 0.375, None, float("nan"), float("inf"), -float("inf")]
    expected = [0.0, 0.0, 1.0, -7.0, 65535.0, 65536.0, 65536.0, 0.375, None, None, None, None]
    assert significant(pl.Series(numbers)).to_list() == expected


def dense(normalise: list[str]) -> Spec:
    return spec(
        {"user": {"encode": "hash", "rows": 9, "dim": 4}},
        {"user": {"kind": "id", "table": "user"}, "x": {"kind": "dense", "normalise": normalise}},
    )


def dense_column(train: list[Any], all_values: list[Any], normalise: list[str]) -> tuple[pl.Series, Any]:
    """Features of both lists of numbers, with normalisers learned on the first."""
    of = dense(normalise)
    frames = [
        append_features(pl.LazyFrame({"user": 1, "x": pl.Series(values, dtype=pl.Float64)}), {}, of).collect()
        for values in (train, all_values)
    ]
    encoders = fit(frames[0], of)
    return encoded(frames[1], of, encoders)["feature_x"], encoders.normalisers.get("x")


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


@pytest.mark.parametrize("seed", range(3))
def test_mean_and_deviation_are_those_of_numpy_however_the_rows_are_divided(seed: int) -> None:
    """To the last bit, as long as the rows of one day and slot stay together and in their order."""
    rng = np.random.default_rng(seed)
    of = dense(["standardise"])
    rows = 500
    values = np.where(rng.random(rows) < 0.1, np.nan, rng.lognormal(3, 2, rows))
    samples = pl.DataFrame(
        {
            "feature_user": 1,
            "feature_x": pl.Series(values).fill_nan(None),
            SLOT: rng.integers(0, 7, rows),
            "day": [date(2026, 3, 1 + day) for day in rng.integers(0, 3, rows)],
            "scene_all": True,
            "mask_goal": False,
        }
    ).with_columns(label_goal=pl.lit(None, pl.Float32))
    whole = fit_normalisers(tallies(dictionary_encode(samples, of), NO_PAST, of).sums, of)["x"]
    assert whole.mean == pytest.approx(np.nanmean(values), rel=1e-12)
    assert whole.std == pytest.approx(np.nanstd(values), rel=1e-12)
    parts = [
        tallies(dictionary_encode(part, of), NO_PAST, of) for part in samples.partition_by(SLOT, maintain_order=False)
    ]
    assert fit_normalisers(merge(parts[::-1]).sums, of)["x"] == whole


def test_no_training_row_teaches_no_normaliser() -> None:
    of = dense(["standardise"])
    assert fit(column("x", [], pl.Float64).with_columns(feature_user=pl.lit(1)), of).normalisers == {
        "x": Normaliser(mean=0, std=1)
    }


def test_median_labels_by_the_index_of_a_feature() -> None:
    buckets = spec(
        {"x": {"encode": "quantiles", "buckets": 3, "dim": 4}},
        {"x": {"kind": "id", "table": "x"}},
        kind="regression",
        label="x",
        baseline_by="x",
    )
    train = column("x", [1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    encoders = fit(train, buckets)
    rows = {"x": encoders.rows("x", buckets.tables["x"])}
    labels = pl.Series([10, 30, None, None, 7, 8], dtype=pl.Float32)
    samples = encoded(train, buckets, encoders).with_columns(
        label_goal=labels, mask_goal=labels.is_not_null(), scene_all=pl.lit(True)
    )
    counts = label_counts(samples, buckets)
    assert median_labels(counts, buckets, rows) == {"goal": [9, 20, 9, 7.5]}  # 9 where nothing was learned
    divided = pl.concat(label_counts(part, buckets) for part in (samples[:1], samples[1:5], samples[5:]))
    assert median_labels(divided, buckets, rows) == median_labels(counts, buckets, rows)
    learned = samples.with_columns(scene_all=pl.Series([False, True, True, True, True, True]))
    # Without the 10 of no scene.
    assert median_labels(label_counts(learned, buckets), buckets, rows) == {"goal": [8, 30, 8, 7.5]}


def test_ids_in_a_list_are_stripped_and_the_first_are_kept() -> None:
    tags = spec(
        {"tag": {"encode": "vocab", "dim": 4}},
        {"tags": {"kind": "id_list", "table": "tag", "separator": "|", "max_length": 2}},
    )
    texts = ["a| b |c", "", None, "||x|", "y", " | ", "a| b |c"]
    drafted = append_features(pl.LazyFrame({"tags": texts}), {}, tags).collect()
    lists = [["a", "b"], [], [], ["x"], ["y"], [], ["a", "b"]]
    feature = tags.features["tags"]
    assert isinstance(feature, IdListFeature)
    assert split_list(pl.Series(texts), feature).to_list() == lists
    encoders = fit(drafted, tags)
    assert encoders.vocabularies["tag"].select("value", "count").rows() == [("a", 2), ("b", 2), ("x", 1), ("y", 1)]
    index = {"a": 1, "b": 2, "x": 3, "y": 4}
    found = encoded(drafted, tags, encoders)["feature_tags"]
    assert found.to_list() == [[index[item] for item in items] for items in lists]
    assert found.dtype == pl.List(pl.Int32)
