"""Every expression of a spec is checked before any data is read: it evaluates, and sees no outcome of its own row."""

import copy
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from pipeline.errors import StrataError
from pipeline.samples.build import build_samples
from pipeline.samples.lineage import check_lineage
from pipeline.spec import Spec
from pipeline.spec_file import load_spec

SPECS = Path(__file__).parents[2] / "feature_specs"
IMPRESSION = {
    "files": "shown", "columns": {"id": "int64", "uid": "int64", "video": "int64", "ms": "int64", "tab": "string"},
    "id": ["id"], "user": "uid", "video": "video", "time": "ms",
}  # fmt: skip
EVENT_LOGS: dict[str, Any] = {
    "name": "small",
    "logs": {
        "impression": IMPRESSION,
        "events": {
            "play": {
                "files": "play", "columns": {"id": "int64", "at": "int64", "seconds": "float64"},
                "time": "at", "within_s": 60, "values": {"seconds": "sum"},
            }
        },
        "profiles": {"clip": {"files": "clip", "columns": {"video": "int64", "length": "int32"}, "key": "video"}},
    },
    "columns": {"hour": "extract(hour from impression_time)", "late": "hour > 20"},
    "counters": {
        "days": [7], "by": {"user": "uid", "hour": "hour"},
        "measures": {"shown": {"where": "late"}, "played": {"event": "play", "mean": "seconds / length"}},
    },
    "tables": {"video": {"encode": "vocab", "dim": 4}, "tag": {"encode": "hash", "rows": 9, "dim": 4}},
    "features": {
        "video": {"kind": "id", "table": "video"},
        "played": {
            "kind": "history", "table": "video", "of": "video", "event": "play", "where": "seconds > 3", "last": 3,
        },
        "tab": {"kind": "id_list", "table": "tag"},
        "length": {"kind": "dense"},
        "rate": {"kind": "dense", "source": "user_played_7d / (user_shown_7d + 1)"},
    },
    "objectives": {
        "play": {"kind": "binary", "label": "play"},
        "watch": {"kind": "regression", "label": "seconds / length", "where": "play and length > 0"},
    },
    "scenes": {"feed": {"where": "tab = 'feed'", "weights": {"watch": 1, "play": 1}}},
}  # fmt: skip
INTERACTIONS = {
    **EVENT_LOGS,
    "logs": {
        "impression": {
            **IMPRESSION, "columns": {**IMPRESSION["columns"], "play": "bool", "seconds": "float64"},
            "outcomes": ["play", "seconds"],
        },
        "profiles": EVENT_LOGS["logs"]["profiles"],
    },
    "counters": {
        "days": [7], "by": {"user": "uid"},
        "measures": {"shown": {}, "played": {"where": "play", "mean": "seconds"}},
    },
    "features": {
        **EVENT_LOGS["features"],
        "played": {"kind": "history", "table": "video", "of": "video", "where": "play", "last": 3},
    },
}  # fmt: skip
SEEN = "; features may use outcomes only through counters and histories"
KNOWN = "id, uid, video, ms, tab, length"
BUILT_IN = "impression_time, day, local_day"


def changed(content: dict[str, Any], path: str, value: object) -> Spec:
    content = copy.deepcopy(content)
    *parents, last = path.split(".")
    place = content
    for key in parents:
        place = place.setdefault(key, {})
    place[last] = value
    return Spec.model_validate(content)


def refusal(spec: Spec) -> str:
    with pytest.raises(StrataError) as error:
        check_lineage(spec, Path("spec.yaml"))
    assert "\n" not in str(error.value)
    return str(error.value).removeprefix("spec.yaml: ")


def test_columns_are_sorted_by_what_is_known_when() -> None:
    found = check_lineage(Spec.model_validate(EVENT_LOGS), Path("spec.yaml"))
    assert found.known == {
        "id": pl.Int64, "uid": pl.Int64, "video": pl.Int64, "ms": pl.Int64, "tab": pl.String, "length": pl.Int32,
        "hour": pl.Int8, "late": pl.Boolean,
    }  # fmt: skip
    assert found.outcomes == {"play": pl.Boolean, "seconds": pl.Float64}
    assert list(found.counters) == ["user_shown_7d", "user_played_7d", "hour_shown_7d", "hour_played_7d"]
    assert check_lineage(Spec.model_validate(INTERACTIONS), Path("spec.yaml")).outcomes == found.outcomes


@pytest.mark.parametrize("name", ["short_video", "kuairand"])
def test_the_shipped_specs_pass(name: str) -> None:
    path = SPECS / f"{name}.yaml"
    check_lineage(load_spec(path), path)


@pytest.mark.parametrize("logs", [EVENT_LOGS, INTERACTIONS], ids=["event logs", "interaction logs"])
@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("features.x", {"kind": "dense", "source": "seconds"}, "features.x.source: `seconds`"),
        ("features.seconds", {"kind": "dense"}, "features.seconds: `seconds`"),
        ("features.x", {"kind": "id", "table": "tag", "source": "coalesce(play, false)"}, "features.x.source: `play`"),
        ("features.x", {"kind": "dense", "source": "length + seconds * 0"}, "features.x.source: `seconds`"),
        ("columns.leak", "seconds > 3", "columns.leak: `seconds`"),
        ("columns.leak", "seconds as length2", "columns.leak: `seconds`"),
        ("counters.by.leak", "play", "counters.by.leak: `play`"),
        ("logs.day", "case when play then day else local_day end", "logs.day: `play`"),
    ],
)
def test_nothing_known_before_the_impression_may_use_an_outcome(
    logs: dict[str, Any], path: str, value: object, message: str
) -> None:
    expected = f"{message} is an outcome, known only after the impression{SEEN}"
    assert refusal(changed(logs, path, value)) == expected


def test_an_event_is_seen_only_with_its_own_values() -> None:
    """In event logs a history of impressions knows nothing of what followed them."""
    message = refusal(changed(EVENT_LOGS, "features.played.event", "impression"))
    assert message.startswith("features.played.where: there is no column `seconds`; it can use ")
    message = refusal(changed(EVENT_LOGS, "counters.measures.shown.where", "play"))
    assert message.startswith("counters.measures.shown.where: there is no column `play`; it can use ")


MISTAKES = {
    "unknown column": ("features.length.source", "lenght",
                       f"features.length.source: there is no column `lenght`; it can use {KNOWN}, hour, late, "),
    "feature without a source": ("features.age", {"kind": "dense"}, "features.age: there is no column `age`; "),
    "derived column of a later one": ("columns.hour", "late", f"columns.hour: there is no column `late`; it can use "
                                      f"{KNOWN}, {BUILT_IN}"),
    "label": ("objectives.watch.label", "second", "objectives.watch.label: there is no column `second`; "),
    "sample space": ("objectives.watch.where", "plays", "objectives.watch.where: there is no column `plays`; "),
    "scene": ("scenes.feed.where", "page = 1", "scenes.feed.where: there is no column `page`; "),
    "weight": ("sample_weight", "weight", "sample_weight: there is no column `weight`; "),
    "measure": ("counters.measures.played.mean", "metres",
                "counters.measures.played.mean: there is no column `metres`; "),
    "check": ("logs.events.play.checks", ["second >= 0"],
              "logs.play.checks: there is no column `second`; it can use id, at, seconds"),
    "SQL that does not parse": ("scenes.feed.where", "tab = = 'x'",
                                "scenes.feed.where: `tab = = 'x'` does not evaluate ("),
    "SQL that does not fit the types": ("columns.x", "tab - 1", "columns.x: `tab - 1` does not evaluate ("),
    "condition that is none": ("scenes.feed.where", "length + 1", "scenes.feed.where: `length + 1` is Int32; "
                               "a condition must be true or false"),
    "mean of text": ("counters.measures.played.mean", "tab", "counters.measures.played.mean: `tab` is String; "
                     "a mean needs a number"),
    "list of numbers": ("features.tab.source", "length",
                        "features.tab: is Int32; an id_list is split from a string column"),
    "dense text": ("features.length.source", "tab", "features.length: is String; a dense feature is a number"),
    "shared table, other type": ("features.x", {"kind": "id", "table": "video", "source": "length"},
                                 "features.x: is Int32, but video is Int64, and both use the table video; "
                                 "features that share a table need the same type"),
    "derived column named like another": ("columns.length", "1", "columns.length: there is another column `length`; "
                                          "give one of the two another name"),
    "derived column named like an outcome": ("columns.play", "1", "columns.play: there is another column `play`; "),
    "profile column named like an outcome": ("logs.profiles.clip.columns.seconds", "int64",
                                             "logs.profiles.clip.columns.seconds: there is another column `seconds`; "),
    "counter named like a column": ("columns.user_shown_7d", "1", "counters: there is another column `user_shown_7d`"),
}  # fmt: skip


@pytest.mark.parametrize(("path", "value", "message"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_one_line_that_names_the_key(path: str, value: object, message: str) -> None:
    assert refusal(changed(EVENT_LOGS, path, value)).startswith(message)


def test_nothing_is_read_before(tmp_path: Path) -> None:
    """The raw folder does not exist, yet the error is the spec's."""
    spec = (SPECS / "short_video.yaml").read_text()
    path = tmp_path / "spec.yaml"
    path.write_text(spec.replace("position: {kind: dense}", "position: {kind: dense, source: dwell_ms}"))
    with pytest.raises(StrataError, match="source: `dwell_ms` is an outcome"):
        build_samples(path, tmp_path / "no logs", tmp_path / "out")
    path.write_text(spec)
    with pytest.raises(StrataError, match="no such folder"):
        build_samples(path, tmp_path / "no logs", tmp_path / "out")
    assert {file.name for file in tmp_path.iterdir()} == {"spec.yaml"}
