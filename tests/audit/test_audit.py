"""The audit agrees with an honest store of any kind of log, and finds every change in a store."""

import random
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from pipeline.audit.audit import audit
from pipeline.audit.expected import hashed_row
from pipeline.errors import LocalError, StrataError
from pipeline.manifest import Manifest, load_manifest
from pipeline.samples.build import build_samples
from pipeline.samples.division import Options

ROOT = Path(__file__).parents[2]
KUAIRAND = ROOT.parent / "shared" / "data" / "kuairand_pure"
IDENTITY = {"sample_id", "user_id", "time_ms"}
HOUR = 3_600_000
DAY = 24 * HOUR
Rewrite = Callable[..., Path]


def columns(store: Path) -> set[str]:
    """The columns of the store, without those that identify a sample."""
    file = load_manifest(store).files[0]
    return {*pl.read_parquet_schema(store / file.path)} - IDENTITY


def rows(store: Path) -> pl.DataFrame:
    return pl.concat(pl.read_parquet(store / f.path, hive_partitioning=False) for f in load_manifest(store).files)


@pytest.mark.parametrize("format_", ["parquet", "csv", "jsonl"])
def test_an_honest_store_of_a_messy_log_passes(messy_folders: dict[str, Path], format_: str) -> None:
    store, raw = messy_folders[format_] / "samples", messy_folders[format_] / "raw"
    found = audit(store, raw, 80)
    assert found.differences == []
    assert found.samples == 80
    # Beside the columns of the store, the day under which a sample lies, and the filter.
    assert found.values == 80 * (len(columns(store)) + 2)
    found.require_clean(store)


@pytest.mark.parametrize("which", ["samples", "vocabulary"])
def test_a_store_whose_files_are_not_those_that_were_written_is_refused(
    which: str, messy_folders: dict[str, Path], tmp_path: Path
) -> None:
    folder = messy_folders["parquet"]
    store = shutil.copytree(folder / "samples", tmp_path / "samples", ignore=shutil.ignore_patterns(".*"))
    manifest = load_manifest(store)
    paths = {
        "samples": {file.path for file in manifest.files},
        "vocabulary": {vocabulary.path for vocabulary in manifest.learned.vocabularies.values()},
    }
    for path in paths[which]:
        content = (store / path).read_bytes()
        (store / path).write_bytes(content[:50] + bytes([content[50] ^ 1]) + content[51:])
    with pytest.raises(LocalError, match=rf"^{store}/.*\.parquet: is not what was written"):
        audit(store, folder / "raw", 10)


@pytest.mark.skipif(not KUAIRAND.is_dir(), reason=f"needs KuaiRand-Pure in {KUAIRAND}")
def test_an_honest_store_of_kuairand_passes(tmp_path: Path) -> None:
    """A tenth of its users, with all that they did."""
    (tmp_path / "raw").mkdir()
    for path in KUAIRAND.glob("*.csv"):
        table = pl.scan_csv(path, infer_schema=False)
        if "user_id" in table.collect_schema():
            table = table.filter(pl.col("user_id").str.ends_with("0"))
        table.sink_csv(tmp_path / "raw" / path.name)
    build_samples(ROOT / "feature_specs" / "kuairand.yaml", tmp_path / "raw", tmp_path / "samples")
    found = audit(tmp_path / "samples", tmp_path / "raw", 60)
    assert (found.samples, found.differences) == (60, [])


def test_an_honest_store_of_a_feed_passes(tmp_path: Path) -> None:
    """Many impressions have the time of another, and many repeat the id of another with other outcomes."""
    rng = random.Random(3)
    log = [
        {
            "user": f"u{rng.randrange(6)}",
            "item": f"i{rng.randrange(5)}",
            "page": rng.choice(["home", "search"]),
            "shown_at": 1_772_000_000_000 + rng.randrange(80) * 2 * HOUR,
            "clicked": rng.randrange(2),
            "seconds": rng.choice([None, 0.0, 2.5, rng.random()]),
        }
        for _ in range(900)
    ]
    (tmp_path / "raw").mkdir()
    pl.DataFrame(log).write_csv(tmp_path / "raw" / "feed.csv")
    build_samples(ROOT / "feature_specs" / "minimal.yaml", tmp_path / "raw", tmp_path / "samples")
    stored = rows(tmp_path / "samples")
    assert stored["sample_id"].str.ends_with("#1").sum() > 50
    found = audit(tmp_path / "samples", tmp_path / "raw", 10_000)
    assert (found.samples, found.differences) == (stored.height, [])


def test_an_honest_store_with_every_kind_of_feature_passes(everything: Path) -> None:
    stored = rows(everything / "samples")
    for column in columns(everything / "samples"):
        assert stored[column].n_unique() > 1, column  # else it is never put to the test
    found = audit(everything / "samples", everything / "raw", 10_000)
    assert (found.samples, found.differences) == (stored.height, [])
    for seed in range(12):  # one sample needs few rows of the log, but no fewer
        assert audit(everything / "samples", everything / "raw", 1, seed).differences == []


def test_files_in_quarantine_are_left_out(everything: Path, tmp_path: Path) -> None:
    raw, store = tmp_path / "raw", tmp_path / "samples"
    shutil.copytree(everything / "raw", raw)
    broken = raw / "shown" / "2.parquet"
    broken.write_bytes(broken.read_bytes()[:-100])
    build_samples(everything / "spec.yaml", raw, store, Options(quarantine=True))
    assert rows(store).height < rows(everything / "samples").height
    assert audit(store, raw, 100).differences == []


def otherwise(column: pl.Series) -> pl.Series:
    """Another value in every row, of the same type."""
    if column.dtype == pl.Boolean:
        return ~column
    if isinstance(column.dtype, pl.List):
        return column.list.concat(pl.Series([[1]] * len(column), dtype=column.dtype))
    return (column.fill_null(0) + 1).cast(column.dtype)


def test_a_change_in_any_column_is_found(everything: Path, rewritten: Rewrite) -> None:
    names = columns(everything / "samples")
    store = rewritten(everything / "samples", lambda rows: rows.with_columns(otherwise(rows[name]) for name in names))
    found = audit(store, everything / "raw", 30)
    assert Counter(d.column for d in found.differences) == dict.fromkeys(names, 30)
    assert audit(store, everything / "raw", 30).differences == found.differences
    other = audit(store, everything / "raw", 30, seed=1).differences
    assert {d.sample_id for d in other} != {d.sample_id for d in found.differences}
    expected = rf"^{store}: {30 * len(names)} of {found.values} values \({len(names)} columns\) differ from the log: "
    with pytest.raises(StrataError, match=expected) as error:
        found.require_clean(store)
    assert str(found.differences[0]) in str(error.value)


def test_rounding_is_no_difference(everything: Path, rewritten: Rewrite) -> None:
    """Every number of the store but 0 is the next float32."""

    def next_float(frame: pl.DataFrame) -> pl.DataFrame:
        floats = frame.select(pl.selectors.float()).iter_columns()
        later = {c.name: np.where(c == 0, c, np.nextafter(c.to_numpy(), np.float32(np.inf))) for c in floats}
        return frame.with_columns(pl.Series(name, values).fill_nan(None) for name, values in later.items())

    store = rewritten(everything / "samples", next_float)
    assert not rows(store).equals(rows(everything / "samples"))
    assert audit(store, everything / "raw", 300).differences == []


def test_a_sample_that_the_log_does_not_have_is_found(everything: Path, rewritten: Rewrite) -> None:
    store = rewritten(everything / "samples", lambda frame: frame.with_columns(pl.col("time_ms") + 1))
    found = audit(store, everything / "raw", 5)
    assert [(d.column, d.expected) for d in found.differences] == [("sample_id", None)] * 5


def test_a_sample_that_does_not_meet_the_filter_is_found(everything: Path, rewritten: Rewrite) -> None:
    def stricter(manifest: Manifest) -> Manifest:
        return manifest.model_copy(update={"spec": manifest.spec.model_copy(update={"filter": "price < 1"})})

    store = rewritten(everything / "samples", lambda frame: frame, stricter)
    found = audit(store, everything / "raw", 100)
    assert {(d.column, d.stored, d.expected) for d in found.differences} == {("filter", True, False)}


def test_the_audit_hashes_by_the_published_vectors() -> None:
    """FNV-1a of "foobar" is 85944171f73967e8, of "a" af63dc4c8601ec8c (Fowler, Noll, Vo)."""
    assert hashed_row("foobar", 1000) == 1 + (0x85944171F73967E8 ^ 0x85944171) % 999
    assert hashed_row("a", 1000) == 1 + (0xAF63DC4C8601EC8C ^ 0xAF63DC4C) % 999


def test_vocabularies_and_quantiles_are_those_of_the_training_days(
    messy_raw: Path, messy_store: Path, messy_manifest: Manifest, messy_samples: pl.DataFrame
) -> None:
    """The audit takes them from the store, so they are checked here."""
    learned = messy_manifest.learned
    shown = pl.read_parquet(messy_raw / "impression" / "*.parquet").select("impression_id", "video_id")
    train = messy_samples.filter(split="train")
    assert train["time_ms"].max() < 1_772_553_600_000  # 4 March 2026 in Shanghai
    videos = shown.unique().join(train, left_on="impression_id", right_on="sample_id", how="semi")["video_id"].to_list()
    assert len(videos) == train.height
    expected = sorted((-n, video) for video, n in Counter(videos).items() if n >= 2)
    vocabulary = pl.read_parquet(messy_store / learned.vocabularies["video"].path)
    assert vocabulary.rows() == [(video, i, -n) for i, (n, video) in enumerate(expected, start=1)]
    assert learned.table_rows["video"] == len(expected) + 1
    durations = dict(pl.read_parquet(messy_raw / "video" / "*.parquet").select("video_id", "duration_ms").iter_rows())
    quantiles = np.unique(np.quantile([durations[video] for video in videos], np.arange(1, 16) / 16))
    # They are taken of values rounded to 16 significant bits.
    assert learned.boundaries["duration"] == pytest.approx(quantiles, rel=2**-16)
