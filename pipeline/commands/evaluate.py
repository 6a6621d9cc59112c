"""Evaluates a trained model on a split of its samples."""

from pathlib import Path

from pipeline.atomic import new_folder
from pipeline.evaluation.measure import measure, write_metrics
from pipeline.evaluation.predictions import append_truth, read_predictions
from pipeline.evaluation.report import read_training_curve, write_report
from pipeline.manifest import SplitName, load_manifest
from pipeline.training.predict import predict

EXAMPLE = "--run demo/run --samples demo/samples --split test --out demo/report"


def main(run: Path, samples: Path, out: Path, split: SplitName = "test", truth: Path | None = None) -> None:
    """Evaluates a run's best checkpoint on one split of a sample store.

    It reads the run and the store, predicts the split, measures the predictions, and makes a folder with `report.html`,
    `metrics.json` and `predictions/`.

    Args:
        run: The run's folder, as `train` made it.
        samples: The sample store that the run was trained on.
        out: The new folder for the report.
        split: The split to evaluate on.
        truth: The folder `truth` of a simulated log. The report then tells how near the model comes to the best AUC.
    """
    with new_folder(out) as folder:
        progress = predict(run, samples, split, folder / "predictions")
        manifest = load_manifest(samples)
        predictions = read_predictions(folder / "predictions")
        if truth:
            predictions = append_truth(manifest.spec, predictions, truth)
        metrics = measure(manifest.spec, predictions)
        seen = manifest.trained_on(progress.first_day, progress.last_day)
        context: dict[str, str | int] = {
            "run": run.resolve().name,
            "spec": manifest.spec.name,
            "split": f"{split}, {manifest.period(split)}",
            "rows": manifest.rows(split),
            "trained on": f"{seen.rows('train'):,} rows, {seen.period('train')}",
            "checkpoint": f"step {progress.step:,}",
            "samples": str(samples),
        }
        curve = read_training_curve(run / "metrics.jsonl")
        write_metrics(metrics, folder / "metrics.json")
        write_report(manifest.spec, metrics, predictions, curve, context, folder / "report.html")
    print(out / "report.html")
