"""What the parts of a spec must agree on. A refusal is a ValueError `key: found; right`."""

from collections.abc import Mapping
from datetime import date
from itertools import pairwise
from zoneinfo import available_timezones

from pipeline.spec.features import (
    AnyFeature,
    AnyTable,
    BucketTable,
    Counters,
    DenseFeature,
    HistoryFeature,
    IdFeature,
    QuantileTable,
)
from pipeline.spec.logs import Logs, RawTable
from pipeline.spec.objectives import AnyObjective, RegressionObjective, Scene
from pipeline.spec.part import MOST_NAMES

OF_THE_MACHINE = {"localtime", "posixrules", "Factory"}  # these differ from machine to machine


def _require(holds: bool, key: str, found: str, right: str) -> None:
    """Refuses the spec with a message `key: found; right` that `file.py` prefixes with the file."""
    if not holds:
        raise ValueError(f"{key}: {found}; {right}")


def check_logs(logs: Logs) -> None:
    impression = logs.impression
    _require(
        bool(logs.events) != bool(impression.outcomes),
        "logs",
        "declares both `events` and `impression.outcomes`" if logs.events else "has no outcome of an impression",
        "give `events` for event logs, or `impression.outcomes` for interaction logs",
    )
    for key in (*impression.id, impression.user, impression.video, impression.time, *impression.outcomes):
        _require(key in impression.columns, "logs.impression", f"`{key}` is not declared", "add it to `columns`")
    for key in (*impression.id, impression.user, impression.video, impression.time):
        _require(
            key not in impression.outcomes,
            "logs.impression.outcomes",
            f"`{key}` is known at the impression",
            "take it out",
        )
    _check_time(impression.time, impression, "logs.impression")
    _require(
        logs.timezone == "UTC" or logs.timezone in available_timezones() - OF_THE_MACHINE,
        "logs.timezone",
        f"there is no time zone `{logs.timezone}`",
        "use a name such as Asia/Shanghai",
    )
    for name, event in logs.events.items():
        place = f"logs.events.{name}"
        _require(name != "impression", place, "is the name of the impressions", "call the event something else")
        for key in (event.time, *event.values):
            _require(key in event.columns, place, f"`{key}` is not declared", "add it to `columns`")
        _require(
            event.time not in impression.id,
            f"{place}.time",
            f"`{event.time}` is an id of the impression",
            "give the event a time of its own",
        )
        _check_time(event.time, event, place)
        for key in {*impression.id, impression.user}:
            _check_same_type(key, impression, "logs.impression", event, place)
    for name, profile in logs.profiles.items():
        place = f"logs.profiles.{name}"
        _require(name not in ("impression", *logs.events), place, "is also an event", "give the profile another name")
        _require(profile.key in profile.columns, place, f"`{profile.key}` is not declared", "add it to `columns`")
        _require(
            profile.key in impression.columns,
            f"{place}.key",
            f"`{profile.key}` is no column of the impressions",
            f"use one of {', '.join(impression.columns)}",
        )
        _require(
            profile.key not in impression.outcomes,
            f"{place}.key",
            f"`{profile.key}` is an outcome",
            "a profile is joined by what is known at the impression",
        )
        _check_same_type(profile.key, impression, "logs.impression", profile, place)
        _require(
            bool(profile.valid_from) or not profile.valid_to,
            f"{place}.valid_to",
            "has no `valid_from` beside it",
            "declare when a row becomes valid",
        )
        for column in filter(None, (profile.valid_from, profile.valid_to)):
            _require(column in profile.columns, place, f"`{column}` is not declared", "add it to `columns`")
            _check_time(column, profile, place)


def check_split(valid_from: date | None, test_from: date | None) -> None:
    _require(
        bool(valid_from) == bool(test_from),
        "split",
        "has only one of valid_from and test_from",
        "give both, or valid_days and test_days",
    )
    if valid_from and test_from:
        order = "validation comes before the test"
        _require(valid_from < test_from, "split.test_from", f"{test_from} is not after valid_from", order)


def _check_time(time: str, table: RawTable, place: str) -> None:
    type_ = table.columns[time]
    _require(type_ == "int64", f"{place}.columns.{time}", f"is {type_}", "a time in ms needs int64")


def _check_same_type(key: str, left: RawTable, left_place: str, right: RawTable, right_place: str) -> None:
    _require(key in right.columns, right_place, f"`{key}` is not declared", "it joins the rows: add it to `columns`")
    _require(
        left.columns[key] == right.columns[key],
        f"{right_place}.columns.{key}",
        f"is {right.columns[key]}, but {left_place}.columns.{key} is {left.columns[key]}",
        "the two tables are joined by it: give both the same type",
    )


def check_features(
    features: Mapping[str, AnyFeature], tables: Mapping[str, AnyTable], counters: Counters | None, logs: Logs
) -> None:
    events = {"impression", *logs.events}
    sparse = {name: feature for name, feature in features.items() if not isinstance(feature, DenseFeature)}
    _require(bool(sparse), "features", "none of them is an id, an id_list or a history", "add one")
    for name, feature in sparse.items():
        place = f"features.{name}"
        _require(
            feature.table in tables,
            f"{place}.table",
            f"there is no table `{feature.table}`",
            f"use one of {', '.join(tables)}, or declare it under `tables`",
        )
        if isinstance(feature, HistoryFeature):
            _check_event(f"{place}.event", feature.event, events)
        if isinstance(tables[feature.table], QuantileTable | BucketTable):
            _require(
                isinstance(feature, IdFeature),
                f"{place}.table",
                f"`{feature.table}` holds ranges of a number",
                "only a feature of kind id can use it",
            )
    for name, table in tables.items():
        if isinstance(table, BucketTable):
            increasing = all(a < b for a, b in pairwise(table.boundaries))
            _require(increasing, f"tables.{name}.boundaries", "do not increase", "put them in order, each once")
        users = [f for f, feature in sparse.items() if feature.table == name]
        _require(bool(users), f"tables.{name}", "no feature uses it", "delete it or name it in a feature")
        if isinstance(table, QuantileTable):
            _require(
                len(users) == 1,
                f"tables.{name}",
                f"is shared by {', '.join(users)}",
                "quantiles belong to one number: give each feature its own table",
            )
    if counters:
        number = len(counters.by) * len(counters.measures) * len(counters.days)
        right = "leave out some of `days`, `by` and `measures`"
        _require(number <= MOST_NAMES, "counters", f"are {number} columns, more than {MOST_NAMES}", right)
        for name, measure in counters.measures.items():
            _check_event(f"counters.measures.{name}.event", measure.event, events)


def _check_event(key: str, event: str, events: set[str]) -> None:
    _require(event in events, key, f"there is no event `{event}`", f"use one of {', '.join(sorted(events))}")


def check_scenes(
    scenes: Mapping[str, Scene], objectives: Mapping[str, AnyObjective], features: Mapping[str, AnyFeature]
) -> None:
    for scene_name, scene in scenes.items():
        for learned in scene.weights:
            _require(
                learned in objectives,
                f"scenes.{scene_name}.weights.{learned}",
                "there is no such objective",
                f"use one of {', '.join(objectives)}",
            )
    for name, objective in objectives.items():
        if isinstance(objective, RegressionObjective) and objective.baseline_by:
            _require(
                isinstance(features.get(objective.baseline_by), IdFeature),
                f"objectives.{name}.baseline_by",
                f"`{objective.baseline_by}` is no feature of kind id",
                "name one, such as a duration in quantiles",
            )
        learned_somewhere = any(name in scene.weights for scene in scenes.values())
        _require(
            learned_somewhere, f"objectives.{name}", "no scene learns it", "give it a weight in a scene, or delete it"
        )
