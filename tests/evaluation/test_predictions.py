"""Stored predictions that cannot be measured are refused, and the message names the place."""

from pathlib import Path

import polars as pl
import pytest

from pipeline.errors import StrataError
from pipeline.evaluation.predictions import check_predictions, objective_rows, read_predictions
from pipeline.spec.spec import Spec


def first_row(value: float | None, column: str) -> pl.Expr:
    return pl.when(pl.col("sample_id") == 0).then(pl.lit(value, pl.Float32)).otherwise(column).alias(column)


def test_the_literal_table_is_accepted(spec: Spec, predictions: pl.LazyFrame) -> None:
    check_predictions(spec, predictions)


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("pred_click", None),
        ("pred_click", float("nan")),
        ("pred_click", 1.5),
        ("pred_click", -0.1),
        ("label_click", None),
        ("label_click", 0.5),
        ("pred_watch", None),
        ("pred_watch", float("inf")),
        ("label_watch", float("nan")),
        ("label_watch", None),
    ],
)
def test_a_value_that_cannot_be_measured(
    spec: Spec, predictions: pl.LazyFrame, column: str, value: float | None
) -> None:
    with pytest.raises(StrataError, match=f"predictions, {column}: 1 rows hold"):
        check_predictions(spec, predictions.with_columns(first_row(value, column)))


@pytest.mark.parametrize("column", ["user_id", "scene_feed", "mask_like"])
def test_a_missing_user_scene_or_mask(spec: Spec, predictions: pl.LazyFrame, column: str) -> None:
    gap = pl.when(pl.col("sample_id") > 1).then(column).alias(column)
    with pytest.raises(StrataError, match=f"predictions, {column}: 2 rows hold"):
        check_predictions(spec, predictions.with_columns(gap))


@pytest.mark.parametrize(("column", "value", "rows"), [("truth_click", 2.0, 240), ("baseline_watch", float("nan"), 80)])
def test_an_optional_column_is_checked_on_the_rows_of_its_objective(
    spec: Spec, predictions: pl.LazyFrame, column: str, value: float, rows: int
) -> None:
    with pytest.raises(StrataError, match=f"predictions, {column}: {rows} rows hold"):
        check_predictions(spec, predictions.with_columns(pl.lit(value).alias(column)))


def test_labels_outside_the_sample_space_mean_nothing(spec: Spec, predictions: pl.LazyFrame) -> None:
    garbage = pl.when("mask_watch").then("label_watch").otherwise(float("nan")).alias("label_watch")
    check_predictions(spec, predictions.with_columns(garbage))


@pytest.mark.parametrize("column", ["user_id", "scene_player", "mask_watch", "label_like", "pred_like"])
def test_a_missing_column(spec: Spec, predictions: pl.LazyFrame, column: str) -> None:
    with pytest.raises(StrataError, match=f"predictions, {column}: no such column"):
        check_predictions(spec, predictions.drop(column))


def test_a_column_of_the_wrong_type(spec: Spec, predictions: pl.LazyFrame) -> None:
    with pytest.raises(StrataError, match="mask_click: is of type Int8"):
        check_predictions(spec, predictions.with_columns(pl.col("mask_click").cast(pl.Int8)))


def test_rows_of_an_objective(spec: Spec, predictions: pl.LazyFrame) -> None:
    of_user = predictions.filter(pl.col("user_id") == 7)
    assert objective_rows(spec, of_user, "watch").collect().rows() == [(7, 4.0, 3.0), (7, 2.0, 2.0)]
    assert objective_rows(spec, of_user, "click").collect().height == 6
    assert objective_rows(spec, of_user, "click", "player").collect()["prediction"].to_list() == pytest.approx(
        [0.1, 0.7]
    )


def test_a_folder_is_read_whole(predictions: pl.LazyFrame, tmp_path: Path) -> None:
    for part in (0, 1):
        predictions.filter(pl.col("user_id") % 2 == part).sink_parquet(tmp_path / f"part-{part}.parquet")
    assert read_predictions(tmp_path).sort("sample_id").collect().equals(predictions.collect())


def test_a_folder_without_predictions(tmp_path: Path) -> None:
    with pytest.raises(StrataError, match="no Parquet file"):
        read_predictions(tmp_path)


def test_a_file_cut_short(predictions: pl.LazyFrame, tmp_path: Path) -> None:
    predictions.sink_parquet(tmp_path / "a.parquet")
    whole = (tmp_path / "a.parquet").read_bytes()
    (tmp_path / "b.parquet").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(StrataError, match=r"b\.parquet: not a whole Parquet file"):
        read_predictions(tmp_path)


def test_files_that_disagree(predictions: pl.LazyFrame, tmp_path: Path) -> None:
    predictions.sink_parquet(tmp_path / "a.parquet")
    predictions.drop("pred_click").sink_parquet(tmp_path / "b.parquet")
    with pytest.raises(StrataError, match=r"b\.parquet: its columns differ"):
        read_predictions(tmp_path)
