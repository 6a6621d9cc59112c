"""Sample building end to end: what becomes of a messy log is counted, and what cannot be built is refused."""

import hashlib
import json
import re
from collections import Counter
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from pipeline.manifest import Manifest, SampleFile, load_manifest
from pipeline.samples.build import build_samples
from pipeline.samples.division import Options
from pipeline.samples.frames.hashing import user_hash
from pipeline.statistics import load_statistics
from tests.samples.interaction_log import small, stored_rows


def without_key(file: SampleFile) -> SampleFile:
    """The name of a file ends with what tells apart versions of it: a digest that other raw files change."""
    return file.model_copy(update={"path": re.sub(r"-[0-9a-f]{8}\.parquet$", "", file.path)})


@pytest.mark.parametrize("format_", ["parquet", "csv", "jsonl"])
def test_the_manifest_counts_what_the_simulator_did_to_the_log(messy_folders: dict[str, Path], format_: str) -> None:
    done = json.loads((messy_folders[format_] / "raw" / "truth" / "simulation.json").read_text())["tables"]
    manifest = load_manifest(messy_folders[format_] / "samples")
    counts = manifest.raw
    assert counts.keys() == done.keys()
    for name, count in counts.items():
        assert (count.kept, count.duplicates, sum(count.rejected.values())) == (
            done[name]["rows"],
            done[name]["duplicated"],
            done[name]["malformed"],
        )
        assert count.read == count.kept + count.duplicates + sum(count.rejected.values())
        stored = messy_folders[format_] / "samples" / "rejected" / f"{name}.parquet"
        assert stored.exists() == bool(count.rejected)
        if count.rejected:
            assert Counter(pl.read_parquet(stored)["reason"]) == count.rejected
    for name, events in manifest.events.items():
        assert events.attributed + events.without_impression + events.outside_window == counts[name].kept
        assert events.attributed > 0


def test_the_samples_do_not_depend_on_the_format_of_the_log(messy_folders: dict[str, Path]) -> None:
    parquet, *others = (load_manifest(folder / "samples") for folder in messy_folders.values())
    for other in others:
        # With their checksums.
        assert list(map(without_key, other.files)) == list(map(without_key, parquet.files))
        assert other.learned == parquet.learned
        assert other.labels == parquet.labels


def test_building_again_gives_the_same_bytes(
    messy_spec: Path, messy_raw: Path, messy_manifest: Manifest, tmp_path: Path
) -> None:
    again = build_samples(messy_spec, messy_raw, tmp_path / "samples")
    assert load_manifest(tmp_path / "samples") == again
    assert again.model_copy(update={"created": messy_manifest.created}) == messy_manifest


def test_building_into_a_finished_store_leaves_it_as_it_is(tmp_path: Path) -> None:
    spec, raw = small(tmp_path)
    first = build_samples(spec, raw, tmp_path / "out")
    written = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.*") if path.is_file()}
    again = build_samples(spec, raw, tmp_path / "out")
    assert again.model_copy(update={"created": first.created}) == first
    now = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.*") if path.is_file()}
    assert now.keys() == written.keys()
    rewritten = {str(path.relative_to(tmp_path / "out")) for path, time in now.items() if written[path] != time}
    assert rewritten == {"manifest.json", "statistics.json", ".work/plan.json"}


@pytest.mark.parametrize("partitions", [2, 7])
def test_the_samples_and_their_order_do_not_depend_on_the_number_of_partitions(
    messy_spec: Path, messy_raw: Path, messy_store: Path, messy_manifest: Manifest, tmp_path: Path, partitions: int
) -> None:
    manifest = build_samples(messy_spec, messy_raw, tmp_path / "out", Options(partitions=partitions))
    assert len({file.path.split("-")[-3] for file in manifest.files}) == partitions
    assert_frame_equal(stored_rows(tmp_path / "out", manifest), stored_rows(messy_store, messy_manifest))
    same = {"files": messy_manifest.files, "created": messy_manifest.created}
    assert manifest.model_copy(update=same) == messy_manifest
    assert load_statistics(tmp_path / "out") == load_statistics(messy_store)


def test_rows_are_ordered_by_day_hash_of_the_user_user_time_and_id(messy_store: Path, messy_manifest: Manifest) -> None:
    rows = stored_rows(messy_store, messy_manifest)
    local_day = pl.from_epoch("time_ms", "ms").dt.offset_by("8h").dt.date().alias("day")
    keys = rows.with_columns(pl.Series("hash", user_hash(rows["user_id"]))).select(
        local_day, "hash", "user_id", "time_ms", "sample_id"
    )
    assert keys.rows() == sorted(keys.rows())


def test_the_files_are_those_of_the_manifest(messy_store: Path, messy_manifest: Manifest) -> None:
    assert {str(path.relative_to(messy_store)) for path in messy_store.glob("split=*/**/*.parquet")} == {
        file.path for file in messy_manifest.files
    }
    for file in messy_manifest.files:
        content = (messy_store / file.path).read_bytes()
        assert file.path.startswith(f"split={file.split}/date={file.date}/part-")
        assert (len(content), hashlib.sha256(content).hexdigest()) == (file.bytes, file.sha256)
        rows = pl.read_parquet(messy_store / file.path, hive_partitioning=False)
        assert rows.height == file.rows
    for name, vocabulary in messy_manifest.learned.vocabularies.items():
        content = (messy_store / vocabulary.path).read_bytes()
        assert re.fullmatch(rf"vocabularies/{name}-[0-9a-f]{{8}}\.parquet", vocabulary.path)
        assert hashlib.sha256(content).hexdigest() == vocabulary.sha256
    assert sum(file.rows for file in messy_manifest.files) == messy_manifest.raw["impression"].kept


def test_the_last_days_are_for_validation_and_test(messy_manifest: Manifest) -> None:
    assert messy_manifest.days("train") == ["2026-03-01", "2026-03-02", "2026-03-03"]
    assert (messy_manifest.days("valid"), messy_manifest.days("test")) == (["2026-03-04"], ["2026-03-05"])


def test_the_columns_of_the_store(messy_store: Path, messy_manifest: Manifest) -> None:
    spec = messy_manifest.spec
    expected = {
        "sample_id": pl.Int64,
        "user_id": pl.Int64,
        "time_ms": pl.Int64,
        "sample_weight": pl.Float32,
        **{f"scene_{scene}": pl.Boolean for scene in spec.scenes},
        **{f"label_{objective}": pl.Float32 for objective in spec.objectives},
        **{f"mask_{objective}": pl.Boolean for objective in spec.objectives},
        **{
            f"feature_{name}": {"id": pl.Int32, "dense": pl.Float32}.get(feature.kind, pl.List(pl.Int32))
            for name, feature in spec.features.items()
        },
    }
    for file in messy_manifest.files:
        assert dict(pl.read_parquet_schema(messy_store / file.path)) == expected


def test_no_feature_is_missing_or_outside_its_table(messy_manifest: Manifest, messy_samples: pl.DataFrame) -> None:
    learned, spec = messy_manifest.learned, messy_manifest.spec
    for name, sparse in spec.sparse_features.items():
        column = messy_samples[f"feature_{name}"]
        assert column.null_count() == 0
        index = column if sparse.kind == "id" else column.explode().drop_nulls()
        assert 0 <= index.min() < index.max() < learned.table_rows[sparse.table]  # type: ignore[operator]
    for name in spec.dense_features:
        assert messy_samples[f"feature_{name}"].is_finite().all()
        train = messy_samples.filter(split="train")[f"feature_{name}"].cast(pl.Float64)
        assert abs(train.mean()) < 0.6  # type: ignore[arg-type]  # 0 but for those missing, which are at the mean


def test_label_statistics_are_those_of_the_stored_labels(messy_manifest: Manifest, messy_samples: pl.DataFrame) -> None:
    scenes = {"stay": "discover", "dwell": "discover", "click": "discover", "play_time": "player", "like": "player"}
    for name, scene in scenes.items():
        for split, found in messy_manifest.labels[name].items():
            labels = messy_samples.filter(pl.col(f"scene_{scene}"), pl.col(f"mask_{name}"), split=split)[
                f"label_{name}"
            ]
            assert (found.rows, found.min, found.max) == (labels.len(), labels.min(), labels.max())
            assert found.mean == pytest.approx(labels.cast(pl.Float64).mean())
            assert labels.null_count() == 0


def test_the_statistics_are_those_of_the_stored_samples(messy_store: Path, messy_manifest: Manifest) -> None:
    spec, found = messy_manifest.spec, load_statistics(messy_store)
    samples = {day.date: [] for day in found.days}
    for file in messy_manifest.files:
        samples[file.date].append(pl.read_parquet(messy_store / file.path, hive_partitioning=False))
        assert file.split == next(day.split for day in found.days if day.date == file.date)
    for day in found.days:
        rows = pl.concat(samples[day.date])
        assert day.rows == rows.height
        for scene, declared in spec.scenes.items():
            inside = rows.filter(f"scene_{scene}")
            assert day.scenes[scene].rows == inside.height
            assert day.scenes[scene].labels.keys() == declared.weights.keys()
            for name, label in day.scenes[scene].labels.items():
                labels = inside.filter(f"mask_{name}")[f"label_{name}"].cast(pl.Float64)
                assert (label.rows, label.min, label.max) == (labels.len(), labels.min(), labels.max())
                assert label.mean == pytest.approx(labels.mean(), rel=1e-6)
        for name, feature in spec.sparse_features.items():
            column = rows[f"feature_{name}"]
            if feature.kind == "id":
                assert name not in day.lengths
            else:
                lengths = column.list.len()
                assert day.lengths[name] == [(lengths == n).sum() for n in range(lengths.max() + 1)]  # type: ignore
                assert day.missing[name] == (lengths == 0).sum()
                column = column.explode().drop_nulls()
            if spec.tables[feature.table].encode == "vocab":
                assert day.ids[name] == column.len()  # no id of this log is missing
                assert day.outside[name] == (column == 0).sum()
    videos = pl.read_parquet(messy_store / messy_manifest.learned.vocabularies["video"].path)
    assert found.distinct["video"] == videos.height
    assert found.distinct["user"] == stored_rows(messy_store, messy_manifest)["user_id"].n_unique()
