"""Evaluates a trained model on a split of its samples.

python scripts/evaluate.py --run demo/run --samples demo/samples --split test --out demo/report
"""

from pathlib import Path

from pipeline.atomic import new_folder
from pipeline.evaluation.measure import measure, write_metrics
from pipeline.evaluation.predictions import append_truth, read_predictions
from pipeline.evaluation.report import read_training_curve, write_report
from pipeline.manifest import SplitName, load_manifest
from pipeline.training.predict import predict


def main(run: Path, samples: Path, out: Path, split: SplitName = "test", truth: Path | None = None) -> None:
    """Predict a split with a run's best checkpoint, measure the predictions, and write a report.

    Args:
        run: The run's folder, made by scripts/train.py.
        samples: The sample store that it was trained on.
        out: The folder to create: report.html, metrics.json and predictions/.
        split: The split to evaluate on.
        truth: The folder of true probabilities beside a simulated log, to show how much of the reachable AUC the model
            reaches.
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
