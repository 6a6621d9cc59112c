"""Sample building end to end on a small, messy log: all of it counted, and samples recomputed from the raw rows."""

import hashlib
import json
import math
import random
import shutil
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import polars as pl
import pytest

from pipeline.errors import StrataError
from pipeline.manifest import Manifest, load_manifest
from pipeline.raw.simulation.config import LogFormat, SimulationConfig
from pipeline.raw.simulation.simulate import simulate_logs
from pipeline.samples.build import build_samples
from pipeline.samples.hashing import fnv1a
from pipeline.spec_file import load_spec

SHORT_VIDEO = Path(__file__).parents[2] / "feature_specs" / "short_video.yaml"
ZONE = "Asia/Shanghai"  # its days begin at 16:00 UTC
MESSY = SimulationConfig(
    users=200, videos=100, new_videos=5, days=5, impressions=4000, late_rate=0.05, duplicate_rate=0.05,
    malformed_rate=0.05, disorder=0.2,
)  # fmt: skip
HOUR = 3600 * 1000
Row = dict[str, Any]


@dataclass(frozen=True)
class Built:
    raw: Path
    store: Path
    manifest: Manifest


@pytest.fixture(scope="module")
def spec_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The short-video spec in another time zone, with a shorter window for the counters."""
    path = tmp_path_factory.mktemp("spec") / "spec.yaml"
    text = SHORT_VIDEO.read_text().replace("timezone: UTC", f"timezone: {ZONE}")
    path.write_text(text.replace("days: [7]", "days: [2]").replace("_7d", "_2d"))
    return path


@pytest.fixture(scope="module")
def built(spec_path: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Built]:
    """The same log in three formats, and its samples."""
    found = {}
    formats: list[tuple[LogFormat, bool]] = [("parquet", False), ("csv", False), ("jsonl", True)]
    for format_, gzip in formats:
        folder = tmp_path_factory.mktemp(format_)
        simulate_logs(MESSY.model_copy(update={"format": format_, "gzip": gzip}), load_spec(spec_path), folder / "raw")
        manifest = build_samples(spec_path, folder / "raw", folder / "samples")
        found[format_] = Built(folder / "raw", folder / "samples", manifest)
    return found


@pytest.fixture(scope="module")
def samples(built: dict[str, Built]) -> pl.DataFrame:
    return pl.read_parquet(built["parquet"].store / "split=*" / "*" / "*.parquet", hive_partitioning=True)


@pytest.mark.parametrize("format_", ["parquet", "csv", "jsonl"])
def test_the_manifest_counts_what_the_simulator_did_to_the_log(built: dict[str, Built], format_: str) -> None:
    done = json.loads((built[format_].raw / "truth" / "simulation.json").read_text())["tables"]
    counts = built[format_].manifest.raw
    assert counts.keys() == done.keys()
    for name, count in counts.items():
        assert (count.kept, count.duplicates, sum(count.rejected.values())) == (
            done[name]["rows"], done[name]["duplicated"], done[name]["malformed"],
        )  # fmt: skip
        assert count.read == count.kept + count.duplicates + sum(count.rejected.values())
        stored = built[format_].store / "rejected" / f"{name}.parquet"
        assert stored.exists() == bool(count.rejected)
        if count.rejected:
            assert Counter(pl.read_parquet(stored)["reason"]) == count.rejected
    for name, events in built[format_].manifest.events.items():
        assert events.attributed + events.without_impression + events.outside_window == counts[name].kept
        assert events.attributed > 0


def test_the_samples_do_not_depend_on_the_format_of_the_log(built: dict[str, Built]) -> None:
    parquet = built["parquet"].manifest
    for other in (built["csv"].manifest, built["jsonl"].manifest):
        assert other.files == parquet.files  # with their checksums
        assert other.learned == parquet.learned
        assert other.labels == parquet.labels


def test_building_again_gives_the_same_bytes(spec_path: Path, built: dict[str, Built], tmp_path: Path) -> None:
    again = build_samples(spec_path, built["parquet"].raw, tmp_path / "samples")
    assert again.model_copy(update={"created": built["parquet"].manifest.created}) == built["parquet"].manifest


def test_the_files_are_those_of_the_manifest(built: dict[str, Built]) -> None:
    store, manifest = built["parquet"].store, built["parquet"].manifest
    assert load_manifest(store) == manifest
    assert {str(path.relative_to(store)) for path in store.glob("split=*/**/*.parquet")} == {
        file.path for file in manifest.files
    }
    for file in manifest.files:
        content = (store / file.path).read_bytes()
        assert file.path.startswith(f"split={file.split}/date={file.date}/part-")
        assert (len(content), hashlib.sha256(content).hexdigest()) == (file.bytes, file.sha256)
        rows = pl.read_parquet(store / file.path, hive_partitioning=False)
        assert rows.height == file.rows
        assert rows["time_ms"].is_sorted()
    for name, vocabulary in manifest.learned.vocabularies.items():
        content = (store / vocabulary.path).read_bytes()
        assert vocabulary.path == f"vocabularies/{name}.parquet"
        assert hashlib.sha256(content).hexdigest() == vocabulary.sha256
    assert sum(file.rows for file in manifest.files) == manifest.raw["impression"].kept


def test_the_last_days_are_for_validation_and_test(built: dict[str, Built]) -> None:
    manifest = built["parquet"].manifest
    assert manifest.days("train") == ["2026-03-01", "2026-03-02", "2026-03-03"]
    assert (manifest.days("valid"), manifest.days("test")) == (["2026-03-04"], ["2026-03-05"])


def test_the_columns_of_the_store(built: dict[str, Built]) -> None:
    manifest = built["parquet"].manifest
    spec = manifest.spec
    expected = {
        "sample_id": pl.Int64, "user_id": pl.Int64, "time_ms": pl.Int64, "sample_weight": pl.Float32,
        **{f"scene_{scene}": pl.Boolean for scene in spec.scenes},
        **{f"label_{objective}": pl.Float32 for objective in spec.objectives},
        **{f"mask_{objective}": pl.Boolean for objective in spec.objectives},
        **{
            f"feature_{name}": {"id": pl.Int32, "dense": pl.Float32}.get(feature.kind, pl.List(pl.Int32))
            for name, feature in spec.features.items()
        },
    }  # fmt: skip
    for file in manifest.files:
        assert dict(pl.read_parquet_schema(built["parquet"].store / file.path)) == expected


def test_no_feature_is_missing_or_outside_its_table(built: dict[str, Built], samples: pl.DataFrame) -> None:
    learned, spec = built["parquet"].manifest.learned, built["parquet"].manifest.spec
    for name, sparse in spec.sparse_features.items():
        column = samples[f"feature_{name}"]
        assert column.null_count() == 0
        index = column if sparse.kind == "id" else column.explode().drop_nulls()
        assert 0 <= index.min() < index.max() < learned.table_rows[sparse.table]  # type: ignore[operator]
    for name in spec.dense_features:
        assert samples[f"feature_{name}"].is_finite().all()
        train = samples.filter(split="train")[f"feature_{name}"].cast(pl.Float64)
        assert abs(train.mean()) < 0.6  # type: ignore[arg-type]  # 0 but for those missing, which are at the mean


def test_label_statistics_are_those_of_the_stored_labels(built: dict[str, Built], samples: pl.DataFrame) -> None:
    scenes = {"stay": "discover", "dwell": "discover", "click": "discover", "play_time": "player", "like": "player"}
    for name, scene in scenes.items():
        for split, found in built["parquet"].manifest.labels[name].items():
            labels = samples.filter(pl.col(f"scene_{scene}"), pl.col(f"mask_{name}"), split=split)[f"label_{name}"]
            assert (found.rows, found.min, found.max) == (labels.len(), labels.min(), labels.max())
            assert found.mean == pytest.approx(labels.cast(pl.Float64).mean())
            assert labels.null_count() == 0


# ------------------------------------------------------------------- samples recomputed from the raw rows


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


def decoded(built: Built, row: Row) -> Row:
    """A stored sample with the values that its indexes and normalised numbers stand for."""
    learned, spec = built.manifest.learned, built.manifest.spec
    found: Row = {name: value for name, value in row.items() if name.startswith(("sample_id", "scene", "label"))}
    for name, feature in spec.features.items():
        value = row[f"feature_{name}"]
        if feature.kind == "dense":
            found[name] = value * learned.normalisers[name].std + learned.normalisers[name].mean
        elif feature.table in learned.vocabularies:
            vocabulary = pl.read_parquet(built.store / learned.vocabularies[feature.table].path)
            of_index = dict(vocabulary.select("index", "value").iter_rows())
            found[name] = of_index.get(value) if feature.kind == "id" else [of_index.get(index) for index in value]
    return found


def test_random_samples_recomputed_from_the_raw_logs(built: dict[str, Built], samples: pl.DataFrame) -> None:
    log = PlainLog(built["parquet"].raw)
    known: defaultdict[str, set[Any]] = defaultdict(set)  # values that the training split has often enough
    for name, vocabulary in built["parquet"].manifest.learned.vocabularies.items():
        known[name] = set(pl.read_parquet(built["parquet"].store / vocabulary.path)["value"])
    tables = {"video_id": "video", "clicked_videos": "video", "liked_videos": "video", "author_id": "author",
              "tags": "tag", "city": "city", "hour": "hour"}  # fmt: skip
    chosen = random.Random(0).sample(sorted(log.shown), 50)
    rows = samples.filter(pl.col("sample_id").is_in(chosen)).to_dicts()
    assert len(rows) == 50
    non_empty: Counter[str] = Counter()
    for row in rows:
        expected = recomputed(log, log.shown[row["sample_id"]])
        found = decoded(built["parquet"], row)
        for name, value in expected.items():
            if name in tables:
                values = value if isinstance(value, list) else [value]
                seen = [one if one in known[tables[name]] else None for one in values]
                assert found[name] == (seen if isinstance(value, list) else seen[0]), name
            elif name in built["parquet"].manifest.spec.dense_features:
                missing = built["parquet"].manifest.learned.normalisers[name].mean
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


def test_vocabularies_and_quantiles_are_those_of_the_training_days(built: dict[str, Built]) -> None:
    log, learned = PlainLog(built["parquet"].raw), built["parquet"].manifest.learned
    train = [row for row in log.shown.values() if local_day(row["time_ms"]) <= date(2026, 3, 3)]
    counts = Counter(row["video_id"] for row in train)
    expected = sorted(((-n, video) for video, n in counts.items() if n >= 2))
    vocabulary = pl.read_parquet(built["parquet"].store / learned.vocabularies["video"].path)
    assert vocabulary.rows() == [(video, i, -n) for i, (n, video) in enumerate(expected, start=1)]
    assert learned.table_rows["video"] == len(expected) + 1
    durations = [log.videos[row["video_id"]]["duration_ms"] for row in train]
    quantiles = np.unique(np.quantile(durations, np.arange(1, 16) / 16))
    assert learned.boundaries["duration"] == pytest.approx(quantiles)


# --------------------------------------------------------------------------------------- when it fails


def refusal(spec: Path, raw: Path, out: Path) -> str:
    """The error of a build, of which nothing is left behind."""
    before = set(out.parent.iterdir())
    with pytest.raises(StrataError) as error:
        build_samples(spec, raw, out)
    assert set(out.parent.iterdir()) == before
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_label_that_is_always_0_is_refused(spec_path: Path, built: dict[str, Built], tmp_path: Path) -> None:
    spec = tmp_path / "spec.yaml"
    spec.write_text(spec_path.read_text().replace("label: like}", "label: like and not like}"))
    message = refusal(spec, built["parquet"].raw, tmp_path / "out")
    assert message.startswith(f"{spec}: objectives.like.label is always 0 in the training split (")


def test_no_impression_in_any_scene_is_refused(spec_path: Path, built: dict[str, Built], tmp_path: Path) -> None:
    spec = tmp_path / "spec.yaml"
    text = spec_path.read_text().replace("where: page = 'discover'\n", "where: page = 'd'\n")
    spec.write_text(text.replace("where: page = 'player'\n", "where: page = 'p'\n"))
    assert refusal(spec, built["parquet"].raw, tmp_path / "out").startswith(f"{spec}: scenes: none of the impressions")


def test_too_few_days_to_split_are_refused(spec_path: Path, built: dict[str, Built], tmp_path: Path) -> None:
    spec = tmp_path / "spec.yaml"
    spec.write_text(spec_path.read_text().replace("valid_days: 1, test_days: 1", "valid_days: 3, test_days: 2"))
    raw = built["parquet"].raw
    expected = f"{raw}: has impressions on 5 days, but validation and test alone take 5; add earlier days, or lower"
    assert refusal(spec, raw, tmp_path / "out").startswith(expected)


def test_a_truncated_file_is_refused(spec_path: Path, built: dict[str, Built], tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    shutil.copytree(built["parquet"].raw, raw)
    broken = raw / "like" / "2026-03-03-000.parquet"
    broken.write_bytes(broken.read_bytes()[:-100])
    assert refusal(spec_path, raw, tmp_path / "out").startswith(f"{broken}: cannot be read (")


def test_a_folder_without_the_log_is_refused(spec_path: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    message = refusal(spec_path, tmp_path / "empty", tmp_path / "out")
    assert message.startswith(f"{tmp_path / 'empty' / 'impression'}: no files of the table `impression` (")


def test_a_store_is_never_written_over(spec_path: Path, built: dict[str, Built], tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "precious").write_text("kept")
    message = refusal(spec_path, built["parquet"].raw, out)
    assert message == f"{out}: already exists and is not empty; choose another --out, or delete it"
    assert (out / "precious").read_text() == "kept"
    assert [path.name for path in out.iterdir()] == ["precious"]
