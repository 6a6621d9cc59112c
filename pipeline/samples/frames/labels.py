"""Labels, sample spaces, scene membership and sample weights, from the spec's expressions."""

from collections.abc import Mapping

import polars as pl

from pipeline.columns import WEIGHT, label_column, mask_column, scene_column
from pipeline.manifest import LabelStatistics, SplitName
from pipeline.samples.frames.counters import MOST
from pipeline.spec.objectives import BinaryObjective, RegressionObjective
from pipeline.spec.spec import Spec
from pipeline.sql.expressions import parse

KEEP, WANTED = " share kept", " meets the filter"  # no column of a log starts with a blank


def append_labels(samples: pl.LazyFrame, spec: Spec) -> pl.LazyFrame:
    """Adds `label_<objective>` (float32), `mask_<objective>`, `scene_<scene>` (bool) and `sample_weight` (float32).

    Also adds whether the row meets the spec's filter, and the share of such rows that `downsample` keeps.

    A row is outside an objective's sample space where the objective's `where` is not true, or its label is not a finite
    number. Its label is then null.
    """
    columns = []
    for name, objective in spec.objectives.items():
        label = parse(objective.label).cast(pl.Float32)
        inside = label.is_finite().fill_null(False)
        if objective.where:
            inside &= parse(objective.where).fill_null(False)
        columns += [inside.alias(mask_column(name)), pl.when(inside).then(label).alias(label_column(name))]
    for name, scene in spec.scenes.items():
        columns.append(parse(scene.where).fill_null(False).alias(scene_column(name)))
    weight = parse(spec.sample_weight) if spec.sample_weight else pl.lit(1.0)
    columns.append(weight.cast(pl.Float32).alias(WEIGHT))
    wanted = parse(spec.filter).fill_null(False) if spec.filter else pl.lit(True)
    keep = pl.lit(1.0)
    for rule in reversed(spec.downsample):
        keep = pl.when(parse(rule.where).fill_null(False)).then(rule.keep).otherwise(keep)
    return samples.with_columns(*columns, wanted.alias(WANTED), keep.alias(KEEP))


def learned_rows(spec: Spec, objective: str) -> pl.Expr:
    """True for rows in the objective's sample space and in a scene that learns it."""
    scenes = [pl.col(scene_column(s)) for s, scene in spec.scenes.items() if objective in scene.weights]
    return pl.col(mask_column(objective)) & pl.any_horizontal(scenes)


def bad_label(
    objective: BinaryObjective | RegressionObjective, splits: Mapping[SplitName, LabelStatistics]
) -> str | None:
    """Why the labels of an objective are useless: no variety in training, or a bad value. None if they are not."""
    train = splits["train"]
    if train.min is None or train.max is None:
        return "has no row in the training split"
    if train.min == train.max:
        return f"is always {train.min:g} in the training split ({train.rows} rows)"
    lowest = min(split.min for split in splits.values() if split.min is not None)
    highest = max(split.max for split in splits.values() if split.max is not None)
    if isinstance(objective, BinaryObjective) and not 0 <= lowest <= highest <= 1:
        return f"is binary, but has values from {lowest:g} to {highest:g}"
    if highest >= MOST:
        return f"has values up to {highest:g}, more than any measurement"
    if isinstance(objective, RegressionObjective) and lowest < 0:
        return f"has negative values, down to {lowest:g}"
    return None
