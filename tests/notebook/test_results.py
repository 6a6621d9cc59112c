import json
from pathlib import Path

import polars as pl
import pytest

from pipeline.errors import StrataError
from pipeline.notebook.results import open_report, open_run

LINES = [
    {"step": 5, "split": "train", "loss": 0.9, "objectives": {"click": 0.4, "like": 0.5}, "weights": {}, "lr": 0.1},
    {"step": 5, "split": "valid", "loss": 0.8, "objectives": {"click": 0.3, "like": 0.5}, "weights": {}},
    {"step": 9, "split": "valid", "loss": 0.7, "objectives": {"click": 0.2}, "weights": {}, "warnings": ["flat"]},
]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Checkpoints of steps 5, 9 and 10; the last was not validated. A line of the metrics is being written."""
    (tmp_path / "config.json").write_text(json.dumps({"loop": {"epochs": 2}}))
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in LINES) + '{"step": 1')
    for step, loss in ((5, 0.7), (9, 0.8), (10, None)):
        write_checkpoint(tmp_path, f"step-{step:08d}", step, loss)
    write_checkpoint(tmp_path, ".step-00000002", 2, 0.1)
    write_checkpoint(tmp_path, "step-00000003.damaged", 3, 0.1)
    return tmp_path


def write_checkpoint(run: Path, name: str, step: int, valid_loss: float | None) -> None:
    folder = run / "checkpoints" / name
    folder.mkdir(parents=True)
    (folder / "progress.json").write_text(json.dumps({"step": step, "valid_loss": valid_loss}))


@pytest.fixture
def report(tmp_path: Path) -> Path:
    click = {"kind": "binary", "rows": 9, "auc": 0.75, "gauc": None, "too_few": {"gauc": "too few users"}}
    feed = {"rows": 9, "objectives": {"click": click | {"auc": 0.5}}}
    metrics = {"spec": "tiny", "rows": 9, "objectives": {"click": click}, "scenes": {"feed": feed}}
    (tmp_path / "metrics.json").write_text(json.dumps(metrics))
    (tmp_path / "predictions").mkdir()
    pl.DataFrame({"sample_id": [1, 2], "pred_click": [0.1, 0.9]}).write_parquet(tmp_path / "predictions" / "a.parquet")
    return tmp_path


def test_a_run_is_its_settings_its_metrics_and_its_best_step(run: Path):
    opened = open_run(run)
    assert opened.config == {"loop": {"epochs": 2}}
    assert opened.best_step() == 5
    assert opened.metrics().to_dict(as_series=False) == {
        "step": [5, 5, 9],
        "split": ["train", "valid", "valid"],
        "loss": [0.9, 0.8, 0.7],
        "lr": [0.1, None, None],
        "loss_click": [0.4, 0.3, 0.2],
        "loss_like": [0.5, 0.5, None],
    }


def test_without_a_validation_the_newest_checkpoint_is_the_best(tmp_path: Path, run: Path):
    for step in (5, 9):
        (run / "checkpoints" / f"step-{step:08d}" / "progress.json").write_text(
            f'{{"step": {step}, "valid_loss": null}}'
        )
    assert open_run(run).best_step() == 10


def test_a_run_that_has_just_begun_has_no_metrics_and_no_checkpoint(tmp_path: Path):
    (tmp_path / "config.json").write_text('{"loop": {}}')
    assert open_run(tmp_path).metrics().is_empty()
    with pytest.raises(StrataError, match="has no checkpoint"):
        open_run(tmp_path).best_step()


def test_a_report_is_figures_and_predictions(report: Path):
    opened = open_report(report)
    assert opened.figures().rows() == [
        ("click", None, "rows", 9.0),
        ("click", None, "auc", 0.75),
        ("click", None, "gauc", None),
        ("click", "feed", "rows", 9.0),
        ("click", "feed", "auc", 0.5),
        ("click", "feed", "gauc", None),
    ]
    assert opened.metrics["spec"] == "tiny"
    assert opened.predictions().collect().rows() == [(1, 0.1), (2, 0.9)]


@pytest.mark.parametrize("content", [None, "", "[]", '{"runs": {}}'])
def test_a_folder_of_something_else_is_named(content: str | None, tmp_path: Path):
    for name in ("config.json", "metrics.json") if content is not None else ():
        (tmp_path / name).write_text(str(content))
    with pytest.raises(StrataError, match="is no run "):
        open_run(tmp_path)
    with pytest.raises(StrataError, match="is no report of one run "):
        open_report(tmp_path)
