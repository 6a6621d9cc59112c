"""Evaluates a trained model on a split of its samples."""

from pathlib import Path

from pipeline.atomic import new_folder
from pipeline.evaluation.measure import measure, write_metrics
from pipeline.evaluation.predictions import append_truth, read_predictions
from pipeline.evaluation.report import read_training_curve, write_report
from pipeline.manifest import SplitName
from pipeline.training.predict import predict

EXAMPLE = "--run demo/run --samples demo/samples --split test --out demo/report"


def main(run: Path, samples: Path, out: Path, split: SplitName = "test", truth: Path | None = None) -> None:
    """Evaluates a run's best checkpoint on one split of a sample store.

    It reads the run and the store, predicts the split, measures the predictions, and makes a folder with `report.html`,
    `metrics.json` and `predictions/`.

    Args:
        run: The run's folder, as `train` made it.
        samples: The sample store that the run was trained on, or one that was built from the same logs since.
        out: The new folder for the report.
        split: The split to evaluate on.
        truth: The folder `truth` of a simulated log. The report then tells how near the model comes to the best AUC.
    """
    with new_folder(out) as folder:
        predicted = predict(run, samples, split, folder / "predictions")
        spec, store = predicted.trained.spec, predicted.store
        predictions = read_predictions(folder / "predictions")
        if truth:
            predictions = append_truth(spec, predictions, truth)
        metrics = measure(spec, predictions)
        context: dict[str, str | int] = {
            "run": run.resolve().name,
            "spec": spec.name,
            "split": f"{split}, {store.period(split)}",
            "rows": store.rows(split),
            "samples": str(samples),
            **predicted.facts(),
        }
        curve = read_training_curve(run / "metrics.jsonl")
        write_metrics(metrics, folder / "metrics.json")
        write_report(spec, metrics, predictions, curve, context, folder / "report.html")
    for remark in predicted.remarks().items():
        print(": ".join(remark))
    print(out / "report.html")
