"""Holds runs against each other on the same rows; the first is the reference."""

from pathlib import Path
from typing import Annotated

import tyro

from pipeline.atomic import new_folder
from pipeline.evaluation.comparison import compare, in_common, name_runs
from pipeline.evaluation.comparison_page import differing_settings, write_comparison
from pipeline.evaluation.measure import write_metrics
from pipeline.evaluation.predictions import read_predictions
from pipeline.manifest import SplitName
from pipeline.training.config import load_config, same_samples
from pipeline.training.predict import predict

EXAMPLE = "demo/run demo/mmoe --out demo/comparison"
Runs = Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN [RUN ...]")]


def main(runs: Runs, out: Path, samples: Path | None = None, split: SplitName = "test") -> None:
    """Compares runs on the same rows. The first run is the reference.

    It predicts one split with each run's best checkpoint, measures the predictions, and makes a folder with
    `report.html`, `metrics.json` and `predictions/RUN/`.

    Args:
        runs: The folders of the runs, as `train` made them. Each is compared with the first.
        out: The new folder for the report.
        samples: The sample store to compare on; by default the one that all runs were trained on.
        split: The split to compare on.
    """
    with new_folder(out) as folder:
        run_of = name_runs(runs)
        configs = {name: load_config(run) for name, run in run_of.items()}
        store = samples or same_samples(configs)
        (folder / "predictions").mkdir()
        predicted = {name: predict(run, store, split, folder / "predictions" / name) for name, run in run_of.items()}
        specs = {name: found.trained.spec for name, found in predicted.items()}
        common, left_out = in_common(specs)
        compared = compare(common, {name: read_predictions(folder / "predictions" / name) for name in run_of})
        for name, spec in specs.items():
            compared["runs"][name] |= {"spec": spec.name, "fingerprint": spec.fingerprint()}
        compared["left_out"] = left_out
        own_settings = {
            name: config.model_dump(mode="json", exclude={"out", "resume"})
            | {"spec": specs[name].model_dump(mode="json")}
            for name, config in configs.items()
        }
        settings = differing_settings(own_settings)
        facts = {
            name: {**found.facts(), **settings[name], "spec fingerprint": found.trained.spec.fingerprint()[:12]}
            | {"folder": str(run_of[name])}
            for name, found in predicted.items()
        }
        first = next(iter(predicted.values())).store
        context = {
            "run": " vs ".join(run_of),
            "spec": common.name,
            "split": f"{split}, {first.period(split)}",
            "rows": f"{first.rows(split):,}",
            "samples": str(store),
            "reference": next(iter(run_of)),
        }
        context |= {"left out": f"{', '.join(left_out)}: not in all runs"} if left_out else {}
        write_metrics(compared, folder / "metrics.json")
        write_comparison(common, compared, context, facts, folder / "report.html")
    for name, found in predicted.items():
        for remark in found.remarks().items():
            print(f"{name}: {': '.join(remark)}")
    if left_out:
        print(f"left out: {context['left out']}")
    print(out / "report.html")
