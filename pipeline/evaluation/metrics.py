"""The metrics, as Polars expressions and queries over rows of one objective.

Each is the plain definition, and null where it is undefined, as an AUC without a negative is. `measure.py` decides how
many rows a metric needs to mean something. AUC is computed by Mann and Whitney's rank sum; the other formulae are
written at each function. All sums are of float64.
"""

import math

import polars as pl
from scipy.stats import kendalltau

# A float32 sigmoid reaches 0 and 1, where the log loss is infinite. The step of a float32 below 1 is 6e-8.
CLIP = 1e-7


def positives(label: pl.Expr) -> pl.Expr:
    """How many labels are 1; a float64, so that a product of two counts does not overflow."""
    return (label == 1).sum().cast(pl.Float64)


def auc(prediction: pl.Expr, label: pl.Expr) -> pl.Expr:
    """The chance that a positive is predicted above a negative. A tie counts one half. Exact, in O(n log n)."""
    return _auc_of_ranks(prediction.rank("average"), label)


def _auc_of_ranks(rank: pl.Expr, label: pl.Expr) -> pl.Expr:
    """AUC = (R - P (P + 1) / 2) / (P N), with R the sum of the ranks of the P positives among P + N rows."""
    n_positive = positives(label)
    pairs = n_positive * (pl.len().cast(pl.Float64) - n_positive)
    rank_sum = pl.when(label == 1).then(rank.cast(pl.Float64)).otherwise(0.0).sum()
    return pl.when(pairs > 0).then((rank_sum - n_positive * (n_positive + 1) / 2) / pairs)


def gauc(rows: pl.LazyFrame) -> pl.LazyFrame:
    """GAUC = sum_u n_u AUC_u / sum_u n_u, over the users u who have both classes, n_u their rows.

    Takes the columns `user`, `label` and `prediction`. Gives one row of `gauc` and `gauc_users`, the number of users u.
    """
    label = pl.col("label")
    by_user = (
        rows.with_columns(rank=pl.col("prediction").rank("average").over("user"))
        .group_by("user")
        .agg(auc=_auc_of_ranks(pl.col("rank"), label), rows=pl.len())
        .filter(pl.col("auc").is_not_null())
    )
    weighted = (pl.col("auc") * pl.col("rows")).sum() / pl.col("rows").sum()
    return by_user.select(gauc=pl.when(pl.len() > 0).then(weighted), gauc_users=pl.len())


def log_loss(prediction: pl.Expr, label: pl.Expr) -> pl.Expr:
    """Mean of -ln p(label). Probabilities are clipped to [CLIP, 1 - CLIP]."""
    probability = prediction.cast(pl.Float64).clip(CLIP, 1 - CLIP)
    return -pl.when(label == 1).then(probability).otherwise(1 - probability).log().mean()


def normalised_entropy(prediction: pl.Expr, label: pl.Expr) -> pl.Expr:
    """Log loss over the log loss of predicting the base rate for every row (He et al., ADKDD 2014)."""
    rate = positives(label) / pl.len()
    entropy = -(rate * rate.log() + (1 - rate) * (1 - rate).log())
    return pl.when(rate.is_between(0, 1, closed="none")).then(log_loss(prediction, label) / entropy)


def calibration(prediction: pl.Expr, label: pl.Expr) -> pl.Expr:
    """Predicted over actual positives: sum of predictions / sum of labels."""
    n_positive = positives(label)
    return pl.when(n_positive > 0).then(prediction.cast(pl.Float64).sum() / n_positive)


def mae(prediction: pl.Expr, label: pl.Expr) -> pl.Expr:
    """Mean absolute error, in the label's unit."""
    return _error(prediction, label).abs().mean()


def rmse(prediction: pl.Expr, label: pl.Expr) -> pl.Expr:
    """Root of the mean squared error, in the label's unit."""
    return _error(prediction, label).pow(2).mean().sqrt()


def bias(prediction: pl.Expr, label: pl.Expr) -> pl.Expr:
    """Mean prediction minus mean label, in the label's unit."""
    return _error(prediction, label).mean()


def _error(prediction: pl.Expr, label: pl.Expr) -> pl.Expr:
    return prediction.cast(pl.Float64) - label.cast(pl.Float64)


def xauc(prediction: pl.Series, label: pl.Series) -> float | None:
    """Share of the pairs with different labels that the prediction orders as the labels do. Its ties count half.

    With C pairs in the same order, D in the opposite order and U pairs of different labels, XAUC = 1/2 + (C - D) / 2U.
    Kendall's tau-b is (C - D) / sqrt(U V), with V pairs of different predictions. Scipy computes it in O(n log n), with
    integers. So XAUC = (1 + tau_b sqrt(V / U)) / 2, which subtracts no large numbers.
    """
    label_pairs, prediction_pairs = _different_pairs(label), _different_pairs(prediction)
    if label_pairs == 0:
        return None
    if prediction_pairs == 0:
        return 0.5
    tau = float(kendalltau(prediction.to_numpy(), label.to_numpy(), variant="b", method="asymptotic").statistic)
    return (1 + tau * math.sqrt(prediction_pairs / label_pairs)) / 2


def _different_pairs(values: pl.Series) -> int:
    """How many of the n (n - 1) / 2 pairs have two different values."""
    n = len(values)
    count = values.value_counts(name="count")["count"].cast(pl.Int64)
    return n * (n - 1) // 2 - int((count * (count - 1) // 2).sum())
