"""Every trap is found where it is planted, and a clean store has none."""

from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from pipeline.data_report.findings import Finding, find_traps
from pipeline.data_report.summary import summarise
from pipeline.manifest import BadRawFile, Manifest
from pipeline.statistics import Statistics

Change = Callable[[pl.DataFrame], pl.DataFrame]
Build = Callable[..., tuple[Path, Manifest, Statistics]]

ON_TEST_DAY = pl.col("date") == "2026-03-05"


def found(build: Build, change: Change = lambda rows: rows, **distinct: int) -> list[Finding]:
    store, manifest, statistics = build(change, **distinct)
    return find_traps(manifest, statistics, summarise(store, manifest, statistics))


def test_a_clean_store_has_no_trap(build: Build) -> None:
    assert found(build) == []


def test_a_file_in_quarantine(build: Build) -> None:
    store, manifest, statistics = build()
    bad = [BadRawFile(table="impression", file="day-2.csv", reason="cut short")]
    manifest = manifest.model_copy(update={"quarantine": bad})
    (finding,) = find_traps(manifest, statistics, summarise(store, manifest, statistics))
    assert finding.what == "day-2.csv of table impression: cut short"


@pytest.mark.parametrize(
    ("feature", "value"),
    [
        ("price", pl.col("label_click") + 0.1),
        ("price", 1 - pl.col("label_click") * 2),
        ("video", 3 + 2 * pl.col("label_click").cast(pl.Int32)),
        ("user", pl.when(pl.col("label_click") == 1).then(0).otherwise("feature_user")),
        ("tags", pl.when(pl.col("label_click") == 1).then(pl.lit([8])).otherwise(pl.lit([], pl.List(pl.Int64)))),
    ],
    ids=["equal number", "opposite number", "id", "missing id", "empty list"],
)
def test_a_feature_that_knows_the_label(build: Build, feature: str, value: pl.Expr) -> None:
    findings = found(build, lambda rows: rows.with_columns(value.alias(f"feature_{feature}")))
    assert [(finding.trap, finding.what) for finding in findings] == [
        ("possible leak", f"{feature} alone separates the label of click: AUC 1.0000")
    ]


def test_a_feature_that_knows_an_amount(build: Build) -> None:
    (finding,) = found(build, lambda rows: rows.with_columns(feature_price=pl.col("label_watch") ** 0.5))
    assert finding.what == "price alone separates the label of watch: AUC 1.0000"


def test_a_label_that_is_constant_in_one_scene(build: Build) -> None:
    never = pl.when("scene_player").then(0).otherwise("label_click").cast(pl.Float32)
    findings = found(build, lambda rows: rows.with_columns(label_click=never))
    assert {finding.trap for finding in findings} == {"constant label"}
    assert [finding.what for finding in findings] == [
        "click is 0.000 in all 1,800 rows of scene player in the train split",
        "click is 0.000 in all 600 rows of scene player in the valid split",
        "click is 0.000 in all 600 rows of scene player in the test split",
    ]


def test_a_label_that_no_row_has(build: Build) -> None:
    findings = found(build, lambda rows: rows.with_columns(mask_watch=pl.col("mask_watch") & ~ON_TEST_DAY))
    assert [finding.what for finding in findings] == ["watch has no row in scene feed of the test split"]


def test_an_id_that_is_nearly_unique(build: Build) -> None:
    (finding,) = found(build, user=3100)
    assert (finding.trap, finding.what) == ("nearly unique id", "user: 3,100 different ids in 6,000 values")


def test_histories_do_not_hide_that_an_id_is_nearly_unique(build: Build) -> None:
    """Videos are in 6,000 rows and, again, in about 6,000 elements of histories."""
    (finding,) = found(build, video=3100)
    assert finding.what == "video, watched: 3,100 different ids in 6,000 values"


def test_ids_that_come_back_are_not_nearly_unique(build: Build) -> None:
    assert found(build, user=2900, video=2900) == []


def test_a_day_with_abnormal_volume(build: Build) -> None:
    findings = found(build, lambda rows: rows.filter((pl.col("date") != "2026-03-02") | (pl.col("sample_id") % 4 == 0)))
    assert [(finding.trap, finding.what) for finding in findings] == [
        ("day with abnormal volume", "2026-03-02 has 25.0 % of the rows of the median day")
    ]


def test_drift_of_a_number_and_of_an_id(build: Build) -> None:
    price = pl.col("feature_price") + pl.when(ON_TEST_DAY).then(1.0).otherwise(0.0)
    user = pl.when(ON_TEST_DAY).then(pl.col("feature_user") % 3 + 1).otherwise("feature_user")
    findings = found(build, lambda rows: rows.with_columns(feature_price=price, feature_user=user))
    assert [(finding.trap, finding.what.split()[0]) for finding in findings] == [("drift", "user"), ("drift", "price")]


def test_drift_of_valid_days_is_none(build: Build) -> None:
    price = pl.col("feature_price") + pl.when(pl.col("date") == "2026-03-04").then(1.0).otherwise(0.0)
    assert found(build, lambda rows: rows.with_columns(feature_price=price)) == []


def test_test_ids_outside_the_vocabulary(build: Build) -> None:
    unseen = pl.when(pl.col("sample_id") % 4 == 0).then(0).otherwise("feature_video").cast(pl.Int32)
    everywhere = found(build, lambda rows: rows.with_columns(feature_video=unseen))
    (finding,) = [finding for finding in everywhere if finding.trap == "ids outside the vocabulary"]
    assert finding.what == "video: 25.0 % of the ids of the test split have no row in the table video"
    assert everywhere == [finding]


def test_a_few_ids_outside_the_vocabulary_are_usual(build: Build) -> None:
    unseen = pl.when(pl.col("sample_id") % 6 == 0).then(0).otherwise("feature_video").cast(pl.Int32)
    assert found(build, lambda rows: rows.with_columns(feature_video=unseen)) == []
