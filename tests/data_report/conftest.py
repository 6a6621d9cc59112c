"""A small sample store, written by hand: five days, 1,200 rows a day, nothing wrong with it."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from pipeline.manifest import EventCounts, LabelStatistics, Learned, Manifest, RawCounts, SampleFile, SplitName
from pipeline.spec.parts import samples_fingerprint
from pipeline.spec.spec import Spec
from pipeline.statistics import DayStatistics, SceneStatistics, Statistics

SPLITS: dict[str, SplitName] = {
    "2026-03-01": "train",
    "2026-03-02": "train",
    "2026-03-03": "train",
    "2026-03-04": "valid",
    "2026-03-05": "test",
}
ROWS_PER_DAY = 1200
# A row per sample as the store has it, and its `date`.
Change = Callable[[pl.DataFrame], pl.DataFrame]
Build = Callable[..., tuple[Path, Manifest, Statistics]]


@pytest.fixture(scope="session")
def spec() -> Spec:
    """`feed` learns click and watch, `player` click."""
    columns = {"id": "int64", "user": "int64", "video": "int64", "ms": "int64", "tab": "int64", "clicked": "int64"}
    return Spec.model_validate(
        {
            "name": "tiny",
            "logs": {
                "impression": {
                    "files": "*.csv",
                    "columns": {**columns, "tags": "string", "price": "float64"},
                    "id": ["id"],
                    "user": "user",
                    "video": "video",
                    "time": "ms",
                    "outcomes": ["clicked"],
                }
            },
            "tables": {
                "user": {"encode": "hash", "rows": 101, "dim": 4},
                "video": {"encode": "vocab", "dim": 4},
                "tag": {"encode": "vocab", "dim": 4},
            },
            "features": {
                "user": {"kind": "id", "table": "user"},
                "video": {"kind": "id", "table": "video"},
                "tags": {"kind": "id_list", "table": "tag", "max_length": 3},
                "watched": {"kind": "history", "table": "video", "of": "video", "last": 2},
                "price": {"kind": "dense"},
            },
            "objectives": {
                "click": {"kind": "binary", "label": "clicked"},
                "watch": {"kind": "regression", "label": "clicked * 2", "where": "clicked = 1", "unit": "s"},
            },
            "scenes": {
                "feed": {"where": "tab = 0", "weights": {"click": 1.0, "watch": 1.0}},
                "player": {"where": "tab = 1", "weights": {"click": 1.0}},
            },
        }
    )


@pytest.fixture(scope="session")
def rows() -> pl.DataFrame:
    """Every feature is drawn apart from the labels and alike on all days; a fifth of the rows clicks."""
    random = np.random.default_rng(7)
    count = ROWS_PER_DAY * len(SPLITS)
    clicked = random.random(count) < 0.2
    lists = {
        name: [random.integers(1, 9, n).tolist() for n in random.integers(0, most + 1, count)]
        for name, most in (("tags", 3), ("watched", 2))
    }
    types = {
        "feature_user": pl.Int32,
        "feature_video": pl.Int32,
        "feature_tags": pl.List(pl.Int32),
        "feature_watched": pl.List(pl.Int32),
        "label_click": pl.Float32,
        "label_watch": pl.Float32,
        "feature_price": pl.Float32,
        "sample_weight": pl.Float32,
    }
    return pl.DataFrame(
        {
            "date": np.repeat(list(SPLITS), ROWS_PER_DAY),
            "sample_id": np.arange(count),
            "sample_weight": np.ones(count),
            "scene_feed": np.arange(count) % 2 == 0,
            "scene_player": np.arange(count) % 2 == 1,
            "label_click": clicked,
            "label_watch": random.exponential(5, count),
            "mask_click": np.ones(count, bool),
            "mask_watch": clicked,
            "feature_user": random.integers(1, 101, count),
            "feature_video": random.integers(1, 9, count),
            "feature_tags": lists["tags"],
            "feature_watched": lists["watched"],
            "feature_price": random.normal(size=count),
        }
    ).cast(types)  # type: ignore[arg-type]


@pytest.fixture
def build(spec: Spec, rows: pl.DataFrame, tmp_path: Path) -> Build:
    """Writes the clean rows, or what `change` makes of them; `distinct` is what the statistics say of the tables."""

    def build_store(change: Change = lambda rows: rows, **distinct: int) -> tuple[Path, Manifest, Statistics]:
        files, days = [], []
        for (date,), day in change(rows).partition_by("date", as_dict=True, maintain_order=True).items():
            path = f"split={SPLITS[date]}/date={date}/part-0000.parquet"
            (tmp_path / path).parent.mkdir(parents=True)
            day.drop("date").write_parquet(tmp_path / path)
            content = (tmp_path / path).read_bytes()
            described = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
            files.append(SampleFile(path=path, split=SPLITS[date], date=date, rows=day.height, **described))
            days.append(statistics_of(spec, date, day))
        statistics = Statistics(days=days, distinct={"user": 90, "video": 9, "tag": 9, **distinct})
        return tmp_path, manifest_of(spec, files), statistics

    return build_store


def statistics_of(spec: Spec, date: str, rows: pl.DataFrame) -> DayStatistics:
    """What sample building counts; an id of 0 is missing for users, and outside the vocabulary for the others."""
    scenes = {}
    for name, scene in spec.scenes.items():
        inside = rows.filter(pl.col(f"scene_{name}"))
        learned = {o: inside.filter(pl.col(f"mask_{o}"))[f"label_{o}"].cast(pl.Float64) for o in scene.weights}
        labels: dict[str, Any] = {
            o: LabelStatistics(rows=len(label), mean=label.mean(), min=label.min(), max=label.max())  # type: ignore[arg-type]
            for o, label in learned.items()
        }
        scenes[name] = SceneStatistics(rows=inside.height, labels=labels)
    lists = {name: rows[f"feature_{name}"] for name in ("tags", "watched")}
    ids = {name: column.explode().drop_nulls() for name, column in lists.items()} | {"video": rows["feature_video"]}
    return DayStatistics(
        date=date,
        split=SPLITS[date],
        rows=rows.height,
        scenes=scenes,
        missing={
            "user": int((rows["feature_user"] == 0).sum()),
            "video": 0,
            **{name: int((column.list.len() == 0).sum()) for name, column in lists.items()},
            "price": int((rows["feature_price"] == 0).sum()),
        },
        lengths={
            name: [int((column.list.len() == length).sum()) for length in range(column.list.len().max() + 1)]  # type: ignore[operator]
            for name, column in lists.items()
        },
        ids={name: len(values) for name, values in ids.items()},
        outside={name: int((values == 0).sum()) for name, values in ids.items()},
    )


def manifest_of(spec: Spec, files: list[SampleFile]) -> Manifest:
    return Manifest(
        spec=spec,
        fingerprint=samples_fingerprint(spec),
        raw_folder="raw/logs",
        created="2026-03-06T01:02:03+00:00",
        files=files,
        learned=Learned(
            table_rows={"user": 101, "video": 9, "tag": 9}, vocabularies={}, boundaries={}, normalisers={}, baselines={}
        ),
        labels={},
        raw={"impression": RawCounts(read=6100, kept=6000, duplicates=60, rejected={"unreadable": 33, "no user": 7})},
        events={"click": EventCounts(attributed=750, without_impression=200, outside_window=50)},
        without_profile={"author": 1500},
        filtered=25,
        quarantine=[],
    )
