"""From a log to a report: what the commands leave is what the design says, and the model has learned."""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from pipeline.manifest import Manifest
from pipeline.training.saving.checkpoints import best_checkpoint, read_progress

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory, command, trained: Path, samples: Path, raw_log: Path) -> Path:
    out = tmp_path_factory.mktemp("report") / "report"
    done = command(
        "evaluate.py",
        "--run",
        trained,
        "--samples",
        samples,
        "--split",
        "test",
        "--out",
        out,
        "--truth",
        raw_log / "truth",
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{out / 'report.html'}\n"
    assert done.stderr == ""
    return out


def test_a_run_holds_what_the_design_says(trained: Path):
    kept = {"config.json", "manifest.json", "vocabularies"}
    assert {path.name for path in trained.iterdir()} == {*kept, "checkpoints", "metrics.jsonl", "tensorboard"}
    assert json.loads((trained / "config.json").read_text())["loop"]["batch_size"] == 256
    checkpoints = [path.name for path in (trained / "checkpoints").iterdir()]
    assert all(name.startswith("step-") for name in checkpoints)
    assert list((trained / "tensorboard").glob("events.out.tfevents.*"))


def test_the_metrics_are_laid_out_as_the_design_says(report: Path, manifest: Manifest):
    metrics = json.loads((report / "metrics.json").read_text())
    spec = manifest.spec
    assert list(metrics["objectives"]) == list(spec.objectives)
    for name, objective in spec.objectives.items():
        assert metrics["objectives"][name]["kind"] == objective.kind
        assert metrics["objectives"][name]["rows"] > 0
    assert {scene: list(found["objectives"]) for scene, found in metrics["scenes"].items()} == {
        scene: list(declared.weights) for scene, declared in spec.scenes.items()
    }


def test_the_model_has_learned(report: Path):
    objectives = json.loads((report / "metrics.json").read_text())["objectives"]
    assert objectives["stay"]["auc"] > 0.63
    assert objectives["click"]["auc"] > 0.63
    assert objectives["stay"]["auc"] < objectives["stay"]["best_auc"] + 0.02
    assert 0.8 < objectives["click"]["calibration"] < 1.25
    assert objectives["play_time"]["xauc"] > 0.6


def test_the_report_is_one_page(report: Path, manifest: Manifest):
    page = (report / "report.html").read_text()
    assert {path.name for path in report.iterdir()} == {"report.html", "metrics.json", "predictions"}
    assert all(name in page for name in (*manifest.spec.objectives, *manifest.spec.scenes))
    assert "src=" not in page
    assert "://" not in page.replace("http://www.w3.org", "")


def test_predictions_have_a_row_per_sample(report: Path, samples: Path, manifest: Manifest):
    predictions = pq.read_table(report / "predictions")
    spec = manifest.spec
    per_objective = [f"{kind}_{name}" for name in spec.objectives for kind in ("label", "mask", "pred")]
    promised = {"sample_id", "user_id", *(f"scene_{scene}" for scene in spec.scenes), *per_objective}
    assert set(predictions.column_names) - promised <= {"time_ms", "baseline_play_time"}
    assert promised <= set(predictions.column_names)
    stored = pq.read_table([samples / file.path for file in manifest.files if file.split == "test"])
    same = [name for name in predictions.column_names if not name.startswith(("pred_", "baseline_"))]
    assert predictions.select(same).sort_by("sample_id").equals(stored.select(same).sort_by("sample_id"))
    assert all(predictions[f"pred_{name}"].null_count == 0 for name in spec.objectives)


def test_one_process_predicts_what_two_sharded_ranks_computed(
    tmp_path: Path, command, trained: Path, samples: Path, manifest: Manifest
):
    """The validation losses that the two ranks logged are those of the predictions stored by one process."""
    done = command("evaluate.py", "--run", trained, "--samples", samples, "--split", "valid", "--out", tmp_path / "v")
    assert done.returncode == 0, done.stderr
    rows = pq.read_table(tmp_path / "v" / "predictions")
    best = read_progress(best_checkpoint(trained)).step
    logged = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    (valid,) = (line for line in logged if (line["split"], line["step"]) == ("valid", best))

    def column(name: str) -> np.ndarray:
        return rows[name].to_numpy().astype(float)

    for name, scene in (("stay", "discover"), ("click", "discover"), ("like", "player")):
        assert name in manifest.spec.scenes[scene].weights
        inside = (column(f"scene_{scene}") * column(f"mask_{name}")).astype(bool)
        p, y = column(f"pred_{name}")[inside], column(f"label_{name}")[inside]
        loss = -np.mean(y * np.log(p) + (1 - y) * np.log(1 - p))
        assert valid["objectives"][name] == pytest.approx(loss, rel=1e-5)
