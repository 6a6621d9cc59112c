"""Several runs on the same rows: their metrics side by side, and the difference of each to the first, the reference.

Differences are the bare figures; nothing here says which of them chance alone would give.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import polars as pl

from pipeline.columns import SAMPLE_ID, USER, label_column, mask_column, scene_column
from pipeline.errors import StrataError
from pipeline.evaluation.measure import Metrics, measure
from pipeline.spec.objectives import Scene
from pipeline.spec.spec import Spec

# What is to be made small, of each metric in which one run can be better than another.
COSTS: dict[str, Callable[[float], float]] = {
    "auc": lambda auc: -auc,
    "gauc": lambda gauc: -gauc,
    "log_loss": lambda loss: loss,
    "normalised_entropy": lambda entropy: entropy,
    "calibration": lambda calibration: abs(calibration - 1),
    "mae": lambda error: error,
    "rmse": lambda error: error,
    "bias": abs,
    "xauc": lambda xauc: -xauc,
}
# Threads add up in another order each time: the same predictions may give figures that differ by as much.
ROUNDING = 1e-9


def name_runs(runs: Sequence[Path]) -> dict[str, Path]:
    """Each run by the name of its folder; those of the same name, with the parent folder's before it.

    Raises StrataError if there is no run, or two names are still the same.
    """
    if not runs:
        raise StrataError("there is no run to compare", where="RUN", fix="pass one or more folders of runs")
    folders = [run.resolve() for run in runs]
    alike = Counter(folder.name for folder in folders)
    names = [folder.name if alike[folder.name] == 1 else f"{folder.parent.name}-{folder.name}" for folder in folders]
    name, times = Counter(names).most_common(1)[0]
    if times > 1:
        raise StrataError(f"{times} of the runs have this name", where=name, fix="pass each run once, or rename one")
    return dict(zip(names, runs, strict=True))


def in_common(specs: Mapping[str, Spec]) -> tuple[Spec, list[str]]:
    """The first run's spec with the objectives and scenes that all runs have, and the keys that are left out.

    Runs that read the same samples mean the same by an objective or a scene of the same name. Raises StrataError if no
    objective is left.
    """
    first, *others = specs.values()
    scenes: dict[str, Scene] = {}
    for name, scene in first.scenes.items():
        in_others = [other.scenes[name].weights if name in other.scenes else {} for other in others]
        weights = {of: weight for of, weight in scene.weights.items() if all(of in found for found in in_others)}
        if weights:
            scenes[name] = scene.model_copy(update={"weights": weights})
    objectives = {
        name: objective
        for name, objective in first.objectives.items()
        if any(name in scene.weights for scene in scenes.values())
    }
    if not objectives:
        raise StrataError(
            f"{', '.join(specs)} have no objective in common that they learn in the same scene",
            where="RUN",
            fix="compare runs that do",
        )
    common = first.model_copy(update={"objectives": objectives, "scenes": scenes})
    kept = _measured(common)
    of_any = dict.fromkeys(key for spec in specs.values() for key in _measured(spec))
    return common, [key for key in of_any if key not in kept]


def _measured(spec: Spec) -> list[str]:
    """The keys of what a report has figures of: objectives, scenes, and objectives within scenes."""
    within = [f"scenes.{name}.weights.{of}" for name, scene in spec.scenes.items() for of in scene.weights]
    return [*(f"objectives.{name}" for name in spec.objectives), *(f"scenes.{name}" for name in spec.scenes), *within]


def compare(spec: Spec, predictions: Mapping[str, pl.LazyFrame]) -> Metrics:
    """The content of `metrics.json`: what `measure` finds for each run, and the differences to the first run.

    Under `differences`, each further run has `objectives` and `scenes` as its metrics have; a metric in which a run
    can be better is `{"difference": this - first, "verdict": "better" | "worse" | "same"}`, or null where it is
    withheld. A baseline that not all runs have is left out.

    Raises:
        StrataError: the runs were not predicted on the same rows, or a column cannot be measured.
    """
    first, *others = predictions
    columns = [rows.collect_schema().names() for rows in predictions.values()]
    shared = [column for column in columns[0] if all(column in names for names in columns)]
    predictions = {name: rows.select(shared) for name, rows in predictions.items()}
    for name in others:
        _check_same_rows(spec, first, predictions[first], name, predictions[name])
    runs = {name: measure(spec, rows) for name, rows in predictions.items()}
    return {
        "reference": first,
        "runs": runs,
        "differences": {name: _subtract(runs[name], runs[first]) for name in others},
    }


def _check_same_rows(spec: Spec, first: str, reference: pl.LazyFrame, name: str, rows: pl.LazyFrame) -> None:
    """Who saw the row, in which scene, and what came of it must be the same; predictions may differ."""
    compared = [USER, *map(scene_column, spec.scenes)]
    compared += [column(objective) for objective in spec.objectives for column in (label_column, mask_column)]
    there, here = (frame.select(SAMPLE_ID, *compared, there=True) for frame in (reference, rows))
    if there.collect_schema() != here.collect_schema():
        raise StrataError(
            f"its rows have other types than those of {first}",
            where=f"run {name}",
            fix="build the samples of both from the same logs",
        )
    both = there.join(here, on=SAMPLE_ID, how="full", coalesce=True)
    only_one = pl.any_horizontal(pl.col("there").is_null(), pl.col("there_right").is_null())
    unlike = pl.any_horizontal(pl.col(column).ne_missing(pl.col(f"{column}_right")) for column in compared)
    found = both.select(only_one=only_one.sum(), unlike=(~only_one & unlike).sum()).collect().row(0, named=True)
    if any(found.values()):
        raise StrataError(
            f"not the rows of {first}: {found['only_one']:,} are in only one of the two, and {found['unlike']:,} have "
            "another user, scene or label",
            where=f"run {name}",
            fix="compare runs on the same samples",
        )


def _subtract(run: Metrics, reference: Metrics) -> Metrics:
    return {
        "objectives": _subtract_objectives(run["objectives"], reference["objectives"]),
        "scenes": {
            scene: {"objectives": _subtract_objectives(found["objectives"], reference["scenes"][scene]["objectives"])}
            for scene, found in run["scenes"].items()
        },
    }


def _subtract_objectives(run: Metrics, reference: Metrics) -> Metrics:
    return {
        name: {
            metric: _difference(figures[metric], reference[name][metric], cost)
            for metric, cost in COSTS.items()
            if metric in figures
        }
        for name, figures in run.items()
    }


def _difference(figure: float | None, reference: float | None, cost: Callable[[float], float]) -> Metrics | None:
    if figure is None or reference is None:
        return None
    gain = cost(reference) - cost(figure)
    verdict = "same" if abs(gain) < ROUNDING else "better" if gain > 0 else "worse"
    return {"difference": figure - reference, "verdict": verdict}
