"""Every expression of a spec is checked before any data is read: it evaluates, and sees no outcome of its own row."""

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from pipeline.spec.file import load_spec
from pipeline.spec.spec import Spec
from pipeline.sql.lineage import check_lineage, outcome_columns
from tests.sql.specs import EVENT_LOGS, IMPRESSION, SPECS, changed, refusal

INTERACTIONS = {
    **EVENT_LOGS,
    "logs": {
        "impression": {
            **IMPRESSION,
            "columns": {**IMPRESSION["columns"], "play": "bool", "seconds": "float64"},
            "outcomes": ["play", "seconds"],
        },
        "profiles": EVENT_LOGS["logs"]["profiles"],
    },
    "counters": {
        "days": [7],
        "by": {"user": "uid"},
        "measures": {"shown": {}, "played": {"where": "play", "mean": "seconds"}},
    },
    "features": {
        **EVENT_LOGS["features"],
        "played": {"kind": "history", "table": "video", "of": "video", "where": "play", "last": 3},
    },
}


SEEN = "; features may use outcomes only through counters and histories"


KNOWN = "id, uid, video, ms, tab, length"


BUILT_IN = "impression_time, day, local_day"


@pytest.mark.parametrize("logs", [EVENT_LOGS, INTERACTIONS], ids=["event logs", "interaction logs"])
def test_outcomes_are_events_and_their_values_or_declared_columns(logs: dict[str, Any]) -> None:
    assert outcome_columns(Spec.model_validate(logs)) == {"play": pl.Boolean, "seconds": pl.Float64}


@pytest.mark.parametrize("name", ["short_video", "kuairand", "minimal"])
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
        ("logs.day", "case when play then impression_time else local_day end", "logs.day: `play`"),
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
    assert message.startswith("features.played.where: there is no column `seconds` that it may use; ")
    message = refusal(changed(EVENT_LOGS, "counters.measures.shown.where", "play"))
    assert message.startswith("counters.measures.shown.where: there is no column `play` that it may use; ")


MISTAKES = {
    "unknown column": (
        "features.length.source",
        "lenght",
        "features.length.source: there is no column `lenght` that it may use; did you mean `length`?",
    ),
    "feature without a source": (
        "features.age",
        {"kind": "dense"},
        f"features.age: there is no column `age` that it may use; there are {KNOWN}, hour, ",
    ),
    "derived column of a later one": (
        "columns.hour",
        "late",
        f"columns.hour: there is no column `late` that it may use; there are {KNOWN}, {BUILT_IN}",
    ),
    "label": (
        "objectives.watch.label",
        "second",
        "objectives.watch.label: there is no column `second` that it may use; did you mean `seconds`?",
    ),
    "sample space": (
        "objectives.watch.where",
        "plays",
        "objectives.watch.where: there is no column `plays` that it may use; did you mean `play`?",
    ),
    "scene": ("scenes.feed.where", "page = 1", "scenes.feed.where: there is no column `page` that it may use; "),
    "weight": ("sample_weight", "weight", "sample_weight: there is no column `weight` that it may use; "),
    "filter": ("filter", "page = 1", "filter: there is no column `page` that it may use; "),
    "filter that is no condition": ("filter", "length + 1", "filter: `length + 1` is Int32; a condition must be true"),
    "down-sampling": (
        "downsample",
        [{"where": "play", "keep": 0.5}, {"where": "plays", "keep": 0.1}],
        "downsample.1.where: there is no column `plays` that it may use; did you mean `play`?",
    ),
    "measure": (
        "counters.measures.played.mean",
        "metres",
        "counters.measures.played.mean: there is no column `metres` that it may use; ",
    ),
    "check": (
        "logs.events.play.checks",
        ["second >= 0"],
        "logs.play.checks: there is no column `second` that it may use; did you mean `seconds`?",
    ),
    "day of a profile": (
        "logs.day",
        "cast(length as date)",
        "logs.day: there is no column `length` that it may use; "
        "there are id, uid, video, ms, tab, impression_time, local_day",
    ),
    "day that is none": ("logs.day", "tab", "logs.day: `tab` is String; it must be a date"),
    "SQL that does not parse": (
        "scenes.feed.where",
        "tab = = 'x'",
        "scenes.feed.where: `tab = = 'x'` does not evaluate (",
    ),
    "SQL that does not fit the types": ("columns.x", "tab - 1", "columns.x: `tab - 1` does not evaluate ("),
    "condition that is none": (
        "scenes.feed.where",
        "length + 1",
        "scenes.feed.where: `length + 1` is Int32; a condition must be true or false",
    ),
    "mean of text": (
        "counters.measures.played.mean",
        "tab",
        "counters.measures.played.mean: `tab` is String; it must be a number",
    ),
    "list of numbers": (
        "features.tab.source",
        "length",
        "features.tab: is Int32; an id_list is split from a string column",
    ),
    "dense text": ("features.length.source", "tab", "features.length: `tab` is String; it must be a number"),
    "text as a label": (
        "objectives.watch.label",
        "tab",
        "objectives.watch.label: `tab` is String; it must be a number",
    ),
    "text as a weight": ("sample_weight", "tab", "sample_weight: `tab` is String; it must be a number"),
    "quantiles of text": ("features.bucket.source", "tab", "features.bucket: `tab` is String; it must be a number"),
    "sum of text": (
        "logs.events.play.columns.seconds",
        "string",
        "logs.events.play.values.seconds: `seconds` is String; it must be a number",
    ),
    "counter by an expression": (
        "counters.by.user",
        "uid % 3",
        "counters.by.user: `uid % 3` is no column; give it a name under `columns`",
    ),
    "counter by a day": (
        "counters.by.user",
        "day",
        "counters.by.user: there is no column `day` that it may use; there are ",
    ),
    "shared table, other type": (
        "features.x",
        {"kind": "id", "table": "video", "source": "length"},
        "features.x: is Int32, but video is Int64, and both use the table video; "
        "features that share a table need the same type",
    ),
}


@pytest.mark.parametrize(("path", "value", "message"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_one_line_that_names_the_key(path: str, value: object, message: str) -> None:
    assert refusal(changed(EVENT_LOGS, path, value)).startswith(message)


def test_a_range_of_text_is_refused() -> None:
    buckets = changed(EVENT_LOGS, "tables.length", {"encode": "buckets", "boundaries": [1], "dim": 2})
    check_lineage(buckets, Path("spec.yaml"))
    message = refusal(changed(buckets.model_dump(), "features.bucket.source", "tab"))
    assert message == "features.bucket: `tab` is String; it must be a number"


def test_when_a_profile_is_valid_is_no_column_of_a_sample() -> None:
    clip = {
        "files": "clip",
        "columns": {"video": "int64", "length": "int32", "since": "int64", "until": "int64"},
        "key": "video",
        "valid_from": "since",
        "valid_to": "until",
    }
    dated = changed(EVENT_LOGS, "logs.profiles.clip", clip)
    check_lineage(dated, Path("spec.yaml"))
    for column in ("since", "until"):
        message = refusal(changed(dated.model_dump(), "features.length.source", column))
        assert message.startswith(f"features.length.source: there is no column `{column}` that it may use; ")
