"""How well a single feature tells a label. One that tells it almost perfectly probably repeats an outcome.

Recomputing samples from the log cannot find such a leak: the log itself has it.
"""

import numpy as np
import polars as pl

from pipeline.columns import feature_column, label_column, mask_column, scene_column
from pipeline.data_report.values import flatten_ids
from pipeline.spec.features import DenseFeature
from pipeline.spec.objectives import BinaryObjective
from pipeline.spec.spec import Spec

# With fewer rows of a class, a feature may separate the classes by chance.
MIN_ROWS_PER_CLASS = 20
UNLABELLED = -1


def separations(spec: Spec, sample: pl.DataFrame) -> dict[str, dict[str, float]]:
    """The AUC of each feature alone against the label of each objective, on the rows that learn it.

    Numbers are ordered by value, in the better of the two directions. Ids are ordered by their label's rate, taken from
    one half of the sample and measured on the other half: an id that comes only once tells nothing. A list has the mean
    rate of its ids. The label of a regression objective is whether it is above its median. An objective with too few
    rows of either class is left out.
    """
    first_half = np.random.default_rng(0).random(sample.height) < 0.5
    labels = {name: _label(spec, sample, name) for name in spec.objectives}
    labels = {
        name: label for name, label in labels.items() if all(_enough(label[half]) for half in (first_half, ~first_half))
    }
    found: dict[str, dict[str, float]] = {name: {} for name in labels}
    for feature, declared in spec.features.items():
        column = sample[feature_column(feature)]
        if isinstance(declared, DenseFeature):
            areas = _of_number(column, labels)
        else:
            areas = _of_ids(column, labels, first_half)
        for name, area in areas.items():
            found[name][feature] = area
    return found


def _label(spec: Spec, sample: pl.DataFrame, name: str) -> np.ndarray:
    """The label as 1 or 0, [rows]; UNLABELLED for rows that do not learn the objective."""
    learned = pl.any_horizontal(scene_column(s) for s, scene in spec.scenes.items() if name in scene.weights)
    rows, label = learned & pl.col(mask_column(name)), pl.col(label_column(name))
    positive = label == 1 if isinstance(spec.objectives[name], BinaryObjective) else label > label.filter(rows).median()
    return sample.select(pl.when(rows).then(positive.cast(pl.Int8)).fill_null(UNLABELLED)).to_series().to_numpy()


def _enough(label: np.ndarray) -> bool:
    return all(int((label == value).sum()) >= MIN_ROWS_PER_CLASS for value in (0, 1))


def _of_number(column: pl.Series, labels: dict[str, np.ndarray]) -> dict[str, float]:
    levels = _levels(column)
    areas = {name: auc(levels, label) for name, label in labels.items()}
    return {name: max(area, 1 - area) for name, area in areas.items()}


def _of_ids(column: pl.Series, labels: dict[str, np.ndarray], first_half: np.ndarray) -> dict[str, float]:
    ids = flatten_ids(column)
    codes = _levels(pl.Series(ids.values))
    per_row = np.bincount(ids.rows)
    areas = {}
    for name, label in labels.items():
        of_id = np.where(first_half, label, UNLABELLED)[ids.rows]
        positives = np.bincount(codes[of_id == 1], minlength=codes.max() + 1)
        negatives = np.bincount(codes[of_id == 0], minlength=codes.max() + 1)
        average = positives.sum() / (positives + negatives).sum()
        # As if each id had one more row with the average label: so an id that the first half lacks has a rate, too.
        rate = (positives + average) / (positives + negatives + 1)
        mean_rate = pl.Series(np.bincount(ids.rows, rate[codes]) / per_row)
        areas[name] = auc(_levels(mean_rate), np.where(first_half, UNLABELLED, label))
    return areas


def _levels(values: pl.Series) -> np.ndarray:
    """The rank of each value among the different values, [rows]."""
    levels: np.ndarray = values.rank("dense").to_numpy()
    return levels


def auc(levels: np.ndarray, label: np.ndarray) -> float:
    """The share of the pairs of a positive (1) and a negative (0) row in which the positive has the higher level.

    Pairs of one level count half (Mann and Whitney, 1947). Rows with another label are left out. Both are [rows].
    """
    positives = np.bincount(levels[label == 1], minlength=levels.max() + 1)
    negatives = np.bincount(levels[label == 0], minlength=levels.max() + 1)
    below = np.cumsum(negatives) - negatives / 2
    return float((positives * below).sum() / (positives.sum() * negatives.sum()))
