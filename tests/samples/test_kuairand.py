"""Sample building on the real log of KuaiRand: its known counts, and samples recomputed from the CSV files."""

import math
import random
import re
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import polars as pl
import pytest

from pipeline.manifest import Manifest
from pipeline.samples.build import build_samples

ROOT = Path(__file__).parents[2]
RAW = ROOT.parent / "shared" / "data" / "kuairand_pure"
OUTCOMES = {
    "click": "is_click",
    "long_view": "long_view",
    "like": "is_like",
    "profile_enter": "is_profile_enter",
    "play_time": "play_time_ms",
}

pytestmark = pytest.mark.skipif(not RAW.is_dir(), reason=f"needs KuaiRand-Pure in {RAW}")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("kuairand") / "samples"


@pytest.fixture(scope="module")
def manifest(store: Path) -> Manifest:
    return build_samples(ROOT / "feature_specs" / "kuairand.yaml", RAW, store)


@pytest.fixture(scope="module")
def log() -> pl.DataFrame:
    """The distinct rows, with the author of the video and the local day of the impression."""
    videos = pl.read_csv(RAW / "video_features_basic_pure.csv").select("video_id", "author_id")
    rows = pl.read_csv(RAW / "log_standard_4_25_to_5_06_pure.csv").unique().join(videos, on="video_id", how="left")
    local = pl.from_epoch("time_ms", time_unit="ms").dt.offset_by("8h").dt.date()
    return rows.with_columns(local.alias("local_day"))


def test_the_counts_are_those_of_the_log(manifest: Manifest) -> None:
    shown = manifest.raw["impression"]
    assert (shown.read, shown.kept, shown.duplicates, shown.rejected) == (198_895, 193_964, 4931, {})
    assert [manifest.raw[name].kept for name in ("user", "video")] == [27_285, 7583]
    assert manifest.without_profile == {"user": 0, "video": 0}
    assert (manifest.rows("test"), manifest.days("test")) == (13_580, ["2022-05-06"])
    assert (manifest.rows("valid"), manifest.days("valid")) == (13_103, ["2022-05-05"])
    assert sum(file.rows for file in manifest.files) == 193_964
    assert len(manifest.days("train")) == 10


def test_label_rates_are_those_of_the_log(manifest: Manifest, log: pl.DataFrame) -> None:
    """Every row is in one of the three scenes, each of which learns every objective."""
    for split, first, last in (
        ("train", 20220425, 20220504),
        ("valid", 20220505, 20220505),
        ("test", 20220506, 20220506),
    ):
        rows = log.filter(pl.col("date").is_between(first, last))
        for name in manifest.spec.objectives:
            scale = 1000 if name == "play_time" else 1
            found = manifest.labels[name][split]  # type: ignore[index]
            assert found.rows == rows.height
            assert found.mean == pytest.approx(rows[OUTCOMES[name]].mean() / scale, rel=1e-5)  # type: ignore[operator]


def test_a_sample_id_names_its_row_once(manifest: Manifest, store: Path) -> None:
    """381 rows repeat the user, video and time of another with other outcomes: they are numbered."""
    ids = pl.read_parquet(store / "split=*" / "*" / "*.parquet", columns=["sample_id"])["sample_id"]
    assert ids.is_unique().all()
    numbered = ids.filter(ids.str.contains("#", literal=True))
    assert numbered.len() == 381
    assert numbered.str.ends_with("#1").all()
    assert numbered.str.split("#").list.first().is_in(ids.implode()).all()


def test_random_samples_recomputed_from_the_log(manifest: Manifest, store: Path, log: pl.DataFrame) -> None:
    learned, spec = manifest.learned, manifest.spec
    vocabulary = pl.read_parquet(store / learned.vocabularies["reaction"].path)
    of_index = dict(vocabulary.select("index", "value").iter_rows())
    reactions = spec.features["reactions"]
    assert reactions.kind == "history"

    def plain(row: dict[str, Any], name: str) -> float:
        """A dense feature as it was before standardising."""
        return row[f"feature_{name}"] * learned.normalisers[name].std + learned.normalisers[name].mean

    test = pl.read_parquet(store / "split=test" / "*" / "*.parquet").sort("sample_id")
    histories = 0
    for row in random.Random(0).sample(test.to_dicts(), 25):
        user, video, time_ms = map(int, row["sample_id"].split("#")[0].split("-"))
        same_id = log.filter(user_id=user, video_id=video, time_ms=time_ms)
        assert row["label_click"] in same_id["is_click"].to_list()
        assert row["scene_single_column"] == (same_id["tab"][0] == 1)

        day: date = datetime.fromtimestamp(time_ms / 1000, ZoneInfo("Asia/Shanghai")).date()
        earlier = log.filter(pl.col("local_day") < day, pl.col("local_day") >= day - timedelta(14))
        author = same_id["author_id"][0]
        for by, key in (("user", {"user_id": user}), ("video", {"video_id": video}), ("author", {"author_id": author})):
            seen = earlier.filter(**key)
            assert math.expm1(plain(row, f"{by}_shown")) == pytest.approx(seen.height, rel=1e-4, abs=1e-3)
            smoothing = re.findall(r"\+ ([\d.]+)\)", str(spec.dense_features[f"{by}_click_rate"].source))
            more_clicks, more_shown = map(float, smoothing)
            rate = (seen["is_click"].sum() + more_clicks) / (seen.height + more_shown)
            assert plain(row, f"{by}_click_rate") == pytest.approx(rate, rel=1e-4, abs=1e-5)
            times = (seen["play_time_ms"] / 1000).log1p().mean()
            mean = learned.normalisers[f"{by}_play_time"].mean if times is None else times
            assert plain(row, f"{by}_play_time") == pytest.approx(mean, rel=1e-4, abs=1e-5)

        past = log.filter(pl.col("time_ms") < time_ms, user_id=user).select("time_ms", "tab", "is_click", "long_view")
        words = sorted((time, f"{tab}_{click}_{long}") for time, tab, click, long in past.iter_rows())
        expected = [word for _, word in words][-reactions.last :]
        assert [of_index.get(index) for index in row["feature_reactions"]] == [
            word if word in of_index.values() else None for word in expected
        ]
        histories += bool(expected)
    assert histories > 10
