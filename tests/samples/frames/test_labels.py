"""Labels, masks, scenes, weights and filters: where an expression is null, a row is outside; bad labels are named."""

from datetime import date
from typing import Any

import polars as pl
import pytest

from pipeline.manifest import LabelStatistics, SplitName
from pipeline.samples.frames.dictionary import dictionary_encode
from pipeline.samples.frames.labels import KEEP, WANTED, append_labels, bad_label, learned_rows
from pipeline.samples.frames.tallies import SLOT, add_tallies, tallies
from pipeline.samples.store import statistics_of_days
from pipeline.spec.objectives import BinaryObjective, RegressionObjective
from pipeline.spec.spec import Spec


def spec(**changes: Any) -> Spec:
    columns = {"user": "int64", "video": "int64", "ms": "int64", "tab": "int64", "click": "bool", "seconds": "float64"}
    content = {
        "name": "small",
        "logs": {
            "impression": {
                "files": "log",
                "columns": columns,
                "id": ["user", "video", "ms"],
                "user": "user",
                "video": "video",
                "time": "ms",
                "outcomes": ["click", "seconds"],
            }
        },
        "tables": {"user": {"encode": "hash", "rows": 8, "dim": 4}},
        "features": {"user": {"kind": "id", "table": "user"}},
        "objectives": {
            "click": {"kind": "binary", "label": "click"},
            "watch": {"kind": "regression", "label": "seconds", "where": "click"},
        },
        "scenes": {
            "feed": {"where": "tab = 1", "weights": {"click": 1}},
            "player": {"where": "tab >= 1", "weights": {"click": 1, "watch": 1}},
        },
        **changes,
    }
    return Spec.model_validate(content)


SAMPLES = pl.DataFrame(
    [
        (1, True, 3.0),
        (2, False, 4.0),  # no click: outside of `watch`
        (None, True, 5.0),  # in no scene
        (1, None, 6.0),  # a null condition is not met
        (2, True, None),  # no label
        (0, True, 7.0),  # has labels, but in no scene
        (1, True, float("nan")),
        (1, True, float("inf")),
    ],
    schema={"tab": pl.Int64, "click": pl.Boolean, "seconds": pl.Float64},
    orient="row",
)


def labelled(of: Spec) -> pl.DataFrame:
    return append_labels(SAMPLES.lazy(), of).collect()


def test_a_literal_table() -> None:
    found = labelled(spec())
    assert found.select(SAMPLES.columns).equals(SAMPLES)
    assert {name: found[name].to_list() for name in found.columns[3:]} == {
        "mask_click": [True, True, True, False, True, True, True, True],
        "label_click": [1, 0, 1, None, 1, 1, 1, 1],
        "mask_watch": [True, False, True, False, False, True, False, False],
        "label_watch": [3, None, 5, None, None, 7, None, None],
        "scene_feed": [True, False, False, True, False, False, True, True],
        "scene_player": [True, True, False, True, True, False, True, True],
        "sample_weight": [1.0] * 8,
        WANTED: [True] * 8,
        KEEP: [1.0] * 8,
    }
    types = {"mask": pl.Boolean, "scene": pl.Boolean, "label": pl.Float32, "sample": pl.Float32}
    assert all(found.schema[name] == types[name.split("_")[0]] for name in found.columns[3:-2])


def test_the_sample_weight_is_an_expression() -> None:
    weighted = labelled(spec(sample_weight="case when click then 2 else 0.5 end"))
    assert weighted["sample_weight"].to_list() == [2, 0.5, 2, 0.5, 2, 2, 2, 2]


def test_a_row_that_does_not_surely_meet_the_filter_is_not_wanted() -> None:
    found = labelled(spec(filter="tab > 0 and click"))
    assert found[WANTED].to_list() == [True, False, False, False, True, False, True, True]
    assert found.height == SAMPLES.height  # it is left out later: histories and counters see it


def test_the_first_rate_that_holds_for_a_row_applies() -> None:
    thinned = spec(
        downsample=[
            {"where": "tab = 1", "keep": 0.5},
            {"where": "not click", "keep": 0.25},
            {"where": "tab >= 1", "keep": 0.125},
        ]
    )
    assert labelled(thinned)[KEEP].to_list() == [0.5, 0.25, 1, 0.5, 0.125, 1, 0.5, 0.5]


def test_statistics_are_those_of_the_rows_that_learn() -> None:
    """`click` is learned in both scenes, `watch` only in the player's; half of the rows are for training."""
    of = spec()
    assert labelled(of).select(learned_rows(of, "watch")).to_series().to_list() == [True] + [False] * 7
    train, test = date(2026, 3, 1), date(2026, 3, 2)
    samples = labelled(of).with_columns(pl.lit(0).alias(SLOT), feature_user=1, day=pl.Series([train] * 4 + [test] * 4))
    parts = [tallies(dictionary_encode(part, of), {}, of).tally for part in (samples[:2], samples[2:7], samples[7:])]
    labels, days = statistics_of_days(add_tallies(parts), {train: "train", test: "test"}, of)
    nothing = {"rows": 0, "mean": None, "min": None, "max": None}
    assert {name: {split: s.model_dump() for split, s in of_name.items()} for name, of_name in labels.items()} == {
        "click": {
            "train": {"rows": 2, "mean": 0.5, "min": 0, "max": 1},
            "valid": nothing,
            "test": {"rows": 3, "mean": 1, "min": 1, "max": 1},
        },
        "watch": {"train": {"rows": 1, "mean": 3, "min": 3, "max": 3}, "valid": nothing, "test": nothing},
    }
    scenes = {name: scene.model_dump() for name, scene in days[train].scenes.items()}
    assert (days[train].rows, days[train].split, scenes) == (
        4,
        "train",
        {
            "feed": {"rows": 2, "labels": {"click": {"rows": 1, "mean": 1, "min": 1, "max": 1}}},
            "player": {
                "rows": 3,
                "labels": {
                    "click": {"rows": 2, "mean": 0.5, "min": 0, "max": 1},
                    "watch": {"rows": 1, "mean": 3, "min": 3, "max": 3},
                },
            },
        },
    )


BINARY, REGRESSION = BinaryObjective(kind="binary", label="x"), RegressionObjective(kind="regression", label="x")


@pytest.mark.parametrize(
    ("objective", "low", "high", "problem"),
    [
        (BINARY, None, None, "has no row in the training split"),
        (BINARY, 0, 0, "is always 0 in the training split (9 rows)"),
        (BINARY, 1, 1, "is always 1 in the training split (9 rows)"),
        (BINARY, 0, 2, "is binary, but has values from 0 to 2"),
        (BINARY, -0.5, 1, "is binary, but has values from -0.5 to 1"),
        (BINARY, 0, 1, None),
        (BINARY, 0.25, 0.75, None),  # a soft label
        (REGRESSION, None, None, "has no row in the training split"),
        (REGRESSION, 2.5, 2.5, "is always 2.5 in the training split (9 rows)"),
        (REGRESSION, -1, 3, "has negative values, down to -1"),
        (REGRESSION, 0, 1e6, None),
    ],
)
def test_bad_labels_are_named(
    objective: BinaryObjective | RegressionObjective, low: float | None, high: float | None, problem: str | None
) -> None:
    assert bad_label(objective, {"train": LabelStatistics(rows=9, mean=low, min=low, max=high)}) == problem


@pytest.mark.parametrize("other", ["valid", "test"])
def test_a_bad_label_is_one_in_any_split(other: SplitName) -> None:
    train = LabelStatistics(rows=9, mean=0.5, min=0, max=1)
    for objective, low, high, problem in (
        (BINARY, 0, 2, "is binary, but has values from 0 to 2"),
        (REGRESSION, -1, 0, "has negative values, down to -1"),
        (BINARY, 1, 1, None),  # it need not vary where nothing is learned from it
        (REGRESSION, None, None, None),
    ):
        splits = {"train": train, other: LabelStatistics(rows=3, mean=low, min=low, max=high)}
        assert bad_label(objective, splits) == problem
