"""Labels, sample spaces, scene membership and sample weights, from the spec's expressions."""

from collections.abc import Mapping

import polars as pl

from pipeline.manifest import LabelStatistics, SplitName
from pipeline.raw.expressions import parse
from pipeline.spec import (
    WEIGHT,
    BinaryObjective,
    RegressionObjective,
    Spec,
    label_column,
    mask_column,
    scene_column,
)


def append_labels(samples: pl.DataFrame, spec: Spec) -> pl.DataFrame:
    """Adds `label_<objective>` (float32), `mask_<objective>`, `scene_<scene>` (bool) and `sample_weight` (float32).

    A row is outside an objective's sample space where the objective's `where` is false or null, or its label is
    no finite number; its label is then null.
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
    return samples.with_columns(columns)


def label_statistics(samples: pl.DataFrame, spec: Spec) -> dict[str, LabelStatistics]:
    """What the labels of every objective are over the rows in a scene that learns it."""
    statistics = {}
    for name in spec.objectives:
        labels = samples.filter(learned_rows(spec, name)).get_column(label_column(name))
        row = labels.to_frame("label").select(
            rows=pl.len(), mean=pl.col("label").mean(), min=pl.col("label").min(), max=pl.col("label").max()
        )
        statistics[name] = LabelStatistics.model_validate(row.row(0, named=True))
    return statistics


def learned_rows(spec: Spec, objective: str) -> pl.Expr:
    """True for rows in the objective's sample space and in a scene that learns it."""
    scenes = [pl.col(scene_column(s)) for s, scene in spec.scenes.items() if objective in scene.weights]
    return pl.col(mask_column(objective)) & pl.any_horizontal(scenes)


def bad_label(
    objective: BinaryObjective | RegressionObjective, splits: Mapping[SplitName, LabelStatistics]
) -> str | None:
    """What makes the labels of an objective useless, if anything does: no variety in training, or a bad value."""
    train = splits["train"]
    if train.min is None or train.max is None:
        return "has no row in the training split"
    if train.min == train.max:
        return f"is always {train.min:g} in the training split ({train.rows} rows)"
    lowest = min(split.min for split in splits.values() if split.min is not None)
    highest = max(split.max for split in splits.values() if split.max is not None)
    if isinstance(objective, BinaryObjective) and not 0 <= lowest <= highest <= 1:
        return f"is binary, but has values from {lowest:g} to {highest:g}"
    if isinstance(objective, RegressionObjective) and lowest < 0:
        return f"has negative values, down to {lowest:g}"
    return None
