"""`metrics.json`: the right rows for each figure, and no figure from too few."""

import json
import math
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from pipeline.evaluation.measure import measure, write_metrics
from pipeline.spec.spec import Spec


def near(figures: dict[str, Any]) -> dict[str, Any]:
    """Equal up to rounding: threads add up sums in another order each time."""
    return {
        name: near(figure)
        if isinstance(figure, dict)
        else pytest.approx(figure)
        if isinstance(figure, float)
        else figure
        for name, figure in figures.items()
    }


def test_a_literal_table(spec: Spec, predictions: pl.LazyFrame) -> None:
    found = measure(spec, predictions)
    assert (found["spec"], found["fingerprint"], found["rows"]) == ("tiny", spec.fingerprint(), 240)
    assert {name: scene["rows"] for name, scene in found["scenes"].items()} == {"feed": 160, "player": 80, "search": 0}
    assert {name: list(scene["objectives"]) for name, scene in found["scenes"].items()} == {
        "feed": ["click", "watch"],
        "player": ["click", "like"],
        "search": ["like"],
    }
    loss = -(math.log(0.8) + math.log(0.4) + math.log(1 - 0.4) + math.log(1 - 0.2)) / 4
    assert found["scenes"]["feed"]["objectives"]["click"] == {
        "kind": "binary",
        "rows": 160,
        "positives": 80,
        "auc": 3.5 / 4,
        "gauc": pytest.approx(3.5 / 4),
        "gauc_users": 40,
        "log_loss": pytest.approx(loss),
        "normalised_entropy": pytest.approx(loss / math.log(2)),
        "calibration": pytest.approx(1.8 / 2),
        "too_few": {},
    }
    assert found["scenes"]["player"]["objectives"]["click"]["auc"] == 0
    # Overall, positives 0.8, 0.4 and 0.1 against negatives 0.4, 0.2 and 0.7: 3, 1.5 and 0 of 3 pairs are right.
    assert found["objectives"]["click"]["auc"] == 4.5 / 9
    assert found["objectives"]["click"]["rows"] == 240


def test_a_regression_is_measured_where_it_applies_and_is_learned(spec: Spec, predictions: pl.LazyFrame) -> None:
    watch = measure(spec, predictions)["objectives"]["watch"]
    assert watch == {
        "kind": "regression",
        "rows": 80,  # not the player's 40, which have the mask, nor the feed's rows without it
        "label_mean": 3.0,
        "mae": 0.5,
        "rmse": pytest.approx(math.sqrt(0.5)),
        "bias": -0.5,
        "xauc": 1.0,
        "too_few": {},
    }


def test_a_figure_without_positives_is_null_with_its_reason(spec: Spec, predictions: pl.LazyFrame) -> None:
    like = measure(spec, predictions)["objectives"]["like"]
    assert like["rows"] == 80
    assert like["log_loss"] == pytest.approx(-math.log(0.9))
    positives = "too few positives: 0 of the 20 needed"
    assert like["too_few"] == {
        "auc": positives,
        "gauc": "too few users with both outcomes: 0 of the 10 needed",
        "normalised_entropy": positives,
        "calibration": positives,
    }
    assert [like[metric] for metric in like["too_few"]] == [None] * 4


@pytest.mark.parametrize(
    ("users", "of_click", "of_watch"),
    [
        (9, {"auc", "gauc", "normalised_entropy", "calibration"}, {"label_mean", "mae", "rmse", "xauc", "bias"}),
        (10, set(), set()),
    ],
)
def test_thresholds(spec: Spec, predictions: pl.LazyFrame, users: int, of_click: set[str], of_watch: set[str]) -> None:
    """With 10 users the feed has exactly 20 positives and 20 negatives, and 20 rows watched."""
    few_users = predictions.filter(pl.col("user_id") < users)
    objectives = measure(spec, few_users)["scenes"]["feed"]["objectives"]
    for name, withheld in (("click", of_click), ("watch", of_watch)):
        assert objectives[name]["too_few"].keys() == withheld
        assert {metric for metric, figure in objectives[name].items() if figure is None} == withheld


def test_too_few_negatives(spec: Spec, predictions: pl.LazyFrame) -> None:
    clicks = predictions.filter((pl.col("label_click") == 1) | (pl.col("user_id") < 3))
    assert measure(spec, clicks)["objectives"]["click"]["too_few"]["auc"] == "too few negatives: 9 of the 20 needed"


def test_labels_all_alike_have_no_xauc(spec: Spec, predictions: pl.LazyFrame) -> None:
    watch = measure(spec, predictions.with_columns(label_watch=pl.lit(3.0)))["objectives"]["watch"]
    assert watch["too_few"] == {"xauc": "too few different labels: 1 of the 2 needed"}
    assert (watch["xauc"], watch["mae"]) == (None, 0.5)


def test_no_rows_at_all(spec: Spec, predictions: pl.LazyFrame) -> None:
    found = measure(spec, predictions.clear())
    for figures in found["objectives"].values():
        assert figures["rows"] == 0
        assert all(figures[metric] is None for metric in figures["too_few"])
        assert {"auc", "mae"} & figures["too_few"].keys()
    json.dumps(found, allow_nan=False)


def test_an_empty_scene(spec: Spec, predictions: pl.LazyFrame) -> None:
    found = measure(spec, predictions)
    assert found["scenes"]["search"]["rows"] == 0
    in_search, overall = found["scenes"]["search"]["objectives"]["like"], found["objectives"]["like"]
    assert (in_search["rows"], in_search["log_loss"]) == (0, None)
    assert in_search["too_few"]["log_loss"] == "too few rows: 0 of the 20 needed"
    assert overall["rows"] == 80


def test_truth_and_baseline_are_measured_where_stored(spec: Spec, predictions: pl.LazyFrame) -> None:
    """In the feed the truth ranks three of four pairs right and ties one: AUC 3.5 / 4."""
    stored = predictions.filter("scene_feed").with_columns(
        truth_click=pl.col("pred_click"), pred_click=1 - pl.col("label_click") / 2, baseline_watch=pl.lit(3.0)
    )
    found = measure(spec, stored)["objectives"]
    assert (found["click"]["auc"], found["click"]["best_auc"]) == (0, 3.5 / 4)
    assert found["click"]["share_closed"] == pytest.approx(-0.5 / 0.375)
    assert (found["watch"]["baseline_mae"], found["watch"]["baseline_xauc"]) == (1.0, 0.5)
    assert "best_auc" not in found["like"]


def test_the_share_of_nothing_is_withheld(spec: Spec, predictions: pl.LazyFrame) -> None:
    click = measure(spec, predictions.with_columns(truth_click=pl.lit(0.5)))["objectives"]["click"]
    assert (click["best_auc"], click["share_closed"]) == (0.5, None)
    assert click["too_few"] == {"share_closed": "too near to guessing: best AUC 0.500"}


def test_a_user_may_be_a_string_and_data_come_from_files(spec: Spec, predictions: pl.LazyFrame, tmp_path: Path) -> None:
    predictions.with_columns(pl.col("user_id").cast(pl.String)).sink_parquet(tmp_path / "a.parquet")
    assert measure(spec, pl.scan_parquet(tmp_path)) == near(measure(spec, predictions))


def test_written_metrics_are_read_back_the_same(spec: Spec, predictions: pl.LazyFrame, tmp_path: Path) -> None:
    found = measure(spec, predictions)
    write_metrics(found, tmp_path / "metrics.json")
    assert json.loads((tmp_path / "metrics.json").read_text()) == found
    assert [file.name for file in tmp_path.iterdir()] == ["metrics.json"]
