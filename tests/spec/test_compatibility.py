"""Which differences between the specs of a run and of samples matter to a model that reads the samples."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.spec.compatibility import incompatible_parts
from pipeline.spec.spec import Spec


def changed(spec_path: Path, changes: dict[str, Any]) -> Spec:
    """The spec with the values of some keys changed, added, or removed if None."""
    content = yaml.safe_load(spec_path.read_text())
    for key, value in changes.items():
        *names, last = key.split(".")
        place = content
        for name in names:
            place = place[name]
        if value is None:
            del place[last]
        else:
            place[last] = value
    return Spec.model_validate(content)


def found(spec_path: Path, changes: dict[str, Any]) -> list[str]:
    missing, different = incompatible_parts(changed(spec_path, {}), changed(spec_path, changes))
    return [*(f"lacks {name}" for name in missing), *different]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"name": "another"},
        {"split.valid_days": 2},
        {"filter": "position < 50"},
        {"downsample": [{"where": "position > 20", "keep": 0.5}]},
        {"sample_weight": "1 / (1 + position)"},
        {"logs.events.click.files": "clicks/*.csv"},
        {"logs.impression.checks": []},
        {"tables.video.min_count": 5},
        {"tables.video.dim": 8},
        {"tables.video.pooling": "sum"},
        {"tables.duration.buckets": 32},
        {"scenes.discover.weights.click": 0.5},
        {"scenes.discover.weights": {"stay": 1.0, "dwell": 1.0, "like": 1.0, "click": 2.0}},
        {"objectives.dwell.loss": "huber"},
        {"objectives.dwell.unit": "seconds"},
        {"objectives.dwell.baseline_by": "duration"},
        {
            "objectives.long": {"kind": "binary", "label": "stay"},
            "scenes.all": {"where": "stay", "weights": {"long": 1.0}},
        },
        {"columns.minute": "extract(minute from impression_time)", "tables.minute": {"encode": "vocab", "dim": 4}}
        | {"features.minute": {"kind": "id", "table": "minute"}},
        {"logs.impression.columns.network": "string"},
        {"logs.profiles.shop": {"files": "shop", "key": "video_id", "columns": {"video_id": "int64", "x": "bool"}}},
        {"counters.days": [3, 7]},
        {"counters.measures.stays": {"event": "stay"}},
    ],
)
def test_samples_may_have_other_rows_and_more_columns(spec_path: Path, changes: dict[str, Any]) -> None:
    assert found(spec_path, changes) == []


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"logs.timezone": "Asia/Tokyo"}, ["logs.timezone"]),
        ({"logs.day": "local_day"}, ["logs.day"]),
        ({"logs.events.play.within_s": 60}, ["logs.events.play.within_s"]),
        ({"logs.events.play.values.play_ms": "max"}, ["logs.events.play.values.play_ms"]),
        ({"logs.profiles.user.columns.city": "int64"}, ["logs.profiles.user.columns.city"]),
        ({"columns.hour": "extract(day from impression_time)"}, ["columns.hour"]),
        ({"counters.days": [3]}, ["counters.days"]),
        ({"counters.measures.shown": {}}, ["counters.measures.shown.where"]),
        ({"counters.measures.shown": None}, ["lacks counters.measures.shown"]),
        ({"tables.user.rows": 30000}, ["tables.user.rows"]),
        ({"tables.city": {"encode": "hash", "rows": 9, "dim": 8}}, ["tables.city.encode", "tables.city.rows"]),
        (
            {"tables.duration": {"encode": "buckets", "boundaries": [5.0], "dim": 8}},
            ["tables.duration.boundaries", "tables.duration.encode"],
        ),
        ({"features.city": None, "tables.city": None}, ["lacks features.city", "lacks tables.city"]),
        ({"features.position.source": "position + 1"}, ["features.position.source"]),
        ({"features.tags.max_length": 2}, ["features.tags.max_length"]),
        ({"features.log_duration.normalise": ["log1p"]}, ["features.log_duration.normalise"]),
        ({"objectives.click.label": "like"}, ["objectives.click.label"]),
        ({"objectives.dwell.where": None}, ["objectives.dwell.where"]),
        ({"objectives.stay.kind": "regression"}, ["objectives.stay.kind"]),
        ({"objectives.click": None, "scenes.discover.weights.click": None}, ["lacks objectives.click"]),
        ({"scenes.player.where": "page = 'discover'"}, ["scenes.player.where"]),
        (
            {"scenes.player": None, "objectives.like": None, "objectives.play_time": None},
            ["lacks objectives.like", "lacks objectives.play_time", "lacks scenes.player"],
        ),
    ],
)
def test_whatever_means_something_else_is_named(spec_path: Path, changes: dict[str, Any], named: list[str]) -> None:
    assert sorted(found(spec_path, changes), key=lambda name: name.removeprefix("lacks ")) == named
