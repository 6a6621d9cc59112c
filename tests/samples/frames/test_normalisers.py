"""Normalisers, median labels and lists, against NumPy and by hand."""

from datetime import date
from typing import Any

import numpy as np
import polars as pl
import pytest

from pipeline.manifest import Normaliser
from pipeline.samples.frames.dictionary import dictionary_encode
from pipeline.samples.frames.encoding import (
    fit_normalisers,
    label_counts,
    median_labels,
)
from pipeline.samples.frames.features import append_features, split_list
from pipeline.samples.frames.tallies import SLOT, merge, tallies
from pipeline.spec.features import IdListFeature
from pipeline.spec.spec import Spec
from tests.samples.frames.encoded import NO_PAST, column, encoded, fit, spec


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
