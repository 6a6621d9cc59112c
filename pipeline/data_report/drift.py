"""Drift: how much the distribution of a feature in the test split differs from that in the training split."""

import numpy as np
import polars as pl

from pipeline.columns import WEIGHT, feature_column
from pipeline.data_report.values import MISSING, flatten_ids
from pipeline.spec.features import DenseFeature
from pipeline.spec.spec import Spec

# With fewer rows, the shares of a few dozen bins differ by chance alone. The PSI of two samples of n rows from one
# distribution is about 2 (bins - 1) / n: at 1000 rows a tenth of the limit for a warning, and more where the rows of a
# user lie together.
MIN_ROWS = 1000
# The share of a rarer value in MIN_ROWS rows is mostly chance: such values are counted together.
MIN_SHARE = 0.01
MOST_VALUES = 20
# A bin that is empty on one side would make the PSI infinite. This share, as usual, stands for none.
LEAST_SHARE = 1e-4


def population_stability(spec: Spec, train: pl.DataFrame, test: pl.DataFrame) -> dict[str, float]:
    """The population stability index (PSI) of every feature between two samples. Empty if one has too few rows.

        PSI = Σ_bins (q - p) ln(q / p)

    with p and q the shares of the training and of the test rows in a bin, by sample weight, each at least LEAST_SHARE
    (Siddiqi, Credit Risk Scorecards, 2006; it is the symmetric Kullback-Leibler divergence of the two histograms).
    The bins of a dense feature are the deciles of its training values, and one for exactly 0, which stands for a
    missing number. The bins of ids are the most frequent training values, one for all others and one for missing ids.
    An id of a list weighs as much as its row.
    """
    train, test = (rows.filter(pl.col(WEIGHT) > 0) for rows in (train, test))
    if min(train.height, test.height) < MIN_ROWS:
        return {}
    weights = (train[WEIGHT].to_numpy(), test[WEIGHT].to_numpy())
    return {
        name: (_dense if isinstance(feature, DenseFeature) else _ids)(
            train[feature_column(name)], test[feature_column(name)], *weights
        )
        for name, feature in spec.features.items()
    }


def _dense(train: pl.Series, test: pl.Series, train_weights: np.ndarray, test_weights: np.ndarray) -> float:
    there = train.filter(train != 0)
    inner = np.unique(np.quantile(there.to_numpy(), np.arange(0.1, 1, 0.1))) if len(there) else np.zeros(0)

    def histogram(column: pl.Series, weights: np.ndarray) -> np.ndarray:
        values = column.to_numpy()
        bins = np.where(values == 0, 0, 1 + np.searchsorted(inner, values, side="right"))
        return np.bincount(bins, weights, minlength=len(inner) + 2)

    return psi(histogram(train, train_weights), histogram(test, test_weights))


def _ids(train: pl.Series, test: pl.Series, train_weights: np.ndarray, test_weights: np.ndarray) -> float:
    counts = pl.Series("value", flatten_ids(train).values).value_counts().filter(pl.col("value") != MISSING)
    common = counts.filter(pl.col("count") >= MIN_SHARE * pl.col("count").sum())
    frequent = common.sort(["count", "value"], descending=[True, False]).head(MOST_VALUES)
    known = np.sort(np.append(frequent["value"].to_numpy(), MISSING))

    def histogram(column: pl.Series, weights: np.ndarray) -> np.ndarray:
        ids = flatten_ids(column)
        at = np.minimum(np.searchsorted(known, ids.values), len(known) - 1)
        bins = np.where(known[at] == ids.values, at, len(known))
        return np.bincount(bins, weights[ids.rows], minlength=len(known) + 1)

    return psi(histogram(train, train_weights), histogram(test, test_weights))


def psi(train: np.ndarray, test: np.ndarray) -> float:
    """The population stability index of two histograms over the same bins, [bins] each: counts or sums of weights."""
    p, q = (np.maximum(counts / counts.sum(), LEAST_SHARE) for counts in (train, test))
    return float(((q - p) * np.log(q / p)).sum())
