"""Runs side by side: what differs and which way is better, only on the same rows, and readable without colour."""

import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from pipeline.errors import StrataError
from pipeline.evaluation.comparison import compare, in_common, name_runs
from pipeline.evaluation.comparison_page import differing_settings, write_comparison
from pipeline.spec.spec import Spec


def differences(spec: Spec, first: pl.LazyFrame, second: pl.LazyFrame) -> dict[str, Any]:
    return compare(spec, {"first": first, "second": second})["differences"]["second"]


def scaled(predictions: pl.LazyFrame, factor: float) -> pl.LazyFrame:
    return predictions.with_columns(pl.when("scene_feed").then(pl.col("pred_click") * factor).otherwise("pred_click"))


def test_a_literal_difference(spec: Spec, predictions: pl.LazyFrame) -> None:
    """In the feed, the second run predicts the clicks 0.9 and 0.7, the others 0.2."""
    click = pl.col("label_click") == 1
    second = predictions.with_columns(pred_click=pl.when(click).then(pl.col("pred_click") / 2 + 0.5).otherwise(0.2))
    second = second.with_columns(pred_watch=pl.col("label_watch").fill_null(0) + 0.25)
    found = differences(spec, predictions, second)["scenes"]["feed"]["objectives"]
    # Clicks at 0.9 and 0.7 above no clicks at 0.2: one half of one pair of four was missing.
    before = -(math.log(0.8) + math.log(0.4) + math.log(0.6) + math.log(0.8)) / 4
    after = -(math.log(0.9) + math.log(0.7) + math.log(0.8) + math.log(0.8)) / 4
    assert found["click"] == {
        "auc": {"difference": pytest.approx(0.125), "verdict": "better"},
        "gauc": {"difference": pytest.approx(0.125), "verdict": "better"},
        "log_loss": {"difference": pytest.approx(after - before), "verdict": "better"},
        "normalised_entropy": {"difference": pytest.approx((after - before) / math.log(2)), "verdict": "better"},
        "calibration": {"difference": pytest.approx(2.0 / 2 - 1.8 / 2), "verdict": "better"},
    }
    # Labels 4 and 2; predicted 3 and 2, then 4.25 and 2.25.
    assert found["watch"] == {
        "mae": {"difference": pytest.approx(0.25 - 0.5), "verdict": "better"},
        "rmse": {"difference": pytest.approx(0.25 - math.sqrt(0.5)), "verdict": "better"},
        "bias": {"difference": pytest.approx(0.25 + 0.5), "verdict": "better"},
        "xauc": {"difference": 0, "verdict": "same"},
    }


def test_what_is_better_one_way_is_worse_the_other(spec: Spec, predictions: pl.LazyFrame) -> None:
    second = predictions.with_columns(pred_click=1 - pl.col("pred_click"), pred_watch=5 - pl.col("pred_watch"))
    there, back = differences(spec, predictions, second), differences(spec, second, predictions)
    opposite = {"better": "worse", "worse": "better", "same": "same"}
    for name in ("click", "watch"):
        for metric, change in there["objectives"][name].items():
            assert back["objectives"][name][metric] == {
                "difference": pytest.approx(-change["difference"]),
                "verdict": opposite[change["verdict"]],
            }
    assert there["objectives"]["watch"]["xauc"] == {"difference": -1, "verdict": "worse"}


@pytest.mark.parametrize(("factor", "verdict"), [(0.9, "worse"), (1.1, "better"), (1.2, "better"), (1.25, "worse")])
def test_calibration_is_better_nearer_to_one(
    spec: Spec, predictions: pl.LazyFrame, factor: float, verdict: str
) -> None:
    """It is 0.9 in the feed, so that at 1.2 times as much, 1.08, it is still nearer to 1; at 1.125 it is not."""
    change = differences(spec, predictions, scaled(predictions, factor))["scenes"]["feed"]["objectives"]["click"]
    assert change["calibration"] == {"difference": pytest.approx(0.9 * (factor - 1)), "verdict": verdict}


def test_the_same_predictions_in_another_order_are_the_same(spec: Spec, predictions: pl.LazyFrame) -> None:
    found = differences(spec, predictions, predictions.collect().sample(fraction=1, shuffle=True, seed=1).lazy())
    changes = [change for objective in found["objectives"].values() for change in objective.values() if change]
    assert len(changes) == 5 + 1 + 4  # click, like of which only the log loss is not withheld, watch
    assert {change["verdict"] for change in changes} == {"same"}


def test_a_withheld_figure_has_no_difference(spec: Spec, predictions: pl.LazyFrame) -> None:
    like = differences(spec, predictions, predictions.with_columns(pred_like=pl.lit(0.2)))["objectives"]["like"]
    assert (like["auc"], like["gauc"], like["calibration"]) == (None, None, None)
    assert like["log_loss"] == {"difference": pytest.approx(math.log(0.9) - math.log(0.8)), "verdict": "worse"}


def test_every_run_is_held_against_the_first(spec: Spec, predictions: pl.LazyFrame) -> None:
    runs = {"a": predictions, "b": scaled(predictions, 1.1), "c": scaled(predictions, 0.5)}
    found = compare(spec, runs)
    assert (found["reference"], list(found["runs"]), list(found["differences"])) == ("a", ["a", "b", "c"], ["b", "c"])
    calibration = {n: m["scenes"]["feed"]["objectives"]["click"]["calibration"] for n, m in found["runs"].items()}
    assert calibration == {n: pytest.approx(0.9 * k) for n, k in {"a": 1, "b": 1.1, "c": 0.5}.items()}
    json.dumps(found, allow_nan=False)


# --------------------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda rows: rows.filter(pl.col("sample_id") != 7), "1 are in only one of the two, and 0 have"),
        (lambda rows: rows.with_columns(pl.col("sample_id") + 5), "10 are in only one of the two"),
        (lambda rows: rows.with_columns(label_click=1 - pl.col("label_click")), "0 are in only one .* and 240 have"),
        (lambda rows: rows.with_columns(label_watch=pl.col("label_watch").fill_null(0)), "and 120 have"),
        (lambda rows: rows.with_columns(mask_like=~pl.col("mask_like")), "and 240 have"),
        (lambda rows: rows.with_columns(scene_feed=~pl.col("scene_feed")), "and 240 have"),
        (lambda rows: rows.with_columns(pl.col("user_id") % 39), "and 6 have"),
        (lambda rows: rows.with_columns(pl.col("sample_id").cast(pl.String)), "other types"),
    ],
    ids=["row missing", "other ids", "labels", "missing labels", "masks", "scenes", "users", "types"],
)
def test_other_rows_are_refused(
    spec: Spec, predictions: pl.LazyFrame, change: Callable[[pl.LazyFrame], pl.LazyFrame], reason: str
) -> None:
    with pytest.raises(StrataError, match=rf"^run second: .*{reason}"):
        differences(spec, predictions, change(predictions))


def test_only_what_all_runs_have_is_compared(spec: Spec) -> None:
    """The second run does not learn likes in the player; the third has no feed, in which alone watch is learned."""
    content = spec.model_dump(mode="json")
    del content["scenes"]["player"]["weights"]["like"]
    second = Spec.model_validate(content)
    assert in_common({"a": spec, "b": spec}) == (spec, [])
    common, left_out = in_common({"a": spec, "b": second})
    assert common == second
    assert left_out == ["scenes.player.weights.like"]
    del content["scenes"]["feed"], content["objectives"]["watch"]
    third = Spec.model_validate(content)
    for runs in ({"a": spec, "b": second, "c": third}, {"c": third, "a": spec}):
        common, left_out = in_common(runs)
        assert (list(common.objectives), list(common.scenes)) == (["click", "like"], ["player", "search"])
        assert sorted(left_out) == [
            *("objectives.watch", "scenes.feed", "scenes.feed.weights.click", "scenes.feed.weights.watch"),
            "scenes.player.weights.like",
        ]
    likes = spec.model_copy(update={"scenes": {"search": spec.scenes["search"]}})
    clicks = spec.model_copy(update={"scenes": {"feed": spec.scenes["feed"]}})
    with pytest.raises(StrataError, match=r"^RUN: x, y have no objective in common"):
        in_common({"x": likes, "y": clicks})


def test_runs_of_the_same_name_are_told_apart() -> None:
    runs = [Path("/x/monday/run"), Path("/x/tuesday/run"), Path("/x/ple")]
    assert name_runs(runs) == dict(zip(["monday-run", "tuesday-run", "ple"], runs, strict=True))


@pytest.mark.parametrize("runs", [["/a/run", "/a/run"], ["/x/a/run", "/y/a/run"], ["/a/run", "/b/run", "/c/a-run"], []])
def test_names_that_cannot_be_told_apart_are_refused(runs: list[str]) -> None:
    with pytest.raises(StrataError, match="2 of the runs have this name" if runs else "no run to compare"):
        name_runs([Path(run) for run in runs])


# ------------------------------------------------------------------------------------------------- the page


def page(spec: Spec, runs: dict[str, pl.LazyFrame], folder: Path) -> tuple[str, str]:
    """The page, and the text of it that is in tables, tags become spaces."""
    facts = {run: {"folder": f"out/{run}"} for run in runs}
    write_comparison(spec, compare(spec, runs), {"run": "all", "split": "test"}, facts, folder / "report.html")
    html = (folder / "report.html").read_text()
    text = " ".join(re.findall("<table.*?</table>", html, re.DOTALL))
    return html, " ".join(re.sub("<[^>]*>", " ", text).split())


def test_the_page_says_what_is_better_in_words(spec: Spec, predictions: pl.LazyFrame, tmp_path: Path) -> None:
    html, text = page(spec, {"old": predictions, "new": scaled(predictions, 1.1)}, tmp_path)
    # Overall, in the feed and on the player, where nothing changed; AUC does not change with the scale in one scene.
    assert text.count("old 240 120 (50.0 %)") == text.count("new 240 120 (50.0 %)") == 1
    assert "new 160 80 (50.0 %) 0.8750 ≈ same 0.8750 ≈ same 40" in text
    assert "0.9900 +0.0900 better" in text
    assert "new 80 40 (50.0 %) 0.0000 ≈ same" in text
    assert '<span class="better">+0.0900 better</span>' in html
    assert not re.findall(r"""(?:src|href)=["'][^#]""", html)


def test_too_few_is_said_for_every_run(spec: Spec, predictions: pl.LazyFrame, tmp_path: Path) -> None:
    html, text = page(spec, {"old": predictions, "new": predictions.with_columns(pred_like=pl.lit(0.2))}, tmp_path)
    assert "old 80 0 (0.0 %) too few 1" in text
    assert "new 80 0 (0.0 %) too few 1 too few 2 0 0.2231 +0.1178 worse too few 1 too few 1" in text
    assert html.count("too few positives: 0 of the 20 needed</span>") == 3  # overall, player, search


def test_a_single_run_has_no_differences(spec: Spec, predictions: pl.LazyFrame, tmp_path: Path) -> None:
    html, text = page(spec, {"alone": predictions}, tmp_path)
    assert "alone 240 120 (50.0 %) 0.5000 0.5000" in text
    assert "nothing to hold it against" in html
    assert not re.search("better|worse|same", text)


def test_names_are_text_not_markup(spec: Spec, predictions: pl.LazyFrame, tmp_path: Path) -> None:
    html, _ = page(spec, {"<b>old</b>": predictions, "<script>": predictions}, tmp_path)
    assert "&lt;script&gt;" in html
    assert "<script" not in html
    assert "<b>old" not in html


def test_only_settings_that_differ_are_told() -> None:
    settings = {
        "a": {"seed": 0, "model": {"head": "ple", "dropout": 0.0}, "tables": {"overrides": {"user": "row_wise"}}},
        "b": {"seed": 0, "model": {"head": "mmoe", "dropout": 0.0}, "tables": {"overrides": {}}},
    }
    assert differing_settings(settings) == {
        "a": {"model.head": "ple", "tables.overrides.user": "row_wise"},
        "b": {"model.head": "mmoe", "tables.overrides.user": ""},
    }
    assert differing_settings({"a": settings["a"]}) == {"a": {}}


# ---------------------------------------------------------------------------------------------- the command


@pytest.mark.slow
def test_the_command_compares_heads(
    command: Callable[..., Any], samples: Path, spec_path: Path, tmp_path: Path
) -> None:
    small = ["--loop.epochs", "1", "--model.expert", "8", "--model.tower", "8", "--device", "cpu"]
    runs = [tmp_path / head for head in ("ple", "mmoe")]
    for run in runs:
        trained = command(
            "train.py", "--spec", spec_path, "--samples", samples, "--out", run, "--model.head", run.name, *small
        )
        assert trained.returncode == 0, trained.stderr
    out = tmp_path / "report"
    assert command("compare.py", *runs, "--out", out).stdout == f"{out / 'report.html'}\n"
    metrics = json.loads((out / "metrics.json").read_text())
    ple, mmoe = (metrics["runs"][run.name]["objectives"]["click"]["log_loss"] for run in runs)
    assert metrics["differences"]["mmoe"]["objectives"]["click"]["log_loss"]["difference"] == mmoe - ple != 0
    stored = [pl.read_parquet(out / "predictions" / run.name / "*.parquet") for run in runs]
    assert stored[0]["label_click"].equals(stored[1]["label_click"])
    assert not stored[0]["pred_click"].equals(stored[1]["pred_click"])

    refused = command("compare.py", runs[0], tmp_path, "--out", tmp_path / "no")
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
    assert "is no run" in refused.stderr
    assert not list(tmp_path.glob("*no*"))
