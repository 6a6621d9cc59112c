"""Every expression of a spec is checked before any data is read: it evaluates, and sees no outcome of its own row."""

import copy
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from pipeline.errors import StrataError
from pipeline.samples.build import build_samples
from pipeline.spec.file import load_spec
from pipeline.spec.spec import Spec
from pipeline.sql.expressions import ONE_ROW
from pipeline.sql.lineage import check_lineage, outcome_columns

SPECS = Path(__file__).parents[2] / "feature_specs"
IMPRESSION = {
    "files": "shown",
    "columns": {"id": "int64", "uid": "int64", "video": "int64", "ms": "int64", "tab": "string"},
    "id": ["id"],
    "user": "uid",
    "video": "video",
    "time": "ms",
}
EVENT_LOGS: dict[str, Any] = {
    "name": "small",
    "logs": {
        "impression": IMPRESSION,
        "events": {
            "play": {
                "files": "play",
                "columns": {"id": "int64", "uid": "int64", "at": "int64", "seconds": "float64"},
                "time": "at",
                "within_s": 60,
                "values": {"seconds": "sum"},
            }
        },
        "profiles": {"clip": {"files": "clip", "columns": {"video": "int64", "length": "int32"}, "key": "video"}},
    },
    "columns": {"hour": "extract(hour from impression_time)", "late": "hour > 20"},
    "counters": {
        "days": [7],
        "by": {"user": "uid", "hour": "hour"},
        "measures": {"shown": {"where": "late"}, "played": {"event": "play", "mean": "seconds / length"}},
    },
    "tables": {
        "video": {"encode": "vocab", "dim": 4},
        "tag": {"encode": "hash", "rows": 9, "dim": 4},
        "length": {"encode": "quantiles", "buckets": 3, "dim": 2},
    },
    "features": {
        "bucket": {"kind": "id", "table": "length", "source": "length"},
        "video": {"kind": "id", "table": "video"},
        "played": {
            "kind": "history",
            "table": "video",
            "of": "video",
            "event": "play",
            "where": "seconds > 3",
            "last": 3,
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
}
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


OTHER_ROWS = [
    "sum(length)",
    "length - avg(length) over (partition by uid)",
    "rank() over (order by ms)",
    "lag(length) over (order by ms)",
    "count(*)",
    "max(length in (1, 2))",
    '"^l.*$"',
]


@pytest.mark.parametrize("expression", OTHER_ROWS)
@pytest.mark.parametrize(
    ("path", "of"),
    [
        ("features.length.source", "{}"),
        ("features.played.of", "{}"),
        ("columns.x", "{}"),
        ("objectives.watch.label", "{}"),
        ("objectives.watch.where", "({}) > 0"),
        ("scenes.feed.where", "({}) > 0"),
        ("sample_weight", "{}"),
        ("filter", "({}) > 0"),
        ("counters.measures.played.mean", "{}"),
        ("counters.measures.shown.where", "({}) > 0"),
    ],
)
def test_no_expression_looks_at_other_rows(path: str, of: str, expression: str) -> None:
    of = of.format(expression)
    message = refusal(changed(EVENT_LOGS, path, of))
    if expression.startswith('"'):
        assert message == f"{path}: `{of}` stands for several columns; name one column"
    else:
        assert message.startswith(f"{path}: `{of}` uses `")
        assert message.endswith("`, which is no function of one row; " + ONE_ROW)


ONE_EVENT = {
    "files": "x",
    "columns": {"id": "int64", "uid": "int64", "at": "int64", "n": "int64"},
    "time": "at",
    "within_s": 60,
}
TAKEN = {
    "event and impression column": ("logs.events.tab", ONE_EVENT, "logs.events.tab", "tab"),
    "event and outcome's value": ("logs.events.seconds", ONE_EVENT, "logs.events.seconds", "seconds"),
    "value and event": ("logs.events.n", {**ONE_EVENT, "values": {"n": "sum"}}, "logs.events.n.values.n", "n"),
    "value and id": ("logs.events.like", {**ONE_EVENT, "values": {"id": "max"}}, "logs.events.like.values.id", "id"),
    "values of two events": (
        "logs.events.like",
        {**ONE_EVENT, "columns": EVENT_LOGS["logs"]["events"]["play"]["columns"], "values": {"seconds": "max"}},
        "logs.events.like.values.seconds",
        "seconds",
    ),
    "derived and profile column": ("columns.length", "1", "columns.length", "length"),
    "derived column and event": ("columns.play", "1", "columns.play", "play"),
    "profile column and value": (
        "logs.profiles.clip.columns.seconds",
        "int64",
        "logs.profiles.clip.columns.seconds",
        "seconds",
    ),
    "profile and impression column": (
        "logs.profiles.clip.columns.tab",
        "string",
        "logs.profiles.clip.columns.tab",
        "tab",
    ),
    "counter and column": ("columns.user_shown_7d", "1", "counters", "user_shown_7d"),
    "the same window twice": ("counters.days", [7, 7], "counters", "user_shown_7d"),
    "two counters, one name": (
        "counters",
        {"days": [7], "by": {"user": "uid", "user_x": "tab"}, "measures": {"x_clicks": {}, "clicks": {}}},
        "counters",
        "user_x_clicks_7d",
    ),
}


@pytest.mark.parametrize(("path", "value", "key", "name"), TAKEN.values(), ids=TAKEN)
def test_no_two_columns_have_the_same_name(path: str, value: object, key: str, name: str) -> None:
    expected = f"{key}: there is another column `{name}`; give one of the two another name"
    assert refusal(changed(EVENT_LOGS, path, value)) == expected


RESERVED = [
    "label_x",
    "mask_x",
    "scene_x",
    "feature_x",
    "day",
    "local_day",
    "impression_time",
    "event_time_ms",
    "sample_id",
    "sample_weight",
]


@pytest.mark.parametrize("name", RESERVED)
@pytest.mark.parametrize(
    ("path", "value"),
    [("logs.impression.columns", "int64"), ("logs.profiles.clip.columns", "int64"), ("columns", "1")],
)
def test_names_that_strata_gives_are_refused(path: str, value: str, name: str) -> None:
    expected = f"{path}.{name}: `{name}` is a name that Strata gives; choose another name"
    assert refusal(changed(EVENT_LOGS, f"{path}.{name}", value)) == expected


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
