"""A day is added to the logs: yesterday's run is evaluated on today's samples, and compared with today's run."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow.parquet as pq
import pytest

from pipeline.batches.mapping import cut_intervals
from pipeline.manifest import Manifest
from pipeline.samples.build import build_samples
from pipeline.simulation.config import SimulationConfig
from pipeline.simulation.simulate import simulate_logs
from pipeline.spec.file import load_spec
from pipeline.training.run_folder import load_encoding

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
SMALL = "--loop.batch-size 512 --model.expert 16 --model.tower 8 --device cpu"


class Done(NamedTuple):
    status: int
    stdout: str
    stderr: str


class Days(NamedTuple):
    """The folder with all that was made, the manifests of the store before and after, and what each command did."""

    folder: Path
    before: Manifest
    after: Manifest
    valid: dict[str, np.ndarray]
    """The rows for validation in the later store."""
    done: dict[str, Done]


@pytest.fixture(scope="module")
def days(tmp_path_factory: pytest.TempPathFactory, spec_path: Path, environment: dict[str, str]) -> Days:
    """Five days, a run on them, a sixth day into the same store, a run on from the first, and one with other weights.

    `short_video` learns clicks in `discover` with weight 1.0, `lighter.yaml` with 0.5. `hashed.yaml` has other samples.
    """
    folder = tmp_path_factory.mktemp("days")
    raw, store = folder / "raw", folder / "samples"
    simulate_logs(
        SimulationConfig(users=150, videos=80, new_videos=5, days=6, impressions=9000), load_spec(spec_path), raw
    )
    text = spec_path.read_text()
    hashed = ("city: {encode: vocab,", "city: {encode: hash, rows: 50,")
    specs = {"lighter": ("click: 1.0", "click: 0.5"), "hashed": hashed}
    for name, (before, after) in specs.items():
        assert text.count(before) == 1
        (folder / f"{name}.yaml").write_text(text.replace(before, after))
    done: dict[str, Done] = {}

    def run(lines: dict[str, str]) -> None:
        words = [[f"{ROOT}/scripts/{line.split()[0]}.py", *line.split()[1:]] for line in lines.values()]
        runner = [sys.executable, str(Path(__file__).parent / "run_commands.py"), json.dumps(words)]
        process = subprocess.run(runner, env=environment, cwd=folder, capture_output=True, text=True, check=False)
        assert process.returncode == 0, process.stderr
        done.update({name: Done(*result) for name, result in zip(lines, json.loads(process.stdout), strict=True)})

    def came_later(folder: str, names: list[str]) -> set[str]:
        return {name for name in names if name.startswith("2026-") and name >= "2026-03-06"}

    yesterday = shutil.copytree(raw, folder / "yesterday", ignore=came_later)
    before = build_samples(spec_path, yesterday, store)
    train = f"train --spec {spec_path} --samples samples {SMALL}"
    run(
        {
            "train": f"{train} --loop.epochs 1 --out monday",
            "test": "evaluate --run monday --samples samples --out monday-test",
        }
    )
    after = build_samples(spec_path, raw, store)
    since = after.days("train")[-1]
    build_samples(folder / "hashed.yaml", yesterday, folder / "hashed")
    run(
        {
            "train on": f"{train} --loop.epochs 1 --init-from monday --out tuesday",
            "the same day": "evaluate --run monday --samples samples --split valid --out monday-again",
            "its own days": "evaluate --run monday --samples samples --split train --out monday-leak",
            "compare": "compare monday tuesday --samples samples --out comparison",
            "lighter": f"train --spec lighter.yaml --samples samples {SMALL} --since {since} --out lighter",
            "weights": "compare tuesday lighter --out weights",
            "hashed": "evaluate --run monday --samples hashed --out hashed-report",
            "train hashed": f"train --spec hashed.yaml --samples hashed {SMALL} --out hashed-run",
            "nowhere": "compare monday hashed-run --out nowhere",
            "resume": f"{train} --loop.epochs 2 --resume --out monday",
            "another spec": f"train --spec lighter.yaml --samples samples {SMALL} --resume --out monday",
        }
    )
    valid = sorted_rows([store / file.path for file in after.files if file.split == "valid"])
    build_samples(folder / "hashed.yaml", raw, store)  # the files of two builds ago go
    run({"resume too late": f"{train} --loop.epochs 3 --resume --out monday"})
    return Days(folder, before, after, valid, done)


def sorted_rows(files: Path | list[Path]) -> dict[str, np.ndarray]:
    rows = pq.read_table(files, partitioning=None).sort_by("sample_id")
    return {name: rows[name].to_numpy() for name in rows.column_names}


def test_yesterdays_run_predicts_the_same_rows_the_same_from_todays_samples(days: Days):
    """The day that was for the test is for validation now; only a number whose interval is cut may change."""
    assert days.done["train"].status == days.done["test"].status == 0, days.done["test"].stderr
    done = days.done["the same day"]
    assert done.status == 0, done.stderr
    assert days.before.days("test") == days.after.days("valid")
    assert days.before.learned != days.after.learned
    vocabularies = [of.learned.vocabularies for of in (days.before, days.after)]
    assert vocabularies[0].keys() == vocabularies[1].keys()
    assert vocabularies[0]["video"].sha256 != vocabularies[1]["video"].sha256
    before = sorted_rows(days.folder / "monday-test" / "predictions")
    after = sorted_rows(days.folder / "monday-again" / "predictions")
    assert before.keys() == after.keys()
    assert np.array_equal(after["sample_id"], days.valid["sample_id"])
    # A few rows of that day came with the files of the next.
    in_both, at_before, at_after = np.intersect1d(before["sample_id"], after["sample_id"], return_indices=True)
    assert 0.98 * len(after["sample_id"]) < len(in_both)
    changed = np.zeros(len(in_both), bool)
    for name in days.before.spec.objectives:
        both = before[f"pred_{name}"][at_before], after[f"pred_{name}"][at_after]
        changed |= ~np.isclose(*both, rtol=1e-4, atol=1e-5)
    boundaries = [np.array(of.learned.boundaries["duration"]) for of in (days.after, days.before)]
    cut = cut_intervals(*boundaries)[days.valid["feature_duration"]]
    assert f"cut intervals: {cut.sum():,} of {len(cut):,} rows (" in done.stdout
    assert not (changed & ~cut[at_after]).any()
    assert not cut.all()
    assert "warning" not in done.stdout


def test_a_report_says_where_a_run_comes_from(days: Days):
    assert days.done["test"].stdout == "monday-test/report.html\n"  # nothing was mapped
    page = (days.folder / "monday-again" / "report.html").read_text()
    own = days.before
    for said in (f"{own.rows('train'):,} rows\n{own.period('train')}", f"valid, {days.after.period('valid')}"):
        assert said in page
    *remarks, last = days.done["the same day"].stdout.splitlines()
    assert last == "monday-again/report.html"
    assert remarks
    assert remarks[0].startswith("unknown values: ")
    assert all(remark.split(": ")[1] in page.replace("&#39;", "'") for remark in remarks)


def test_rows_of_days_that_the_run_was_trained_on_are_told(days: Days):
    done = days.done["its own days"]
    assert done.status == 0, done.stderr
    leaked = sum(file.rows for file in days.after.files if file.date in days.before.days("train"))
    named = ", ".join(days.before.days("train"))
    warning = f"{leaked:,} of {days.after.rows('train'):,} rows are of days that the run was trained on ({named})"
    assert f"warning: {warning}, so its figures are too good\n" in done.stdout
    assert warning in (days.folder / "monday-leak" / "report.html").read_text()


def test_yesterdays_run_is_compared_with_todays_on_todays_rows(days: Days):
    assert days.done["train on"].status == 0, days.done["train on"].stderr
    done = days.done["compare"]
    assert done.status == 0, done.stderr
    assert "monday: unknown values: " in done.stdout
    assert "tuesday: " not in done.stdout
    out = days.folder / "comparison"
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["reference"] == "monday"
    assert metrics["left_out"] == []
    assert {name: found["rows"] for name, found in metrics["runs"].items()} == dict.fromkeys(
        ("monday", "tuesday"), days.after.rows("test")
    )
    assert metrics["differences"]["tuesday"]["objectives"]["click"]["log_loss"]["difference"] != 0
    page = (out / "report.html").read_text()
    assert all(period in page for period in (days.before.period("train"), days.after.days("train")[-1]))


def test_another_weight_needs_no_other_samples_and_is_compared(days: Days):
    assert days.done["lighter"].status == days.done["weights"].status == 0, days.done["weights"].stderr
    page = " ".join(re.sub("<[^>]*>", " ", (days.folder / "weights" / "report.html").read_text()).split())
    assert "spec.scenes.discover.weights.click 1.0 0.5" in page
    metrics = json.loads((days.folder / "weights" / "metrics.json").read_text())
    assert len({found["fingerprint"] for found in metrics["runs"].values()}) == 2
    assert days.done["weights"].stdout == "weights/report.html\n"


def test_a_run_goes_on_with_its_own_files_after_the_store_was_brought_up_to_date(days: Days):
    done = days.done["resume"]
    assert done.status == 0, done.stderr
    first, second = (int(days.done[name].stdout.split(" ")[1]) for name in ("train", "resume"))
    assert f"resuming from monday/checkpoints/step-{first:08d}" in done.stderr
    assert second == 2 * first
    kept = load_encoding(days.folder / "monday").manifest
    assert kept.files == days.before.files


def test_what_does_not_go_together_is_refused_in_one_line_that_names_it(days: Days):
    names = ("hashed", "nowhere", "another spec", "resume too late")
    lines = {name: days.done[name].stderr.splitlines() for name in names}
    assert [days.done[name].status for name in lines] == [2] * 4
    assert all(len(of) == 1 for of in lines.values()), lines
    assert lines["hashed"][0].startswith(
        "error: monday: cannot be used on hashed, whose spec has another tables.city.encode, tables.city.rows; "
    )
    folder = days.folder.resolve()
    assert lines["nowhere"][0] == (
        "error: --samples: the runs were trained on samples in different folders "
        f"(monday: {folder}/samples, hashed-run: {folder}/hashed); pass the samples to compare them on"
    )
    assert lines["another spec"][0].startswith(
        "error: monday: was begun with another spec than lighter.yaml (scenes.discover.weights.click); "
    )
    assert re.fullmatch(
        r"error: monday: the samples in samples were built again since: \d+ of \d+ files of this run are gone; start a "
        r"new run with --init-from monday",
        lines["resume too late"][0],
    )
    assert not any((days.folder / name).exists() for name in ("hashed-report", "nowhere"))
