"""The numbers behind the plots."""

import numpy as np
import polars as pl
import pytest

from pipeline.evaluation import bins


def test_deciles_are_of_equal_size_and_in_order() -> None:
    order = np.random.default_rng(0).permutation(50)
    rows = pl.LazyFrame({"prediction": order / 50, "label": (order % 5 == 0) * 1.0})
    groups = bins.deciles(rows)
    assert groups["rows"].to_list() == [5] * 10
    assert groups["positives"].to_list() == [1] * 10
    assert groups["label"].to_list() == pytest.approx([0.2] * 10)
    assert groups["prediction"].to_list() == pytest.approx([(5 * g + 2) / 50 for g in range(10)])


def test_rows_of_the_same_prediction_stay_in_one_group() -> None:
    groups = bins.deciles(pl.LazyFrame({"prediction": [0.1] * 30 + [0.9] * 10, "label": [0] * 30 + [1] * 10}))
    assert groups.rows() == [(30, 0, pytest.approx(0.1), 0.0), (10, 10, pytest.approx(0.9), 1.0)]


def test_log_odds_give_each_class_its_own_share() -> None:
    prediction = 1 / (1 + np.exp(-np.array([-2.0, -2.0, 0.01, 2.0])))
    found = bins.log_odds_by_label(pl.LazyFrame({"prediction": prediction, "label": [0, 0, 1, 1]}))
    assert (found.height, found["left"][0], found["right"][-1]) == (40, pytest.approx(-2), pytest.approx(2))
    assert found.filter(pl.col("negative") > 0).select("negative", "positive").rows() == [(1.0, 0.0)]
    assert found.filter(pl.col("positive") > 0)["positive"].to_list() == [0.5, 0.5]
    assert found["positive"][20] == 0.5
    assert found["positive"][39] == 0.5


def test_a_class_without_rows_has_a_share_of_zero() -> None:
    found = bins.log_odds_by_label(pl.LazyFrame({"prediction": [0.2, 0.4], "label": [0, 0]}))
    assert found["positive"].to_list() == [0.0] * 40


def test_errors_count_their_tails_in_the_outermost_bins() -> None:
    error = np.concatenate([np.linspace(-1, 1, 1001), [1000.0]])
    found = bins.errors(pl.LazyFrame({"prediction": error + 3, "label": np.full(1002, 3.0)}))
    assert found["share"].sum() == pytest.approx(1)
    assert found["right"][-1] < 1
    assert found["share"][-1] > found["share"][20]
    assert found["share"][20] == pytest.approx(1 / 40, rel=0.1)


def test_a_constant_has_an_axis_and_one_bin() -> None:
    found = bins.errors(pl.LazyFrame({"prediction": [2.0] * 30, "label": [2.0] * 30}))
    assert sorted(found["share"])[-2:] == [0.0, 1.0]
    assert (found["left"][0], found["right"][-1]) == (-0.5, pytest.approx(0.5))
