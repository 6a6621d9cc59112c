"""Stored predictions: a folder of Parquet files with a row per sample, whose columns `pipeline/columns.py` names.

Two kinds of columns are optional: `truth_<objective>`, the true probability in a simulated log, and
`baseline_<objective>`, the prediction of a simple rule. Evaluation measures them beside the model.
"""

from pathlib import Path

import polars as pl

from pipeline.columns import (
    SAMPLE_ID,
    USER,
    baseline_column,
    label_column,
    mask_column,
    prediction_column,
    scene_column,
    truth_column,
)
from pipeline.errors import StrataError
from pipeline.spec.objectives import BinaryObjective
from pipeline.spec.spec import Spec

REQUIRED_FIX = "give it predictions made with this spec (scripts/evaluate.py writes them)"


def read_predictions(folder: Path) -> pl.LazyFrame:
    """The Parquet files of a folder as one lazy frame.

    Raises StrataError if there is none, or one is cut short or has other columns than the first.
    """
    files = sorted(folder.glob("*.parquet"))
    if not files:
        raise StrataError("holds no Parquet file", where=folder, fix="run scripts/evaluate.py to store predictions")
    schema = _schema(files[0])
    for file in files[1:]:
        if _schema(file) != schema:
            raise StrataError(
                f"its columns differ from those of {files[0].name}",
                where=file,
                fix="delete the folder and store the predictions again",
            )
    return pl.scan_parquet(files)


def _schema(file: Path) -> dict[str, pl.DataType]:
    try:
        return dict(pl.read_parquet_schema(file))
    except (pl.exceptions.PolarsError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise StrataError(
            f"not a whole Parquet file ({reason})", where=file, fix="store the predictions again"
        ) from error


def append_truth(spec: Spec, predictions: pl.LazyFrame, folder: Path) -> pl.LazyFrame:
    """Adds `truth_<objective>` from the true probabilities of a simulated log.

    Their files have the impression's id in the first column, and a column `p_<objective>` for binary objectives. Raises
    StrataError if there is no such file, or it has no row for these samples.
    """
    files = sorted(folder.glob("*.parquet"))
    if not files:
        raise StrataError("holds no Parquet file", where=folder, fix="pass the folder `truth` of a simulated log")
    truth = pl.scan_parquet(files)
    columns = truth.collect_schema().names()
    known = {f"p_{name}": truth_column(name) for name in spec.objectives if f"p_{name}" in columns}
    truth = truth.select(pl.col(columns[0]).alias(SAMPLE_ID), *(pl.col(p).alias(name) for p, name in known.items()))
    if predictions.join(truth, on=SAMPLE_ID, how="semi").select(pl.len()).collect().item() == 0:
        raise StrataError("has no row for these samples", where=folder, fix="pass the truth of their own log")
    return predictions.join(truth, on=SAMPLE_ID, how="left")


def objective_rows(spec: Spec, predictions: pl.LazyFrame, objective: str, scene: str | None = None) -> pl.LazyFrame:
    """The rows on which an objective is measured: its sample space in a scene, or in all scenes that learn it.

    The columns are `user`, `label` and `prediction`, and `truth` and `baseline` if they are stored.
    """
    learned_in = [scene] if scene else [name for name, s in spec.scenes.items() if objective in s.weights]
    optional = {"truth": truth_column(objective), "baseline": baseline_column(objective)}
    stored = predictions.collect_schema().names()
    return predictions.filter(
        pl.col(mask_column(objective)), pl.any_horizontal(scene_column(name) for name in learned_in)
    ).select(
        user=pl.col(USER),
        label=pl.col(label_column(objective)),
        prediction=pl.col(prediction_column(objective)),
        **{name: pl.col(column) for name, column in optional.items() if column in stored},
    )


def check_predictions(spec: Spec, predictions: pl.LazyFrame) -> None:
    """Refuses predictions without a column that metrics need, or with a value that cannot be measured.

    Raises:
        StrataError: it names the first such column, and the number of its wrong rows.
    """
    schema = predictions.collect_schema()
    bools = [scene_column(name) for name in spec.scenes] + [mask_column(name) for name in spec.objectives]
    numbers = [column(name) for name in spec.objectives for column in (label_column, prediction_column)]
    for column in (USER, *bools, *numbers):
        if column not in schema:
            raise StrataError("no such column", where=f"predictions, {column}", fix=REQUIRED_FIX)
        right = schema[column] == pl.Boolean if column in bools else schema[column].is_numeric() or column == USER
        if not right:
            raise StrataError(f"is of type {schema[column]}", where=f"predictions, {column}", fix=REQUIRED_FIX)

    wrong = {column: pl.col(column).is_null() for column in (USER, *bools)}
    for name, objective in spec.objectives.items():
        binary = isinstance(objective, BinaryObjective)
        label, mask = pl.col(label_column(name)), pl.col(mask_column(name))
        wrong[label_column(name)] = mask & ~((label == 0) | (label == 1) if binary else label.is_finite()).fill_null(
            False
        )
        learned = mask & pl.any_horizontal(scene_column(s) for s, scene in spec.scenes.items() if name in scene.weights)
        # A model predicts every row. A truth or a baseline is only needed on rows that learn the objective.
        guesses = {prediction_column(name): pl.lit(True), (truth_column if binary else baseline_column)(name): learned}
        for column, rows in guesses.items():
            guess = pl.col(column)
            if column in schema:
                wrong[column] = rows & ~(guess.is_between(0, 1) if binary else guess.is_finite()).fill_null(False)
    counts = predictions.select(**{column: rows.sum() for column, rows in wrong.items()}).collect().row(0, named=True)
    for column, count in counts.items():
        if count:
            raise StrataError(
                f"{count} rows hold a value that cannot be measured (missing, not a number or out of range)",
                where=f"predictions, {column}",
                fix="look at those rows: a probability is between 0 and 1, the label of a binary objective 0 or 1",
            )
