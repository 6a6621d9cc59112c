import math
from datetime import date
from pathlib import Path

import polars as pl
import pytest

from pipeline.errors import StrataError
from pipeline.manifest import Manifest
from pipeline.notebook.store import Store, open_store


@pytest.fixture(scope="module")
def store(samples: Path) -> Store:
    return open_store(samples)


def test_days_and_labels_are_those_of_the_samples(store: Store, manifest: Manifest):
    days, everything = store.days(), store.scan().collect()
    counted = everything.group_by("split", "day").agg(pl.len().cast(pl.Int64).alias("rows")).sort("day")
    assert days.equals(counted)
    assert days["day"].is_sorted()
    train = everything.filter(split="train")
    (rate,) = store.labels().filter(objective="click", split="train")["mean"]
    assert rate == pytest.approx(train.filter("mask_click", "scene_discover")["label_click"].mean())


def test_scan_reads_what_is_asked_for(store: Store):
    days = store.days()
    first = days["day"][0]
    found = store.scan(days=[first], columns=["user_id", "label_click"]).collect()
    assert found.columns == ["user_id", "label_click", "split", "day"]
    assert found.height == days["rows"][0]
    assert found["day"].unique().to_list() == [first]
    assert found.equals(store.scan("train", days=[first.isoformat()], columns=["user_id", "label_click"]).collect())
    assert set(store.scan("test").collect()["split"]) == {"test"}


def test_a_fraction_is_the_same_random_share_every_time(store: Store):
    every = store.scan("train", columns=["sample_id"]).collect()
    tenth = store.scan("train", columns=["sample_id"], fraction=0.1).collect()
    assert tenth.equals(store.scan("train", columns=["sample_id"], fraction=0.1).collect())
    assert tenth.height == pytest.approx(every.height / 10, rel=0.15)
    assert set(tenth["sample_id"]) < set(store.scan("train", fraction=0.2).collect()["sample_id"])


def test_decode_gives_back_what_the_log_says(store: Store, raw_log: Path):
    shown = pl.read_parquet(raw_log / "impression" / "*.parquet").unique("impression_id")
    videos = pl.read_parquet(raw_log / "video" / "*.parquet").unique("video_id")
    log = shown.join(videos, on="video_id").select("impression_id", "video_id", "position", "duration_ms")
    rows = store.scan("train").collect().join(log, left_on="sample_id", right_on="impression_id")
    rows = rows.filter(pl.col("position").is_not_null(), pl.col("duration_ms") > 0)
    assert rows.height > 1000

    video_ids = store.decode("video_id", rows["feature_video_id"])
    in_vocabulary = rows["feature_video_id"] > 0
    assert in_vocabulary.mean() > 0.9
    assert video_ids.filter(in_vocabulary).equals(rows["video_id"].filter(in_vocabulary).alias("video_id"))
    assert video_ids.filter(~in_vocabulary).null_count() == (~in_vocabulary).sum()
    for name, values in (("position", rows["position"]), ("log_duration", rows["duration_ms"] / 1000)):
        decoded = store.decode(name, rows[f"feature_{name}"]).to_list()
        assert decoded == pytest.approx(values.to_list(), rel=1e-4, abs=1e-4)
    intervals = store.decode("duration", rows["feature_duration"])
    assert intervals.n_unique() > 8
    for interval, milliseconds in zip(intervals, rows["duration_ms"], strict=True):
        low, high = ends(interval)
        assert low <= float(f"{milliseconds:g}") <= high


def ends(interval: str) -> tuple[float, float]:
    match interval.split():
        case ["below", high]:
            return -math.inf, float(high)
        case ["from", low]:
            return float(low), math.inf
        case [low, "to", high]:
            return float(low), float(high)
    raise AssertionError(interval)


def test_decode_keeps_the_order_of_a_list(store: Store):
    rows = store.scan("train", columns=["feature_tags", "feature_clicked_videos"]).head(2000).collect()
    for name, vocabulary in (("tags", "tag"), ("clicked_videos", "video")):
        numbers = rows[f"feature_{name}"]
        learned = pl.read_parquet(store.path / store.manifest.learned.vocabularies[vocabulary].path)
        value = dict(learned.select("index", "value").iter_rows())
        assert numbers.list.len().max() > 1
        assert store.decode(name, numbers).to_list() == [[value.get(index) for index in row] for row in numbers]


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"split": "tset"}, "split: there is no `tset`; did you mean `test`?"),
        ({"columns": ["label_clik"]}, "columns: there is no `label_clik`; did you mean `label_click`?"),
        ({"days": [date(1999, 1, 1)]}, "days: there is no `1999-01-01`; "),
        ({"fraction": 0}, "fraction: found 0; give a share above 0, at most 1"),
        ({"fraction": 2}, "fraction: found 2; give a share above 0, at most 1"),
    ],
)
def test_a_wrong_question_is_named(options: dict[str, object], line: str, store: Store):
    with pytest.raises(StrataError) as error:
        store.scan(**options)
    assert str(error.value).startswith(line)


def test_a_feature_that_is_not_there_and_a_folder_that_is_no_store_are_named(store: Store, tmp_path: Path):
    with pytest.raises(StrataError, match=r"^feature: there is no `vidoe_id`; did you mean `video_id`\?$"):
        store.decode("vidoe_id", pl.Series([1]))
    with pytest.raises(StrataError, match="no sample store"):
        open_store(tmp_path)
