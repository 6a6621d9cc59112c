"""Expressions of other rows, and names that are taken, are refused before anything is read."""

from pathlib import Path

import pytest

from pipeline.errors import StrataError
from pipeline.samples.build import build_samples
from pipeline.sql.expressions import ONE_ROW
from tests.sql.specs import EVENT_LOGS, SPECS, changed, refusal

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
