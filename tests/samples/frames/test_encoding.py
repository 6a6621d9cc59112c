"""Encoders are learned on the training split alone; a value without a row, and a missing one, have row 0."""

from typing import Any

import numpy as np
import polars as pl
import pytest

from pipeline.samples.frames.dictionary import dictionary_encode
from pipeline.samples.frames.encoding import (
    encode,
    encode_past,
    fit_quantiles,
)
from pipeline.samples.frames.hashing import hash_index
from pipeline.samples.frames.tallies import COUNT, VALUE, significant
from pipeline.spec.features import QuantileTable
from tests.samples.frames.encoded import Past, column, encoded, fit, spec


def history(name: str, lists: list[list[Any]]) -> tuple[list[pl.Series], Past]:
    """The two columns that a draft has of a history, and the past values that they point to."""
    lengths = np.array([len(values) for values in lists], np.int64)
    columns = [
        pl.Series(f"feature_{name}", lengths),
        pl.Series(f" start of {name}", np.cumsum(lengths, dtype=np.int64) - lengths),
    ]
    return columns, {name: pl.Series([value for values in lists for value in values])}


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
