"""Every metric against scikit-learn, a brute-force count or figures worked out by hand."""

import math

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import log_loss as sklearn_log_loss
from sklearn.metrics import mean_absolute_error, roc_auc_score, root_mean_squared_error

from pipeline.evaluation import metrics

PREDICTION, LABEL = pl.col("prediction"), pl.col("label")


def table(label: list[float] | np.ndarray, prediction: list[float] | np.ndarray) -> pl.DataFrame:
    return pl.DataFrame({"label": label, "prediction": prediction}, {"label": pl.Float32, "prediction": pl.Float32})


def value(expression: pl.Expr, rows: pl.DataFrame) -> float | None:
    found = rows.select(expression).item()
    return None if found is None else float(found)


def random_binary(seed: int, rows: int, ties: bool) -> pl.DataFrame:
    draw = np.random.default_rng(seed)
    probability = draw.beta(1, 4, rows)
    label = draw.random(rows) < probability
    noisy = np.clip(probability + draw.normal(0, 0.1, rows), 0.001, 0.999)
    return table(label.astype(np.float32), noisy.round(1) if ties else noisy)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", [0, 1])
def test_binary_metrics_equal_sklearn(seed: int, ties: bool) -> None:
    rows = random_binary(seed, 997, ties)
    label, prediction = rows["label"].to_numpy(), rows["prediction"].to_numpy().astype(np.float64)
    loss = sklearn_log_loss(label, np.clip(prediction, metrics.CLIP, 1 - metrics.CLIP))
    base = sklearn_log_loss(label, np.full(len(label), label.mean(dtype=np.float64)))
    assert value(metrics.auc(PREDICTION, LABEL), rows) == pytest.approx(roc_auc_score(label, prediction), rel=1e-12)
    assert value(metrics.log_loss(PREDICTION, LABEL), rows) == pytest.approx(loss, rel=1e-12)
    assert value(metrics.normalised_entropy(PREDICTION, LABEL), rows) == pytest.approx(loss / base, rel=1e-12)
    assert value(metrics.calibration(PREDICTION, LABEL), rows) == pytest.approx(prediction.sum() / label.sum())


def test_auc_counts_a_tie_as_one_half() -> None:
    # Pairs of a positive and a negative: (0.8, 0.4) right, (0.8, 0.2) right, (0.4, 0.4) tie, (0.4, 0.2) right.
    assert value(metrics.auc(PREDICTION, LABEL), table([1, 1, 0, 0], [0.8, 0.4, 0.4, 0.2])) == 3.5 / 4


def test_auc_does_not_overflow_on_more_pairs_than_32_bits_hold() -> None:
    label = np.repeat([0, 1], 100_000)
    assert value(metrics.auc(PREDICTION, LABEL), table(label, label)) == 1.0
    assert value(metrics.auc(PREDICTION, LABEL), table(label, np.zeros(200_000))) == 0.5


@pytest.mark.parametrize("label", [[0, 0], [1, 1], []])
def test_what_needs_both_classes_is_null_with_one(label: list[float]) -> None:
    rows = table(label, [0.5] * len(label))
    assert value(metrics.auc(PREDICTION, LABEL), rows) is None
    assert value(metrics.normalised_entropy(PREDICTION, LABEL), rows) is None


def test_calibration_without_a_positive_is_null() -> None:
    assert value(metrics.calibration(PREDICTION, LABEL), table([0, 0], [0.5, 0.1])) is None


def test_log_loss_of_a_certain_mistake_is_that_of_the_clipped_probability() -> None:
    assert value(metrics.log_loss(PREDICTION, LABEL), table([1], [0])) == pytest.approx(-math.log(1e-7))
    assert value(metrics.log_loss(PREDICTION, LABEL), table([0], [1])) == pytest.approx(-math.log(1e-7))


def test_normalised_entropy_of_the_base_rate_is_one() -> None:
    assert value(metrics.normalised_entropy(PREDICTION, LABEL), table([1, 0, 0, 0], [0.25] * 4)) == pytest.approx(1)


def test_gauc_weights_users_by_rows_and_leaves_out_those_of_one_class() -> None:
    rows = pl.DataFrame(
        [
            ("a", 1, 0.9),
            ("a", 0, 0.1),  # AUC 1 on 2 rows
            ("b", 1, 0.3),
            ("b", 0, 0.3),
            ("b", 0, 0.5),
            ("b", 0, 0.2),  # AUC (1/2 + 0 + 1) / 3 on 4 rows
            ("c", 1, 0.2),
            ("c", 1, 0.4),  # never a 0
            ("d", 0, 0.9),  # never a 1
        ],
        ["user", "label", "prediction"],
        orient="row",
    )
    assert metrics.gauc(rows.lazy()).collect().to_dicts() == [
        {"gauc": pytest.approx((2 * 1 + 4 * 0.5) / 6), "gauc_users": 2}
    ]


def test_gauc_equals_a_loop_over_users_with_sklearn() -> None:
    user = np.random.default_rng(3).integers(0, 60, 997)
    rows = random_binary(3, 997, ties=True).with_columns(user=pl.Series(user))
    total, weight, counted = 0.0, 0, 0
    for (_,), group in rows.group_by("user"):
        if group["label"].n_unique() == 2:
            total += len(group) * roc_auc_score(group["label"], group["prediction"])
            weight, counted = weight + len(group), counted + 1
    assert 0 < counted < rows["user"].n_unique()
    found = metrics.gauc(rows.lazy()).collect().row(0)
    assert found == (pytest.approx(total / weight, rel=1e-12), counted)


def test_gauc_without_a_user_of_both_classes_is_null() -> None:
    rows = pl.LazyFrame({"user": [1, 2], "label": [0, 1], "prediction": [0.1, 0.2]})
    assert metrics.gauc(rows).collect().row(0) == (None, 0)
    assert metrics.gauc(rows.clear()).collect().row(0) == (None, 0)


def test_errors_of_a_regression_equal_sklearn_and_a_hand_count() -> None:
    rows = table([4, 2, 0], [3, 2, 5])
    label, prediction = rows["label"].to_numpy(), rows["prediction"].to_numpy()
    assert value(metrics.mae(PREDICTION, LABEL), rows) == pytest.approx(mean_absolute_error(label, prediction))
    assert value(metrics.rmse(PREDICTION, LABEL), rows) == pytest.approx(root_mean_squared_error(label, prediction))
    assert value(metrics.bias(PREDICTION, LABEL), rows) == pytest.approx((-1 + 0 + 5) / 3)


def test_sums_and_differences_run_in_float64() -> None:
    rows = table(np.ones(1_000_000), np.full(1_000_000, 0.1))
    assert value(metrics.calibration(PREDICTION, LABEL), rows) == pytest.approx(float(np.float32(0.1)), rel=1e-12)
    tiny = table([1], [1e-9])  # 1 - 1e-9 is 1 in float32
    assert value(metrics.bias(PREDICTION, LABEL), tiny) == pytest.approx(-1 + 1e-9, abs=1e-12)


def brute_force_xauc(prediction: np.ndarray, label: np.ndarray) -> float:
    i, j = np.triu_indices(len(label), k=1)
    different = label[i] != label[j]
    order = np.sign(prediction[i] - prediction[j]) * np.sign(label[i] - label[j])
    return float(((order[different] + 1) / 2).mean())


@pytest.mark.parametrize("label_decimals", [0, 6])
@pytest.mark.parametrize("prediction_decimals", [0, 6])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_xauc_equals_counting_all_pairs(seed: int, prediction_decimals: int, label_decimals: int) -> None:
    draw = np.random.default_rng(seed)
    truth = draw.exponential(3, 500)
    label, prediction = truth.round(label_decimals), (truth + draw.normal(0, 3, 500)).round(prediction_decimals)
    rows = table(label, prediction)
    expected = brute_force_xauc(*(rows[name].to_numpy().astype(np.float64) for name in ("prediction", "label")))
    assert 0.55 < expected < 0.95
    assert metrics.xauc(rows["prediction"], rows["label"]) == pytest.approx(expected, rel=1e-12)


def test_xauc_of_two_classes_is_the_auc() -> None:
    rows = random_binary(5, 500, ties=True)
    assert metrics.xauc(rows["prediction"], rows["label"]) == pytest.approx(
        value(metrics.auc(PREDICTION, LABEL), rows), rel=1e-12
    )


def test_xauc_at_its_limits() -> None:
    many = np.repeat(np.arange(3), 100_000)  # ties alone make more pairs than 32 bits hold
    ordered, reverse, same = table(many, many), table(many, -many), table(many, many * 0)
    assert metrics.xauc(ordered["prediction"], ordered["label"]) == pytest.approx(1, abs=1e-12)
    assert metrics.xauc(reverse["prediction"], reverse["label"]) == pytest.approx(0, abs=1e-12)
    assert metrics.xauc(same["prediction"], same["label"]) == 0.5
    assert metrics.xauc(same["label"], same["prediction"]) is None
    assert metrics.xauc(same["label"].clear(), same["label"].clear()) is None
