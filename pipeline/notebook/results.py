"""A run and a report as frames, for a notebook: training metrics, predictions, figures. Nothing here needs torch."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from pipeline.errors import StrataError
from pipeline.evaluation.predictions import read_predictions


@dataclass(frozen=True)
class Run:
    """A training run. `config` is its config.json."""

    path: Path
    config: dict[str, Any]

    def metrics(self) -> pl.DataFrame:
        """The lines of metrics.jsonl so far: step, split, loss, the other figures, and `loss_<objective>`."""
        path = self.path / "metrics.jsonl"
        written = path.read_text() if path.exists() else ""
        lines = [json.loads(line) for line in written.splitlines(keepends=True) if line.endswith("\n")]
        return pl.DataFrame([_flat(line) for line in lines], infer_schema_length=None)

    def best_step(self) -> int:
        """The step of the checkpoint with the lowest validation loss, or of the newest if none was validated.

        Raises StrataError if the run has no checkpoint.
        """
        # A damaged checkpoint that was set aside ends in another way.
        paths = self.path.glob("checkpoints/step-*[0-9]/progress.json")
        found = [json.loads(path.read_bytes()) for path in paths]
        if not found:
            raise StrataError("has no checkpoint", where=self.path, fix="wait for its first, or train it")
        validated = [(at["valid_loss"], at["step"]) for at in found if at["valid_loss"] is not None]
        return int(min(validated)[1] if validated else max(at["step"] for at in found))


@dataclass(frozen=True)
class Report:
    """The report of one run, as `evaluate` made it. `metrics` is its metrics.json."""

    path: Path
    metrics: dict[str, Any]

    def predictions(self) -> pl.LazyFrame:
        """A row per sample: ids, scenes, and label, mask and prediction of each objective."""
        return read_predictions(self.path / "predictions")

    def figures(self) -> pl.DataFrame:
        """A row per figure: objective, scene (null for all scenes together), metric, value (null if withheld)."""
        parts = [(None, self.metrics), *self.metrics["scenes"].items()]
        rows = [
            (objective, scene, metric, None if value is None else float(value))
            for scene, part in parts
            for objective, found in part["objectives"].items()
            for metric, value in found.items()
            if metric not in ("kind", "too_few")
        ]
        schema = {"objective": pl.String, "scene": pl.String, "metric": pl.String, "value": pl.Float64}
        return pl.DataFrame(rows, schema, orient="row")


def open_run(path: Path | str) -> Run:
    """Raises StrataError if the folder is no run."""
    return Run(Path(path), _read_json(Path(path), "config.json", "run", "loop"))


def open_report(path: Path | str) -> Report:
    """Raises StrataError if the folder is no report of one run."""
    return Report(Path(path), _read_json(Path(path), "metrics.json", "report of one run", "objectives"))


def _read_json(folder: Path, name: str, kind: str, key: str) -> dict[str, Any]:
    try:
        content = json.loads((folder / name).read_bytes())
    except (OSError, ValueError):
        content = {}
    if not isinstance(content, dict) or key not in content:
        what = f"is no {kind} (it has no {name} with the key `{key}`)"
        raise StrataError(what, where=folder, fix="open a folder that `strata train` or `strata evaluate` made")
    return content


def _flat(line: dict[str, Any]) -> dict[str, Any]:
    losses = {f"loss_{name}": loss for name, loss in line["objectives"].items()}
    return {name: value for name, value in line.items() if not isinstance(value, dict | list)} | losses
