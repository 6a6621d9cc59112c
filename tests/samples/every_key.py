"""A spec with every kind of key, a log for it, and a change of each of its values."""

import copy
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl

from pipeline.spec.spec import Spec

DAY = 86_400_000


# Every kind of table, feature, counter and objective once, and each optional key somewhere.
SPEC = """\
name: every_key
logs:
  timezone: America/New_York
  impression:
    files: shown.parquet
    columns: {request: int64, slot: int8, user: int64, video: int64, at: int64, then: int64, price: float64,
              tags: string}
    checks: ["slot >= 0"]
    id: [request, slot]
    user: user
    video: video
    time: at
  events:
    watch:
      files: watch.parquet
      columns: {request: int64, slot: int8, user: int64, at: int64, then: int64, ms: int64}
      time: at
      within_s: 3600
      values: {ms: sum}
  profiles:
    account:
      files: account.parquet
      key: user
      columns: {user: int64, since: int64, begin: int64, until: int64, end: int64, age: int16}
      valid_from: since
      valid_to: until
    channel:
      files: channel.parquet
      key: video
      columns: {video: int64, channel: int64, open: int64, close: int64}
split: {valid_from: 2026-03-07, test_from: 2026-03-08}
columns: {hour: extract(hour from impression_time)}
counters:
  days: [1, 2]
  by: {user: user, channel: channel}
  measures:
    shown: {where: price > 0}
    watch_ms: {event: watch, mean: ms}
tables:
  user: {encode: hash, rows: 50, dim: 4}
  video: {encode: vocab, dim: 4}
  tag: {encode: vocab, dim: 4}
  hour: {encode: quantiles, buckets: 3, dim: 4}
  price: {encode: buckets, boundaries: [1, 5], dim: 4}
features:
  user: {kind: id, table: user}
  video: {kind: id, table: video}
  tags: {kind: id_list, table: tag}
  seen: {kind: history, table: video, of: video, where: price > 0, last: 3}
  hour: {kind: id, table: hour}
  price: {kind: id, table: price}
  age: {kind: dense}
  shown: {kind: dense, source: channel_shown_2d + user_shown_1d, normalise: [log1p]}
objectives:
  watch: {kind: binary, label: watch}
  time: {kind: regression, label: ms / 1000.0, where: watch, baseline_by: hour}
scenes:
  cheap: {where: price < 5, weights: {watch: 1, time: 1}}
  other: {where: price >= 5, weights: {watch: 1}}
filter: price < 9
downsample: [{where: watch, keep: 0.9}]
sample_weight: case when watch then 1.5 else 1.0 end
"""


GONE = object()


# What is changed together with a value, or instead of the usual change of a value of its type.
EDITS: dict[str, dict[str, Any]] = {
    "name": {"name": "another"},
    "logs.timezone": {"logs.timezone": "Asia/Tokyo"},
    "logs.day": {"logs.day": "local_day"},
    "logs.impression.files": {"logs.impression.files": "show?.parquet"},
    "logs.impression.checks": {"logs.impression.checks": []},
    "logs.impression.id": {"logs.impression.id": ["slot", "request"]},
    "logs.impression.user": {"logs.impression.user": "request"},
    "logs.impression.video": {"logs.impression.video": "request"},
    "logs.impression.time": {"logs.impression.time": "then"},
    "logs.events.watch.files": {"logs.events.watch.files": "watch.*"},
    "logs.events.watch.checks": {"logs.events.watch.checks": ["ms >= 10"]},
    "logs.events.watch.time": {"logs.events.watch.time": "then"},
    "logs.events.watch.values.ms": {"logs.events.watch.values.ms": "max"},
    "logs.profiles.account.files": {"logs.profiles.account.files": "account.*"},
    "logs.profiles.account.checks": {"logs.profiles.account.checks": ["age >= 25"]},
    "logs.profiles.account.key": {
        "logs.profiles.account.key": "video",
        "logs.profiles.account.columns.user": GONE,
        "logs.profiles.account.columns.video": "int64",
    },
    "logs.profiles.account.valid_from": {"logs.profiles.account.valid_from": "begin"},
    "logs.profiles.account.valid_to": {"logs.profiles.account.valid_to": "end"},
    "logs.profiles.channel.files": {"logs.profiles.channel.files": "channel.*"},
    "logs.profiles.channel.checks": {"logs.profiles.channel.checks": ["channel > 0"]},
    "logs.profiles.channel.key": {
        "logs.profiles.channel.key": "request",
        "logs.profiles.channel.columns.video": GONE,
        "logs.profiles.channel.columns.request": "int64",
    },
    "logs.profiles.channel.valid_from": {"logs.profiles.channel.valid_from": "open"},
    "logs.profiles.channel.valid_to": {
        "logs.profiles.channel.valid_from": "open",
        "logs.profiles.channel.valid_to": "close",
    },
    "split.valid_from": {"split.valid_from": "2026-03-06"},
    "split.test_from": {"split.test_from": "2026-03-09"},
    "counters.days": {"counters.days": [1, 2, 3]},
    "counters.by.user": {"counters.by.user": "video"},
    "counters.by.channel": {"counters.by.channel": "video"},
    "counters.measures.shown.event": {"counters.measures.shown.event": "watch"},
    "counters.measures.shown.mean": {"counters.measures.shown.mean": "price"},
    "counters.measures.watch_ms.event": {
        "counters.measures.watch_ms.event": "impression",
        "counters.measures.watch_ms.mean": "price",
    },
    "counters.measures.watch_ms.where": {"counters.measures.watch_ms.where": "ms > 50"},
    "tables.user.encode": {"tables.user": {"encode": "vocab", "dim": 4}},
    "tables.video.encode": {"tables.video": {"encode": "hash", "rows": 30, "dim": 4}},
    "tables.tag.encode": {"tables.tag": {"encode": "hash", "rows": 30, "dim": 4}},
    "tables.hour.encode": {"tables.hour": {"encode": "buckets", "boundaries": [6, 12], "dim": 4}},
    "tables.price.encode": {"tables.price": {"encode": "quantiles", "buckets": 4, "dim": 4}},
    "tables.price.boundaries": {"tables.price.boundaries": [1, 6]},
    "features.user.kind": {"features.user": {"kind": "history", "table": "user", "of": "user", "last": 2}},
    "features.user.table": {"features.user.table": "video", "features.seen.table": "user"},
    "features.video.kind": {"features.video": {"kind": "history", "table": "video", "of": "video", "last": 2}},
    "features.video.table": {"features.video.table": "user"},
    "features.tags.kind": {"features.tags": {"kind": "history", "table": "tag", "of": "tags", "last": 2}},
    "features.tags.table": {
        "features.tags.table": "label",
        "tables.tag": GONE,
        "tables.label": {"encode": "vocab", "dim": 4},
    },
    "features.tags.separator": {"features.tags.separator": "a"},
    "features.seen.kind": {"features.seen": {"kind": "id", "table": "video", "source": "video"}},
    "features.seen.table": {"features.seen.table": "user"},
    "features.seen.event": {"features.seen.event": "watch"},
    "features.hour.table": {
        "features.hour.table": "clock",
        "tables.hour": GONE,
        "tables.clock": {"encode": "quantiles", "buckets": 3, "dim": 4},
    },
    "features.price.table": {
        "features.price.table": "cost",
        "tables.price": GONE,
        "tables.cost": {"encode": "buckets", "boundaries": [1, 5], "dim": 4},
    },
    "features.age.kind": {"features.age": {"kind": "id", "table": "user", "source": "age"}},
    "features.age.normalise": {"features.age.normalise": []},
    "features.shown.kind": {"features.shown": {"kind": "id", "table": "user", "source": "channel_shown_2d"}},
    "features.shown.normalise": {"features.shown.normalise": ["log1p", "standardise"]},
    "objectives.watch.kind": {"objectives.watch.kind": "regression"},
    "objectives.watch.where": {"objectives.watch.where": "slot < 2"},
    "objectives.time.kind": {"objectives.time": {"kind": "binary", "label": "ms > 100", "where": "watch"}},
    "objectives.time.unit": {"objectives.time.unit": "s"},
    "objectives.time.transform": {"objectives.time.transform": "log1p"},
    "objectives.time.loss": {"objectives.time.loss": "huber"},
    "objectives.time.baseline_by": {"objectives.time.baseline_by": "user"},
    "downsample": {"downsample": [{"where": "watch", "keep": 0.8}]},
}


# Columns of several tables, which have one type.
JOINED = {
    "request": ("impression", "events.watch"),
    "slot": ("impression", "events.watch"),
    "user": ("impression", "events.watch", "profiles.account"),
    "video": ("impression", "profiles.channel"),
}


OTHER_TYPE = {"int64": "int32", "int16": "int32", "int8": "int16", "float64": "float32"}


# Values that a spec with all the others cannot change.
FIXED = {
    "logs.impression.outcomes": "event logs have none",
    "logs.impression.columns.tags": "an id_list is text",
    "features.hour.kind": "only an id has quantiles",
    "features.price.kind": "only an id has buckets",
    **{f"logs.impression.columns.{name}": "a time in ms is an int64" for name in ("at", "then")},
    **{f"logs.events.watch.columns.{name}": "a time in ms is an int64" for name in ("at", "then")},
    **{f"logs.profiles.account.columns.{name}": "as above" for name in ("since", "begin", "until", "end")},
    **{f"logs.profiles.channel.columns.{name}": "as above" for name in ("open", "close")},
}


def leaves(value: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, inner in value.items():
        if (isinstance(inner, dict) and inner and key != "values") or (key == "values" and inner):
            yield from leaves(inner, f"{prefix}{key}.")
        else:
            yield prefix + key, inner


def edit_of(key: str, value: Any) -> dict[str, Any]:
    """What to change so that the value at a key is another one."""
    if key in EDITS:
        return EDITS[key]
    names = key.split(".")
    if "columns" in names[:-1] and names[0] == "logs":
        tables = JOINED.get(names[-1], (".".join(names[1:-2]),))
        return {f"logs.{table}.columns.{names[-1]}": OTHER_TYPE[value] for table in tables}
    if names[-1] == "pooling":
        return {key: "sum"}
    if isinstance(value, int | float):
        return {key: value + 1}
    if value is None:
        assert names[-1] == "source", key
        return {key: names[-2]}
    assert (
        names[-1] in ("where", "label", "of", "source", "mean", "filter", "sample_weight") or names[0] == "columns"
    ), key
    return {key: f"({value})"}  # the same, but written in another way


def edited(spec: Spec, edit: dict[str, Any]) -> dict[str, Any]:
    content: dict[str, Any] = copy.deepcopy(spec.model_dump(mode="json", exclude_none=True))
    for key, value in edit.items():
        *path, last = key.split(".")
        place = content
        for name in path:
            place = place[name]
        if value is GONE:
            del place[last]
        else:
            place[last] = value
    return content


def write_log(raw: Path) -> None:
    """Five days, 5 to 9 March 2026 in New York."""
    rng = random.Random(3)
    begin = 1_772_686_800_000
    raw.mkdir()
    shown = [
        {
            "request": number,
            "slot": rng.randrange(3),
            "user": rng.randrange(6),
            "video": rng.randrange(9),
            "at": begin + number * 5 * DAY // 160,
            "then": begin + number * 5 * DAY // 160 + 60_000,
            "price": rng.choice([0.5, 3.0, 7.0, 8.5]),
            "tags": rng.choice(["a,b", "b", "c,a", ""]),
        }
        for number in range(158)
    ]
    watched = [
        {key: row[key] for key in ("request", "slot", "user")}
        | {"at": row["at"] + 70_000, "then": row["at"] + 80_000, "ms": rng.randrange(5, 300)}
        for row in rng.choices(shown, k=110)
    ]
    account = [
        {
            "user": user,
            "video": user,
            "since": begin,
            "begin": begin + DAY,
            "until": begin + 9 * DAY,
            "end": begin + 3 * DAY,
            "age": 20 + user,
        }
        for user in range(6)
    ]
    channel = [
        {"video": video, "request": video, "channel": video % 3, "open": begin + DAY, "close": begin + 3 * DAY}
        for video in range(9)
    ]
    for name, rows in {"shown": shown, "watch": watched, "account": account, "channel": channel}.items():
        pl.DataFrame(rows).write_parquet(raw / f"{name}.parquet")
