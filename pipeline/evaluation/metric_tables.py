"""The tables of the report: the heading, the meaning and the form of each figure."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.evaluation.metrics import CLIP
from pipeline.page.figures import amount, count, ratio, share
from pipeline.spec.objectives import RegressionObjective
from pipeline.spec.spec import Spec


@dataclass(frozen=True)
class Column:
    """A figure of `metrics.json` as a column. A table leaves it out if none of its objectives has the figure."""

    key: str
    heading: str
    form: Callable[[float], str]
    meaning: str = ""


@dataclass(frozen=True)
class MetricCell:
    """A figure as text. If there is none, a note says why."""

    text: str
    note: int | None = None
    reason: str = ""


@dataclass(frozen=True)
class MetricTable:
    """Columns, one line per objective, and the notes below, numbered from 1."""

    columns: list[Column]
    lines: dict[str, list[MetricCell]]
    notes: list[str]


BINARY = [
    Column("rows", "rows", count),
    Column("positives", "positives", count),
    Column(
        "auc",
        "AUC",
        ratio,
        "The chance that a random positive row is scored above a random negative. 0.5 is guessing, 1 is perfect.",
    ),
    Column(
        "best_auc",
        "best AUC",
        ratio,
        "AUC of the true probabilities, which the log simulator knows. Only by chance can a model do better.",
    ),
    Column(
        "share_closed", "share closed", share, "How much of the way from AUC 0.5 to the best AUC the model has gone."
    ),
    Column(
        "gauc",
        "GAUC",
        ratio,
        "AUC within the rows of each user, averaged over users by their number of rows: how well the model orders one "
        "person's feed. Only users with both outcomes count.",
    ),
    Column("gauc_users", "GAUC users", count),
    Column(
        "log_loss",
        "log loss",
        ratio,
        "Mean of −ln of the probability predicted for what happened. Lower is better. Rare positives make it small. "
        f"Probabilities are clipped to [{CLIP:g}, 1 − {CLIP:g}].",
    ),
    Column(
        "normalised_entropy",
        "NE",
        ratio,
        "Normalised entropy: log loss over the log loss of always predicting the average rate. Below 1 the model knows "
        "more than the average.",
    ),
    Column(
        "calibration", "calibration", ratio, "Predicted over actual positives. 1 is right, 1.1 predicts 10 % too many."
    ),
]
REGRESSION = [
    Column("rows", "rows", count),
    Column("label_mean", "mean label", amount, "Mean of the actual values, for scale."),
    Column("mae", "MAE", amount, "Mean absolute error, in the objective's unit."),
    Column("baseline_mae", "baseline MAE", amount, "MAE of a simple rule, stored beside the predictions."),
    Column("rmse", "RMSE", amount, "Root of the mean squared error, in the objective's unit; large errors weigh more."),
    Column("bias", "bias", amount, "Mean prediction minus mean label. Above 0 the model predicts too much."),
    Column(
        "xauc",
        "XAUC",
        ratio,
        "Of all pairs of rows with different labels, the share that the prediction puts in the right order. "
        "0.5 is guessing, 1 is perfect.",
    ),
    Column("baseline_xauc", "baseline XAUC", ratio, "XAUC of the same simple rule."),
]
COLUMNS = {"binary": BINARY, "regression": REGRESSION}
TITLES = {"binary": "Yes or no", "regression": "Amounts"}


def tables(spec: Spec, objectives: Mapping[str, Mapping[str, Any]]) -> dict[str, MetricTable]:
    """A table for each kind of objective that occurs, by its title."""
    of_kind = {kind: {name: m for name, m in objectives.items() if m["kind"] == kind} for kind in COLUMNS}
    return {TITLES[kind]: _table(spec, of_kind[kind], COLUMNS[kind]) for kind in COLUMNS if of_kind[kind]}


def _table(spec: Spec, objectives: Mapping[str, Mapping[str, Any]], columns: list[Column]) -> MetricTable:
    columns = [column for column in columns if any(column.key in figures for figures in objectives.values())]
    notes: list[str] = []
    lines: dict[str, list[MetricCell]] = {}
    for name, figures in objectives.items():
        lines[_with_unit(spec, name)] = [_cell(figures, column, notes) for column in columns]
    return MetricTable(columns, lines, notes)


def _with_unit(spec: Spec, name: str) -> str:
    objective = spec.objectives[name]
    return f"{name} ({objective.unit})" if isinstance(objective, RegressionObjective) and objective.unit else name


def _cell(figures: Mapping[str, Any], column: Column, notes: list[str]) -> MetricCell:
    """The figure, or "too few" with the number of the note that says why. Adds the note if it is new."""
    if column.key not in figures:
        return MetricCell("")
    value = figures[column.key]
    if value is not None:
        text = column.form(value)
        rate = f" ({share(value / figures['rows'])})" if column.key == "positives" and figures["rows"] else ""
        return MetricCell(text + rate)
    reason = figures["too_few"][column.key]
    if reason not in notes:
        notes.append(reason)
    return MetricCell("too few", notes.index(reason) + 1, reason)
