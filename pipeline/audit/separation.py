"""Features that alone tell a binary label: a column that repeats an outcome under another name looks like this.

Recomputing cannot find such a leak, because the raw log itself has it.
"""

from collections import Counter, defaultdict
from collections.abc import Hashable
from dataclasses import dataclass
from itertools import groupby

import polars as pl

from pipeline.columns import feature_column, label_column, mask_column, scene_column
from pipeline.spec.features import DenseFeature, IdFeature
from pipeline.spec.objectives import BinaryObjective
from pipeline.spec.spec import Spec

MIN_ROWS = 20  # of each class: fewer may be told apart by chance
SEPARATES = 0.99


@dataclass(frozen=True)
class Separation:
    """A feature that tells the label of an objective on `rows` samples; `score` is 1 where it never errs."""

    feature: str
    objective: str
    score: float
    rows: int

    def __str__(self) -> str:
        return (
            f"{feature_column(self.feature)} alone tells {label_column(self.objective)} "
            f"({self.score:.3f} on {self.rows} samples)"
        )


def separating_features(samples: pl.DataFrame, spec: Spec) -> list[Separation]:
    """The features that tell a binary label almost perfectly among the samples that learn it.

    A number is scored by the AUC of its order, either way. An id or a list, and a number with few values, by the
    balanced accuracy of guessing each label from the other samples of the same value, so that a value that comes
    only once tells nothing.
    """
    found = []
    for objective, kind in spec.objectives.items():
        if not isinstance(kind, BinaryObjective):
            continue
        scenes = [pl.col(scene_column(name)) for name, scene in spec.scenes.items() if objective in scene.weights]
        learned = samples.filter(pl.col(mask_column(objective)) & pl.any_horizontal(scenes))
        labels = [label > 0.5 for label in learned[label_column(objective)]]
        if min(sum(labels), len(labels) - sum(labels)) < MIN_ROWS:
            continue
        for name, feature in spec.features.items():
            column = learned[feature_column(name)].to_list()
            if isinstance(feature, DenseFeature):
                score = max(_auc(column, labels), 1 - _auc(column, labels))
            else:
                score = _guessed(column if isinstance(feature, IdFeature) else [*map(tuple, column)], labels)
            if score >= SEPARATES:
                found.append(Separation(name, objective, score, len(labels)))
    return found


def _auc(values: list[float], labels: list[bool]) -> float:
    """The share of pairs of a positive and a negative in which the positive has the larger value; a tie is half."""
    below, won = 0, 0.0
    for _, group in groupby(sorted(zip(values, labels, strict=True)), key=lambda pair: pair[0]):
        of_group = [label for _, label in group]
        positives, negatives = sum(of_group), len(of_group) - sum(of_group)
        won += positives * (below + negatives / 2)
        below += negatives
    return won / (sum(labels) * (len(labels) - sum(labels)))


def _guessed(values: list[Hashable], labels: list[bool]) -> float:
    """The mean over both classes of the share guessed rightly: by the others' majority, else not at all."""
    counts: defaultdict[Hashable, Counter[bool]] = defaultdict(Counter)
    for value, label in zip(values, labels, strict=True):
        counts[value][label] += 1
    right = Counter(
        label
        for value, label in zip(values, labels, strict=True)
        if counts[value][label] - 1 > counts[value][not label]
    )
    return (right[True] / sum(labels) + right[False] / (len(labels) - sum(labels))) / 2
