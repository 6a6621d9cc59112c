"""The AUC of single features against scikit-learn, and against target encoding row by row."""

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import roc_auc_score

from pipeline.data_report.separation import auc, separations
from pipeline.spec.spec import Spec


def test_auc_with_ties_and_unlabelled_rows() -> None:
    random = np.random.default_rng(3)
    levels, label = random.integers(0, 20, 500), random.integers(-1, 2, 500)
    labelled = label >= 0
    assert auc(levels, label) == pytest.approx(roc_auc_score(label[labelled], levels[labelled]))


def test_a_number_counts_in_its_better_direction(spec: Spec, rows: pl.DataFrame) -> None:
    noise = pl.Series(np.random.default_rng(1).normal(size=rows.height))
    price = noise - 1.5 * rows["label_click"]
    found = separations(spec, rows.with_columns(feature_price=price))["click"]["price"]
    assert found == pytest.approx(roc_auc_score(rows["label_click"], -price))
    assert found > 0.8


def test_an_amount_is_above_its_median_or_not(spec: Spec, rows: pl.DataFrame) -> None:
    learned = rows.filter("scene_feed", "mask_watch")
    price = rows["label_watch"] + 5 * pl.Series(np.random.default_rng(1).normal(size=rows.height))
    found = separations(spec, rows.with_columns(feature_price=price))["watch"]["price"]
    learned_price = price.filter(rows["scene_feed"] & rows["mask_watch"])
    above = learned["label_watch"] > learned["label_watch"].median()
    assert found == pytest.approx(roc_auc_score(above, learned_price))


@pytest.mark.parametrize("feature", ["video", "tags"])
def test_ids_are_ordered_on_one_half_and_measured_on_the_other(spec: Spec, rows: pl.DataFrame, feature: str) -> None:
    rate = pl.col("feature_video") / 10 if feature == "video" else pl.col("feature_tags").list.contains(3) / 2
    chance = pl.Series(np.random.default_rng(1).random(rows.height))
    rows = rows.with_columns(label_click=(chance < rate.fill_null(0)).cast(pl.Float32))
    first = np.random.default_rng(0).random(rows.height) < 0.5
    ids = [row if isinstance(row, list) else [row] for row in rows[f"feature_{feature}"].to_list()]
    ids = [row or ["none"] for row in ids]
    clicked = rows["label_click"].to_list()
    seen: dict[object, list[float]] = {}
    for row, label, known in zip(ids, clicked, first, strict=True):
        for value in row if known else ():
            seen.setdefault(value, []).append(label)
    average = sum(map(sum, seen.values())) / sum(map(len, seen.values()))
    rates = {value: (sum(labels) + average) / (len(labels) + 1) for value, labels in seen.items()}
    scores = [sum(rates.get(value, average) for value in row) / len(row) for row in ids]
    expected = roc_auc_score(
        [c for c, f in zip(clicked, first, strict=True) if not f],
        [s for s, f in zip(scores, first, strict=True) if not f],
    )
    found = separations(spec, rows)["click"][feature]
    assert found == pytest.approx(expected)
    assert found > 0.6


def test_an_id_of_each_row_tells_nothing(spec: Spec, rows: pl.DataFrame) -> None:
    unique = rows.with_columns(feature_user=pl.int_range(1, pl.len() + 1, dtype=pl.Int32))
    assert separations(spec, unique)["click"]["user"] == 0.5


def test_an_objective_with_one_class_is_left_out(spec: Spec, rows: pl.DataFrame) -> None:
    assert set(separations(spec, rows.with_columns(label_click=0.0))) == {"watch"}
