"""Parts of a spec that disagree are refused."""

import pytest
from pydantic import ValidationError

from pipeline.spec.spec import Spec
from tests.spec.event_logs import EVENT_LOGS, changed

INTERACTIONS = {**EVENT_LOGS["logs"], "events": {}}


SECOND_LENGTH = {**EVENT_LOGS["features"], "again": {"kind": "id", "table": "length"}}


DISAGREEMENTS = {
    "events and outcomes": (
        "logs.impression.outcomes",
        ["tab"],
        "logs: declares both `events` and `impression.outcomes`; "
        "give `events` for event logs, or `impression.outcomes` for interaction logs",
    ),
    "neither": (
        "logs",
        INTERACTIONS,
        "logs: has no outcome of an impression; "
        "give `events` for event logs, or `impression.outcomes` for interaction logs",
    ),
    "undeclared id": (
        "logs.impression.id",
        ["id", "request"],
        "logs.impression: `request` is not declared; add it to `columns`",
    ),
    "undeclared user": ("logs.impression.user", "uid", "logs.impression: `uid` is not declared; add it to `columns`"),
    "undeclared outcome": (
        "logs",
        {**INTERACTIONS, "impression": {**INTERACTIONS["impression"], "outcomes": ["click"]}},
        "logs.impression: `click` is not declared; add it to `columns`",
    ),
    "time that is no int64": (
        "logs.impression.columns.ms",
        "string",
        "logs.impression.columns.ms: is string; a time in ms needs int64",
    ),
    "event time that is no int64": (
        "logs.events.play.columns.at",
        "int32",
        "logs.events.play.columns.at: is int32; a time in ms needs int64",
    ),
    "event time that is an id": (
        "logs.events.play.time",
        "id",
        "logs.events.play.time: `id` is an id of the impression; give the event a time of its own",
    ),
    **{
        f"outcome known at the impression, {key}": (
            "logs",
            {**INTERACTIONS, "impression": {**INTERACTIONS["impression"], "outcomes": ["tab", column]}},
            f"logs.impression.outcomes: `{column}` is known at the impression; take it out",
        )
        for key, column in {"id": "id", "user": "user", "video": "video", "time": "ms"}.items()
    },
    "event without the user": (
        "logs.events.play.columns",
        {"id": "int64", "at": "int64", "seconds": "float64"},
        "logs.events.play: `user` is not declared; it joins the rows: add it to `columns`",
    ),
    "end of validity alone": (
        "logs.profiles.clip.valid_to",
        "length",
        "logs.profiles.clip.valid_to: has no `valid_from` beside it; declare when a row becomes valid",
    ),
    "undeclared validity": (
        "logs.profiles.clip.valid_from",
        "since",
        "logs.profiles.clip: `since` is not declared; add it to `columns`",
    ),
    "one date of a split": (
        "split",
        {"valid_from": "2026-03-01"},
        "split: has only one of valid_from and test_from; give both, or valid_days and test_days",
    ),
    "test before validation": (
        "split",
        {"valid_from": "2026-03-02", "test_from": "2026-03-02"},
        "split.test_from: 2026-03-02 is not after valid_from; validation comes before the test",
    ),
    "intervals out of order": (
        "tables.length",
        {"encode": "buckets", "boundaries": [1, 3, 3], "dim": 2},
        "tables.length.boundaries: do not increase; put them in order, each once",
    ),
    "profile by an outcome": (
        "logs",
        {
            **INTERACTIONS,
            "impression": {**INTERACTIONS["impression"], "outcomes": ["tab"]},
            "profiles": {"tab": {"files": "x", "columns": {"tab": "string"}, "key": "tab"}},
        },
        "logs.profiles.tab.key: `tab` is an outcome; a profile is joined by what is known at the impression",
    ),
    **{
        f"time zone {zone!r}": (
            "logs.timezone",
            zone,
            f"logs.timezone: there is no time zone `{zone}`; use a name such as Asia/Shanghai",
        )
        for zone in ("Asia/Nowhere", "Asia", "", "../etc", "+08:00")
    },
    "undeclared event time": (
        "logs.events.play.time",
        "ts",
        "logs.events.play: `ts` is not declared; add it to `columns`",
    ),
    "undeclared event value": (
        "logs.events.play.values",
        {"metres": "sum"},
        "logs.events.play: `metres` is not declared; add it to `columns`",
    ),
    "event without the id": (
        "logs.events.play.columns.id",
        ...,
        "logs.events.play: `id` is not declared; it joins the rows: add it to `columns`",
    ),
    "tables that disagree about the id": (
        "logs.events.play.columns.id",
        "string",
        "logs.events.play.columns.id: is string, but logs.impression.columns.id is int64; "
        "the two tables are joined by it: give both the same type",
    ),
    "profile that disagrees about its key": (
        "logs.profiles.clip.columns.video",
        "string",
        "logs.profiles.clip.columns.video: is string, but logs.impression.columns.video is int64; "
        "the two tables are joined by it: give both the same type",
    ),
    "profile key that impressions lack": (
        "logs.profiles.clip.key",
        "length",
        "logs.profiles.clip.key: `length` is no column of the impressions; use one of id, user, video, ms, tab",
    ),
    "profile named like an event": (
        "logs.profiles.play",
        EVENT_LOGS["logs"]["profiles"]["clip"],
        "logs.profiles.play: is also an event; give the profile another name",
    ),
    "event named impression": (
        "logs.events.impression",
        EVENT_LOGS["logs"]["events"]["play"],
        "logs.events.impression: is the name of the impressions; call the event something else",
    ),
    "unknown table": (
        "features.user.table",
        "users",
        "features.user.table: there is no table `users`; use one of video, user, length, or declare it under `tables`",
    ),
    "unused table": (
        "tables.tag",
        {"encode": "vocab", "dim": 2},
        "tables.tag: no feature uses it; delete it or name it in a feature",
    ),
    "history of an unknown event": (
        "features.played.event",
        "click",
        "features.played.event: there is no event `click`; use one of impression, play",
    ),
    "counter of an unknown event": (
        "counters.measures.plays.event",
        "click",
        "counters.measures.plays.event: there is no event `click`; use one of impression, play",
    ),
    "quantiles of a history": (
        "features.played.table",
        "length",
        "features.played.table: `length` holds ranges of a number; only a feature of kind id can use it",
    ),
    "shared quantiles": (
        "features",
        SECOND_LENGTH,
        "tables.length: is shared by length, again; quantiles belong to one number: give each feature its own table",
    ),
    "scene of an unknown objective": (
        "scenes.feed.weights.like",
        1.0,
        "scenes.feed.weights.like: there is no such objective; use one of play, watch",
    ),
    "objective in no scene": (
        "objectives.like",
        {"kind": "binary", "label": "play"},
        "objectives.like: no scene learns it; give it a weight in a scene, or delete it",
    ),
    "baseline by no id": (
        "objectives.watch.baseline_by",
        "hour",
        "objectives.watch.baseline_by: `hour` is no feature of kind id; name one, such as a duration in quantiles",
    ),
}


@pytest.mark.parametrize(("path", "value", "message"), DISAGREEMENTS.values(), ids=DISAGREEMENTS)
def test_parts_that_disagree_are_refused(path: str, value: object, message: str) -> None:
    with pytest.raises(ValidationError) as error:
        Spec.model_validate(changed(path, value))
    assert [str(problem["ctx"]["error"]) for problem in error.value.errors()] == [message]


@pytest.mark.parametrize(
    ("path", "empty"),
    [
        ("logs.impression.id", []),
        ("logs.impression.columns", {}),
        ("counters.days", []),
        ("counters.by", {}),
        ("counters.measures", {}),
        ("features", {}),
        ("objectives", {}),
        ("scenes", {}),
    ],
)
def test_what_holds_nothing_is_refused(path: str, empty: object) -> None:
    with pytest.raises(ValidationError) as error:
        Spec.model_validate(changed(path, empty))
    assert [(problem["loc"], problem["type"]) for problem in error.value.errors()] == [
        (tuple(path.split(".")), "too_short")
    ]


@pytest.mark.parametrize("number", ["16", True, 4.0, 0, -1])
@pytest.mark.parametrize("path", ["tables.user.dim", "features.played.last", "split.test_days", "tables.user.rows"])
def test_whole_numbers_are_strict(path: str, number: object) -> None:
    with pytest.raises(ValidationError) as error:
        Spec.model_validate(changed(path, number))
    assert [problem["input"] for problem in error.value.errors()] == [number]


@pytest.mark.parametrize("weight", ["1.0", True, float("inf"), float("nan"), -0.5])
def test_weights_are_strict(weight: object) -> None:
    with pytest.raises(ValidationError) as error:
        Spec.model_validate(changed("scenes.feed.weights.play", weight))
    assert error.value.errors()[0]["loc"] == ("scenes", "feed", "weights", "play")
