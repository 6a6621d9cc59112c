"""Samples recomputed from the rows of a messy log, with none of the code that builds them."""

import math
import random
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterator
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import polars as pl
import pytest

from pipeline.manifest import Manifest
from pipeline.samples.hashing import fnv1a

ZONE = "Asia/Shanghai"  # of the fixtures' spec
HOUR = 3600 * 1000
Row = dict[str, Any]


class PlainLog:
    """The log as lists of dictionaries, read and cleaned without any of the product's code."""

    def __init__(self, raw: Path) -> None:
        self.shown = {row["impression_id"]: row for row in self._rows(raw / "impression")}
        self.events = {name: list(self._rows(raw / name)) for name in ("stay", "click", "play", "like")}
        self.users = {row["user_id"]: row for row in self._rows(raw / "user")}
        self.videos = {row["video_id"]: row for row in self._rows(raw / "video")}
        within = {"stay": HOUR, "click": HOUR, "play": 24 * HOUR, "like": 24 * HOUR}
        self.of: dict[str, defaultdict[int, list[Row]]] = {name: defaultdict(list) for name in within}
        for name, rows in self.events.items():
            for row in rows:
                shown = self.shown.get(row["impression_id"])
                if shown and 0 <= row["time_ms"] - shown["time_ms"] <= within[name]:
                    self.of[name][row["impression_id"]].append(row)

    def _rows(self, folder: Path) -> Iterator[Row]:
        seen = set()
        for path in sorted(folder.iterdir()):
            for row in pl.read_parquet(path).to_dicts():
                numbers = [value for value in row.values() if isinstance(value, int)]
                if (
                    next(iter(row.values())) is not None
                    and min(numbers) >= 0
                    and (key := tuple(row.values())) not in seen
                ):
                    seen.add(key)
                    yield row

    def happened(self, event: str) -> Iterator[tuple[Row, Row]]:
        """Every attributed event with its impression."""
        for impression_id, rows in self.of[event].items():
            for row in rows:
                yield row, self.shown[impression_id]


def local_day(time_ms: int) -> date:
    return datetime.fromtimestamp(time_ms / 1000, ZoneInfo(ZONE)).date()


def history(log: PlainLog, event: str, sample: Row) -> list[int]:
    past = [
        (row["time_ms"], shown["video_id"])
        for row, shown in log.happened(event)
        if shown["user_id"] == sample["user_id"] and row["time_ms"] < sample["time_ms"]
    ]
    return [video for _, video in sorted(past)][-20:]


def count(log: PlainLog, event: str, key: str, sample: Row) -> list[Row]:
    """The events of the two days before the sample's with the same user, video or author."""
    day = local_day(sample["time_ms"])
    if event == "impression":
        rows = ((row, row) for row in log.shown.values() if row["page"] == "discover")
    else:
        rows = log.happened(event)

    def value(row: Row) -> int:
        return log.videos[row["video_id"]]["author_id"] if key == "author_id" else row[key]

    return [
        row
        for row, shown in rows
        if value(shown) == value(sample) and day - timedelta(2) <= local_day(row["time_ms"]) < day
    ]


def recomputed(log: PlainLog, sample: Row) -> Row:
    """Labels and features of an impression, before encoding and normalising."""
    events = {name: of_kind.get(sample["impression_id"], []) for name, of_kind in log.of.items()}
    video = log.videos[sample["video_id"]]
    counts = {
        (key, event): len(count(log, event, key, sample))
        for key in ("user_id", "video_id", "author_id")
        for event in ("impression", "click", "play", "like")
    }
    play_s = [row["play_ms"] / 1000 for row in count(log, "play", "video_id", sample)]
    return {
        "sample_id": sample["impression_id"],
        "scene_discover": sample["page"] == "discover",
        "scene_player": sample["page"] == "player",
        "label_stay": bool(events["stay"]),
        "label_click": bool(events["click"]),
        "label_like": bool(events["like"]),
        "label_dwell": max(row["dwell_ms"] for row in events["stay"]) / 1000 if events["stay"] else None,
        "label_play_time": sum(row["play_ms"] for row in events["play"]) / 1000 if events["play"] else None,
        "video_id": sample["video_id"],
        "author_id": video["author_id"],
        "tags": video["tags"].split(",")[:4],
        "city": log.users[sample["user_id"]]["city"],
        "hour": datetime.fromtimestamp(sample["time_ms"] / 1000, ZoneInfo(ZONE)).hour,
        "clicked_videos": history(log, "click", sample),
        "liked_videos": history(log, "like", sample),
        "log_duration": math.log1p(video["duration_ms"] / 1000),
        "user_shown": math.log1p(counts["user_id", "impression"]),
        "user_click_rate": (counts["user_id", "click"] + 2) / (counts["user_id", "impression"] + 10),
        "video_like_rate": (counts["video_id", "like"] + 1) / (counts["video_id", "play"] + 10),
        "author_click_rate": (counts["author_id", "click"] + 2) / (counts["author_id", "impression"] + 10),
        "video_play_s": math.log1p(statistics.mean(play_s)) if play_s else None,
        "age_days": math.copysign(
            math.log1p(abs(sample["time_ms"] - video["upload_ms"]) / 86_400_000), sample["time_ms"] - video["upload_ms"]
        ),
    }


def decoded(store: Path, manifest: Manifest, row: Row) -> Row:
    """A stored sample with the values that its indexes and normalised numbers stand for."""
    learned, spec = manifest.learned, manifest.spec
    found: Row = {name: value for name, value in row.items() if name.startswith(("sample_id", "scene", "label"))}
    for name, feature in spec.features.items():
        value = row[f"feature_{name}"]
        if feature.kind == "dense":
            found[name] = value * learned.normalisers[name].std + learned.normalisers[name].mean
        elif feature.table in learned.vocabularies:
            vocabulary = pl.read_parquet(store / learned.vocabularies[feature.table].path)
            of_index = dict(vocabulary.select("index", "value").iter_rows())
            found[name] = of_index.get(value) if feature.kind == "id" else [of_index.get(index) for index in value]
    return found


def test_random_samples_recomputed_from_the_raw_logs(
    messy_raw: Path, messy_store: Path, messy_manifest: Manifest, messy_samples: pl.DataFrame
) -> None:
    log = PlainLog(messy_raw)
    known: defaultdict[str, set[Any]] = defaultdict(set)  # values that the training split has often enough
    for name, vocabulary in messy_manifest.learned.vocabularies.items():
        known[name] = set(pl.read_parquet(messy_store / vocabulary.path)["value"])
    tables = {"video_id": "video", "clicked_videos": "video", "liked_videos": "video", "author_id": "author",
              "tags": "tag", "city": "city", "hour": "hour"}  # fmt: skip
    chosen = random.Random(0).sample(sorted(log.shown), 50)
    rows = messy_samples.filter(pl.col("sample_id").is_in(chosen)).to_dicts()
    assert len(rows) == 50
    non_empty: Counter[str] = Counter()
    for row in rows:
        expected = recomputed(log, log.shown[row["sample_id"]])
        found = decoded(messy_store, messy_manifest, row)
        for name, value in expected.items():
            if name in tables:
                values = value if isinstance(value, list) else [value]
                seen = [one if one in known[tables[name]] else None for one in values]
                assert found[name] == (seen if isinstance(value, list) else seen[0]), name
            elif name in messy_manifest.spec.dense_features:
                missing = messy_manifest.learned.normalisers[name].mean
                assert found[name] == pytest.approx(missing if value is None else value, rel=1e-4, abs=1e-5), name
            else:
                assert found[name] == (value if value is None else pytest.approx(float(value), rel=1e-6)), name
            non_empty[name] += bool(value)
        user_hash = int(fnv1a(pl.Series([row["user_id"]]))[0])
        assert row["feature_user_id"] == 1 + (user_hash ^ user_hash >> 32) % 19_999
        masks = [row[f"mask_{name}"] for name in ("stay", "dwell", "click", "play_time", "like")]
        stayed, played = expected["label_dwell"] is not None, expected["label_play_time"] is not None
        assert masks == [True, stayed, True, played, True]
    assert min(non_empty.values()) > 0  # else a name is never put to the test


def test_vocabularies_and_quantiles_are_those_of_the_training_days(
    messy_raw: Path, messy_store: Path, messy_manifest: Manifest
) -> None:
    log, learned = PlainLog(messy_raw), messy_manifest.learned
    train = [row for row in log.shown.values() if local_day(row["time_ms"]) <= date(2026, 3, 3)]
    counts = Counter(row["video_id"] for row in train)
    expected = sorted(((-n, video) for video, n in counts.items() if n >= 2))
    vocabulary = pl.read_parquet(messy_store / learned.vocabularies["video"].path)
    assert vocabulary.rows() == [(video, i, -n) for i, (n, video) in enumerate(expected, start=1)]
    assert learned.table_rows["video"] == len(expected) + 1
    durations = [log.videos[row["video_id"]]["duration_ms"] for row in train]
    quantiles = np.unique(np.quantile(durations, np.arange(1, 16) / 16))
    assert learned.boundaries["duration"] == pytest.approx(quantiles)
