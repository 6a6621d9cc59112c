"""`report.html`: the tables and plots of an evaluation on one page that needs no other file."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
from markupsafe import Markup

from pipeline.atomic import replace_file
from pipeline.evaluation import bins, plots
from pipeline.evaluation.measure import MIN_ROWS, Metrics
from pipeline.evaluation.metric_tables import COLUMNS, tables
from pipeline.evaluation.predictions import objective_rows
from pipeline.page.figures import count
from pipeline.page.render import render
from pipeline.spec.objectives import RegressionObjective
from pipeline.spec.spec import Spec

TEMPLATE = Path(__file__).parent / "templates" / "report.html"
RELIABILITY = "Rows in ten groups by prediction: on the dashed line, what was predicted is what happened."
OUTCOMES = "The further apart the two outlines, the better the model tells the outcomes apart."
MEANS = "Rows in ten groups by prediction: the nearer the two means, the better."
ERRORS = "Right of 0 the model predicted too much. Each outermost bin also holds the rows beyond it, 1 in 100."


def read_training_curve(metrics: Path) -> list[dict[str, Any]]:
    """The lines of a run's `metrics.jsonl`; none if there is no such file."""
    return [json.loads(line) for line in metrics.read_text().splitlines()] if metrics.exists() else []


def write_report(
    spec: Spec,
    metrics: Metrics,
    predictions: pl.LazyFrame,
    training_curve: list[dict[str, Any]],
    context: Mapping[str, str | int],
    out: Path,
) -> None:
    """Writes the report of one evaluation, whole or not at all.

    Args:
        spec: the spec of the run.
        metrics: the result of `measure` for these predictions.
        predictions: the stored predictions, for the plots.
        training_curve: the lines of the run's `metrics.jsonl`: `step`, `split` (train or valid), `loss`, and under
            `objectives` the loss of each. May be empty.
        context: facts of the run and its data for the head of the page, in this order. `run` is also the title.
        out: the file.
    """
    kinds = {objective.kind for objective in spec.objectives.values()}
    page = render(
        TEMPLATE,
        spec=spec,
        metrics=metrics,
        context={name: count(value) if isinstance(value, int) else value for name, value in context.items()},
        overall=tables(spec, metrics["objectives"]),
        by_scene={scene: tables(spec, found["objectives"]) for scene, found in metrics["scenes"].items()},
        pictures={name: _pictures(spec, predictions, name) for name in spec.objectives},
        curves=_curves(training_curve),
        glossary=[column for kind in COLUMNS if kind in kinds for column in COLUMNS[kind] if column.meaning],
    )
    replace_file(out, page)


@dataclass(frozen=True)
class Pictures:
    """The plots of one objective, by caption, and the ten groups of rows that they show."""

    plots: dict[str, Markup]
    groups: list[dict[str, float]]


def _pictures(spec: Spec, predictions: pl.LazyFrame, name: str) -> Pictures | None:
    """The plots of an objective; None if there are too few rows to draw."""
    rows = objective_rows(spec, predictions, name)
    groups = bins.deciles(rows)
    if groups["rows"].sum() < MIN_ROWS:
        return None
    objective = spec.objectives[name]
    if isinstance(objective, RegressionObjective):
        drawn = {
            MEANS: plots.predicted_and_actual(groups, objective.unit),
            ERRORS: plots.error_distribution(bins.errors(rows), objective.unit),
        }
    else:
        drawn = {
            RELIABILITY: plots.reliability(groups),
            OUTCOMES: plots.prediction_distribution(bins.log_odds_by_label(rows)),
        }
    return Pictures({caption: Markup(svg) for caption, svg in drawn.items()}, groups.to_dicts())


def _curves(training_curve: list[dict[str, Any]]) -> list[Markup]:
    """A plot of the total loss, then one for each objective."""
    schema = {"step": pl.Int64, "split": pl.String, "name": pl.String, "value": pl.Float64}
    points = pl.DataFrame(list(_points(training_curve)), schema, orient="row").filter(pl.col("value").is_finite())
    return [
        Markup(plots.curve(points.filter(pl.col("name") == name), name))
        for name in points["name"].unique(maintain_order=True)
    ]


def _points(training_curve: list[dict[str, Any]]) -> Iterator[tuple[int, str, str, float]]:
    for line in training_curve:
        for name, value in {"total loss": line["loss"], **line.get("objectives", {})}.items():
            yield line["step"], line["split"], name, value
