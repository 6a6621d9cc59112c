"""Holds runs against each other on the same rows; the first is the reference."""

from pathlib import Path
from typing import Annotated

import tyro

from pipeline.atomic import new_folder
from pipeline.evaluation.comparison import check_same_spec, compare, name_runs
from pipeline.evaluation.comparison_page import differing_settings, write_comparison
from pipeline.evaluation.measure import write_metrics
from pipeline.evaluation.predictions import read_predictions
from pipeline.manifest import SplitName, load_manifest
from pipeline.training.config import load_config
from pipeline.training.predict import predict

EXAMPLE = "demo/run demo/mmoe --out demo/comparison"
Runs = Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN [RUN ...]")]


def main(runs: Runs, out: Path, split: SplitName = "test") -> None:
    """Compares runs on the same rows. The first run is the reference.

    It predicts one split with each run's best checkpoint, measures the predictions, and makes a folder with
    `report.html`, `metrics.json` and `predictions/RUN/`.

    Args:
        runs: The folders of the runs, as `train` made them. Each is compared with the first.
        out: The new folder for the report.
        split: The split to compare on.
    """
    with new_folder(out) as folder:
        run_of = name_runs(runs)
        configs = {name: load_config(run) for name, run in run_of.items()}
        manifests = {name: load_manifest(config.samples) for name, config in configs.items()}
        check_same_spec(manifests)
        predictions, facts = {}, {}
        settings = differing_settings(
            {n: c.model_dump(mode="json", exclude={"out", "resume"}) for n, c in configs.items()}
        )
        for name, run in run_of.items():
            stored = folder / "predictions" / name
            stored.parent.mkdir(exist_ok=True)
            progress = predict(run, configs[name].samples, split, stored)
            predictions[name] = read_predictions(stored)
            facts[name] = {"checkpoint": f"step {progress.step:,}", **settings[name], "folder": str(run)}
        first = next(iter(manifests.values()))
        compared = compare(first.spec, predictions)
        context = {
            "run": " vs ".join(run_of),
            "spec": first.spec.name,
            "split": f"{split}, {first.period(split)}",
            "rows": f"{first.rows(split):,}",
            "reference": next(iter(run_of)),
        }
        write_metrics(compared, folder / "metrics.json")
        write_comparison(first.spec, compared, context, facts, folder / "report.html")
    print(out / "report.html")
