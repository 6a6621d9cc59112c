"""A log with everything that a spec can declare, its samples, and changed copies of stores."""

import hashlib
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from pipeline.manifest import Manifest, load_manifest
from pipeline.samples.build import build_samples

HOUR = 3_600_000
DAY = 24 * HOUR

SPEC = """\
name: everything
logs:
  timezone: America/New_York
  impression:
    files: shown
    columns: {session: string, slot: int8, user: string, video: int64, at: int64, price: float64, tags: string}
    checks: ["slot >= 0"]
    id: [session, slot]
    user: user
    video: video
    time: at
  events:
    watch:
      files: watch.jsonl
      columns: {session: string, slot: int8, user: string, at: int64, ms: int16, speed: float32, place: string,
                begin: int64, low: int64}
      time: at
      within_s: 86400
      values: {ms: sum, speed: max, place: last, begin: first, low: min}
    tap:
      files: tap.csv
      columns: {session: string, slot: int8, user: string, tapped: int64}
      time: tapped
      within_s: 3600
  profiles:
    account:
      files: account.parquet
      key: user
      columns: {user: string, since: int64, until: int64, tier: string, age: int16}
      valid_from: since
      valid_to: until
    channel:
      files: channel.csv
      key: video
      columns: {video: int64, channel: string, length: float64}
split: {valid_from: 2026-03-10, test_from: 2026-03-11}
columns:
  hour: extract(hour from impression_time)
  band: concat(tier, '_', channel)
  cross: concat(band, '_', cast(hour > 12 as int))
counters:
  days: [1, 3]
  by: {user: user, channel: channel, cross: cross}
  measures:
    shown: {where: price > 0}
    taps: {event: tap}
    watch_s: {event: watch, mean: ms / 1000.0 + length, where: place = 'home'}
tables:
  user: {encode: hash, rows: 50, dim: 4}
  price: {encode: hash, rows: 1000, dim: 4}
  video: {encode: vocab, min_count: 2, dim: 4}
  tag: {encode: vocab, min_count: 30, dim: 4}
  tag_hash: {encode: hash, rows: 40, dim: 4}
  place: {encode: vocab, dim: 4}
  tier: {encode: vocab, dim: 4}
  length: {encode: quantiles, buckets: 5, dim: 4}
  bucket: {encode: buckets, boundaries: [-1, 0.25, 12], dim: 4}
features:
  user: {kind: id, table: user}
  price_id: {kind: id, table: price, source: price}
  video: {kind: id, table: video}
  tags: {kind: id_list, table: tag, max_length: 2}
  tag_hash: {kind: id_list, table: tag_hash, source: tags}
  places: {kind: history, table: place, of: "concat(place, '_', channel)", event: watch, where: ms > 50, last: 3}
  seen: {kind: history, table: video, of: video, last: 4}
  seen_by_price: {kind: history, table: price, of: price, where: price > 0, last: 2}
  tier: {kind: id, table: tier}
  length: {kind: id, table: length}
  bucket: {kind: id, table: bucket, source: price}
  price: {kind: dense, normalise: [log1p, standardise]}
  age: {kind: dense, normalise: [log1p]}
  user_taps: {kind: dense, source: user_taps_1d}
  channel_rate: {kind: dense, source: (channel_taps_3d + 1) / (channel_shown_3d + 4)}
  cross_shown: {kind: dense, source: cross_shown_3d}
  user_watch_s: {kind: dense, source: user_watch_s_3d}
  channel_watch_s: {kind: dense, source: channel_watch_s_1d}
objectives:
  tap: {kind: binary, label: tap, where: slot < 3}
  again: {kind: binary, label: "begin > low", where: watch}
  watch: {kind: regression, label: ms / 1000.0, where: "place = 'home'"}
  speed: {kind: regression, label: speed}
scenes:
  cheap: {where: price < 10, weights: {tap: 1, watch: 1, again: 1}}
  other: {where: "price >= 10 or price is null", weights: {tap: 1, speed: 1}}
filter: price is null or price < 300
downsample:
  - {where: tap, keep: 0.9}
  - {where: video < 6, keep: 0.5}
sample_weight: case when watch then 1.5 else 1.0 end
"""


def write_everything(raw: Path) -> None:
    """700 impressions over eight days, one of 23 hours, with copies, ids that come again, and late events."""
    rng = random.Random(5)
    begin = 1_772_600_400_000  # 4 March 2026, midnight in New York
    raw.mkdir()
    shown: list[dict[str, Any]] = [
        {
            "session": f"s{rng.randrange(25)}",
            "slot": rng.randrange(4),
            "user": f"u{rng.randrange(8)}",
            "video": rng.randrange(12),
            "at": begin + rng.randrange(8 * 24 * 6) * HOUR // 6,
            "price": rng.choice([None, -3.5, 0.25, 12.0, 7 * rng.random(), 400.0]),
            "tags": rng.choice([None, "", "a", "b, a,,c", " c ,d"]),
        }
        for _ in range(700)
    ]
    for user in (1, 3, 5):  # at the very end of a profile's validity
        shown[user] |= {"user": f"u{user}", "at": begin + 2 * DAY, "price": 1.0}
    shown[7] |= {"at": begin + 4 * DAY - HOUR // 2, "price": 1.0}  # half an hour before the day of 23 hours
    keys = [{key: row[key] for key in ("session", "slot", "user")} for row in shown]
    watch: list[dict[str, Any]] = [
        keys[i]
        | {
            "at": shown[i]["at"] + rng.randrange(-1, 30) * HOUR,
            "ms": rng.randrange(-100, 30_000),
            "speed": rng.choice([None, 0.5, 1.25]),
            "place": rng.choice(["home", "away", None]),
            "begin": rng.randrange(9),
            "low": rng.choice([None, 1, 5]),
        }
        for i in rng.choices(range(700), k=900)
    ]
    watch.append(keys[7] | {"at": shown[7]["at"] + DAY, "ms": 9, "speed": 2.0, "place": "home", "begin": 1, "low": 0})
    taps = rng.choices(range(700), k=400)
    tap = [keys[i] | {"tapped": shown[i]["at"] + rng.randrange(0, 4200, 600) * 1000} for i in taps]
    account = [
        {"user": f"u{user}", "since": since, "until": since + DAY if user % 2 else None, "tier": tier, "age": user + 20}
        for user in range(6)
        for since, tier in ((begin + DAY, "new"), (begin + 3 * DAY + user * HOUR, "old"), (begin + 6 * DAY, "gold"))
    ]
    channel = [{"video": video, "channel": f"c{video % 3}", "length": video * 1.5} for video in range(10)]
    (raw / "shown").mkdir()
    pl.DataFrame(shown[:350] + shown[:30]).write_parquet(raw / "shown" / "1.parquet")
    pl.DataFrame(shown[350:] + shown[:10]).write_parquet(raw / "shown" / "2.parquet")
    pl.DataFrame(watch + watch[:40]).write_ndjson(raw / "watch.jsonl")
    pl.DataFrame(tap).write_csv(raw / "tap.csv")
    pl.DataFrame(account).write_parquet(raw / "account.parquet")
    pl.DataFrame(channel).write_csv(raw / "channel.csv")


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the log in `raw` and the store in `samples`."""
    folder = tmp_path_factory.mktemp("everything")
    write_everything(folder / "raw")
    (folder / "spec.yaml").write_text(SPEC)
    build_samples(folder / "spec.yaml", folder / "raw", folder / "samples")
    return folder


@pytest.fixture
def rewritten(tmp_path: Path) -> Callable[..., Path]:
    """`rewritten(store, change)` is a copy of a store whose files hold what `change` made of them.

    A third argument changes the manifest likewise.
    """

    def rewrite(
        store: Path,
        change: Callable[[pl.DataFrame], pl.DataFrame],
        change_manifest: Callable[[Manifest], Manifest] = lambda manifest: manifest,
    ) -> Path:
        copy = tmp_path / "rewritten"
        shutil.copytree(store, copy, ignore=shutil.ignore_patterns(".work"))
        manifest, files = load_manifest(store), []
        for file in manifest.files:
            path = copy / file.path
            change(pl.read_parquet(path, hive_partitioning=False)).write_parquet(path)
            content = path.read_bytes()
            sha256 = hashlib.sha256(content).hexdigest()
            files.append(file.model_copy(update={"bytes": len(content), "sha256": sha256}))
        manifest = change_manifest(manifest.model_copy(update={"files": files}))
        (copy / "manifest.json").write_text(manifest.model_dump_json())
        return copy

    return rewrite
