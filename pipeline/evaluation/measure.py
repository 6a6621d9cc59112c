"""The content of `metrics.json`: every metric of every objective, overall and per scene.

A figure from too few rows would mislead. It is null, and `too_few` says what there was too little of.
"""

import json
from pathlib import Path
from typing import Any

import polars as pl

from pipeline.atomic import replace_file
from pipeline.columns import scene_column
from pipeline.evaluation import metrics
from pipeline.evaluation.predictions import check_predictions, objective_rows
from pipeline.spec.objectives import BinaryObjective
from pipeline.spec.spec import Spec

# With fewer, a figure is noise: even with 20 positives the standard error of an AUC is about 0.06.
MIN_ROWS = 20
MIN_POSITIVES = 20
MIN_NEGATIVES = 20
MIN_USERS = 10
# If the best AUC is nearer to 0.5 than this, the share that a model closes is noise over noise.
MIN_DISTANCE = 0.01

Metrics = dict[str, Any]


def measure(spec: Spec, predictions: pl.LazyFrame) -> Metrics:
    """Measures stored predictions, whose columns `pipeline/columns.py` names. Returns the content of `metrics.json`.

    Raises:
        StrataError: a column is missing, or holds a value that cannot be measured.
    """
    check_predictions(spec, predictions)
    sizes = predictions.select(pl.len(), *(pl.col(scene_column(name)).sum() for name in spec.scenes)).collect()
    overall = {name: _measure_objective(spec, predictions, name) for name in spec.objectives}

    def within(scene: str, name: str) -> Metrics:
        only_scene = all(name not in spec.scenes[other].weights for other in spec.scenes if other != scene)
        return overall[name] if only_scene else _measure_objective(spec, predictions, name, scene)

    return {
        "spec": spec.name,
        "fingerprint": spec.fingerprint(),
        "rows": sizes["len"].item(),
        "objectives": overall,
        "scenes": {
            scene: {
                "rows": sizes[scene_column(scene)].item(),
                "objectives": {name: within(scene, name) for name in spec.scenes[scene].weights},
            }
            for scene in spec.scenes
        },
    }


def write_metrics(content: Metrics, path: Path) -> None:
    """Writes `metrics.json`, whole or not at all."""
    replace_file(path, (json.dumps(content, indent=2, allow_nan=False) + "\n").encode())


def _measure_objective(spec: Spec, predictions: pl.LazyFrame, name: str, scene: str | None = None) -> Metrics:
    rows = objective_rows(spec, predictions, name, scene)
    measure_kind = _measure_binary if isinstance(spec.objectives[name], BinaryObjective) else _measure_regression
    return {"kind": spec.objectives[name].kind, **measure_kind(rows)}


def _measure_binary(rows: pl.LazyFrame) -> Metrics:
    has_truth = "truth" in rows.collect_schema()
    prediction, label = pl.col("prediction"), pl.col("label")
    expressions = {
        "rows": pl.len(),
        "positives": metrics.positives(label).cast(pl.Int64),
        "auc": metrics.auc(prediction, label),
        "log_loss": metrics.log_loss(prediction, label),
        "normalised_entropy": metrics.normalised_entropy(prediction, label),
        "calibration": metrics.calibration(prediction, label),
    }
    if has_truth:
        expressions["best_auc"] = metrics.auc(pl.col("truth"), label)
    among_all, within_users = pl.collect_all([rows.select(**expressions), metrics.gauc(rows)])
    found: Metrics = {**among_all.row(0, named=True), **within_users.row(0, named=True)}

    few_positives = _too_few(found["positives"], MIN_POSITIVES, "positives")
    few_of_a_class = few_positives or _too_few(found["rows"] - found["positives"], MIN_NEGATIVES, "negatives")
    too_few = {
        "auc": few_of_a_class,
        "gauc": _too_few(found["gauc_users"], MIN_USERS, "users with both outcomes"),
        "log_loss": _too_few(found["rows"], MIN_ROWS, "rows"),
        "normalised_entropy": few_of_a_class,
        "calibration": few_positives,
    }
    if has_truth:
        distance = (found["best_auc"] or 0.5) - 0.5
        near = f"too near to guessing: best AUC {0.5 + distance:.3f}" if distance < MIN_DISTANCE else None
        found["share_closed"] = None if near else (found["auc"] - 0.5) / distance
        too_few |= {"best_auc": few_of_a_class, "share_closed": few_of_a_class or near}
    return _withhold(found, too_few)


def _measure_regression(rows: pl.LazyFrame) -> Metrics:
    prediction, label = pl.col("prediction"), pl.col("label")
    # XAUC is computed outside of Polars, so a few columns of the objective's rows are read into memory.
    table = rows.drop("user").collect()
    found: Metrics = table.select(
        rows=pl.len(),
        label_mean=label.cast(pl.Float64).mean(),
        mae=metrics.mae(prediction, label),
        rmse=metrics.rmse(prediction, label),
        bias=metrics.bias(prediction, label),
    ).row(0, named=True)
    found["xauc"] = metrics.xauc(table["prediction"], table["label"])

    few_rows = _too_few(found["rows"], MIN_ROWS, "rows")
    few_labels = few_rows or _too_few(table["label"].n_unique(), 2, "different labels")
    too_few = {"label_mean": few_rows, "mae": few_rows, "rmse": few_rows, "xauc": few_labels, "bias": few_rows}
    if "baseline" in table.columns:
        found["baseline_mae"] = table.select(metrics.mae(pl.col("baseline"), label)).item()
        found["baseline_xauc"] = metrics.xauc(table["baseline"], table["label"])
        too_few |= {"baseline_mae": few_rows, "baseline_xauc": few_labels}
    return _withhold(found, too_few)


def _too_few(count: int, least: int, of: str) -> str | None:
    """The reason to withhold a figure; None if there are enough."""
    return f"too few {of}: {count:,} of the {least} needed" if count < least else None


def _withhold(found: Metrics, too_few: dict[str, str | None]) -> Metrics:
    reasons = {metric: reason for metric, reason in too_few.items() if reason}
    assert all(found[metric] is not None for metric, reason in too_few.items() if not reason)
    return {**found, **dict.fromkeys(reasons, None), "too_few": reasons}
