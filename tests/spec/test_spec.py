"""The spec's parts must agree with each other; what is derived from it is derived in its order."""

import copy
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from pipeline.spec.features import HashTable, VocabTable
from pipeline.spec.file import load_spec
from pipeline.spec.spec import Spec

SPECS = Path(__file__).parents[2] / "feature_specs"
EVENT_LOGS: dict[str, Any] = {
    "name": "small",
    "logs": {
        "impression": {
            "files": "shown",
            "columns": {"id": "int64", "user": "int64", "video": "int64", "ms": "int64", "tab": "string"},
            "id": ["id"],
            "user": "user",
            "video": "video",
            "time": "ms",
        },
        "events": {
            "play": {
                "files": "play",
                "columns": {"id": "int64", "user": "int64", "at": "int64", "seconds": "float64"},
                "time": "at",
                "within_s": 60,
                "values": {"seconds": "sum"},
            }
        },
        "profiles": {"clip": {"files": "clip", "columns": {"video": "int64", "length": "int64"}, "key": "video"}},
    },
    "counters": {"days": [1, 7], "by": {"user": "user"}, "measures": {"shown": {}, "plays": {"event": "play"}}},
    "tables": {
        "video": {"encode": "vocab", "dim": 4},
        "user": {"encode": "hash", "rows": 10, "dim": 2},
        "length": {"encode": "quantiles", "buckets": 3, "dim": 2},
    },
    "features": {
        "video": {"kind": "id", "table": "video"},
        "played": {"kind": "history", "table": "video", "of": "video", "event": "play", "last": 3},
        "user": {"kind": "id", "table": "user"},
        "length": {"kind": "id", "table": "length"},
        "hour": {"kind": "dense"},
    },
    "objectives": {
        "play": {"kind": "binary", "label": "play"},
        "watch": {"kind": "regression", "label": "seconds", "baseline_by": "length"},
    },
    "scenes": {
        "feed": {"where": "tab = 'feed'", "weights": {"watch": 0.5, "play": 1}},
        "other": {"where": "tab != 'feed'", "weights": {"play": 0}},
    },
}


def changed(path: str, value: object) -> dict[str, Any]:
    """The spec above with another value at a dotted path; `...` deletes the key."""
    content = copy.deepcopy(EVENT_LOGS)
    *parents, last = path.split(".")
    place = content
    for key in parents:
        place = place.setdefault(key, {})
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return content


@pytest.mark.parametrize("name", ["short_video", "kuairand"])
def test_the_shipped_specs_load(name: str) -> None:
    spec = load_spec(SPECS / f"{name}.yaml")
    assert spec.name == name
    assert bool(spec.logs.events) == (name == "short_video")
    assert bool(spec.logs.impression.outcomes) == (name == "kuairand")


def test_the_shipped_specs_declare_what_the_issue_names() -> None:
    short_video, kuairand = (load_spec(SPECS / f"{name}.yaml") for name in ("short_video", "kuairand"))
    assert {name: list(scene.weights) for name, scene in short_video.scenes.items()} == {
        "discover": ["stay", "dwell", "click"],
        "player": ["play_time", "like"],
    }
    assert list(kuairand.objectives) == ["click", "long_view", "like", "profile_enter", "play_time"]
    assert {scene.where for scene in kuairand.scenes.values()} == {"tab = 1", "tab = 0", "tab not in (0, 1)"}


def test_what_is_derived_keeps_the_order_of_the_spec() -> None:
    spec = Spec.model_validate(EVENT_LOGS)
    assert spec.terms == [("feed", "watch", 0.5), ("feed", "play", 1.0), ("other", "play", 0.0)]
    assert list(spec.sparse_features) == ["video", "played", "user", "length"]
    assert list(spec.dense_features) == ["hour"]
    assert list(spec.logs.tables()) == ["impression", "play", "clip"]
    assert spec.counters is not None
    assert spec.counters.columns() == ["user_shown_1d", "user_shown_7d", "user_plays_1d", "user_plays_7d"]
    assert isinstance(spec.tables["user"], HashTable)
    assert isinstance(spec.tables["video"], VocabTable)
    assert (spec.tables["video"].min_count, spec.tables["video"].pooling) == (1, "mean")


def test_a_spec_survives_its_own_json_and_cannot_be_changed() -> None:
    spec = Spec.model_validate(EVENT_LOGS)
    assert Spec.model_validate_json(spec.model_dump_json()) == spec
    with pytest.raises(ValidationError, match="frozen"):
        spec.name = "other"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("name", "other"),
        ("logs.timezone", "Asia/Shanghai"),
        ("scenes.feed.weights.play", 1.5),
        ("objectives.play.label", "not play"),
        ("tables.video.dim", 8),
        ("features.played.last", 4),
        ("split", {"valid_days": 2}),
    ],
)
def test_the_fingerprint_changes_with_the_content(path: str, value: object) -> None:
    assert Spec.model_validate(changed(path, value)).fingerprint() != Spec.model_validate(EVENT_LOGS).fingerprint()


def test_the_fingerprint_is_the_same_whether_a_default_is_written_or_not() -> None:
    written = changed("split", {"valid_days": 1, "test_days": 1})
    assert Spec.model_validate(written).fingerprint() == Spec.model_validate(EVENT_LOGS).fingerprint()


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
