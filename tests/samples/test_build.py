"""Sample building end to end: what becomes of a messy log is counted, and what cannot be built is refused."""

import hashlib
import json
import re
import shutil
from collections import Counter
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from pipeline.errors import StrataError
from pipeline.manifest import Manifest, SampleFile, load_manifest
from pipeline.samples.build import build_samples
from pipeline.samples.division import Options
from pipeline.samples.frames.hashing import user_hash
from pipeline.statistics import load_statistics


def without_key(file: SampleFile) -> SampleFile:
    """The name of a file ends with what tells apart versions of it: a digest that other raw files change."""
    return file.model_copy(update={"path": re.sub(r"-[0-9a-f]{8}\.parquet$", "", file.path)})


def stored_rows(store: Path, manifest: Manifest) -> pl.DataFrame:
    """All samples in the order of the store, which is that of the manifest's files."""
    return pl.concat(pl.read_parquet(store / file.path, hive_partitioning=False) for file in manifest.files)


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


# --------------------------------------------------------------------------- an interaction log of 12 rows

SMALL = """\
name: small
logs:
  impression:
    files: log.csv
    columns: {uid: int64, user_id: string, video: int64, ts: int64, click: int64, seconds: float64}
    id: [uid, video, ts]
    user: uid
    video: video
    time: ts
    outcomes: [click, seconds]
tables: {video: {encode: vocab, dim: 4}, account: {encode: vocab, dim: 4}}
features:
  video: {kind: id, table: video}
  account: {kind: id, table: account, source: user_id}
objectives:
  click: {kind: binary, label: click}
  watch: {kind: regression, label: seconds, baseline_by: video}
scenes:
  feed: {where: video < 9, weights: {click: 1, watch: 1}}
  other: {where: video = 9, weights: {click: 1}}
"""
DAY_MS = 86_400_000
SMALL_LOG = {  # uid, user_id, video, ts, click, seconds; on three days, one for each split
    "train": [
        (1, "a", 5, 1, 1, 10),
        (1, "a", 5, 2, 0, 30),
        (2, "b", 6, 3, 0, 7),
        (2, "b", 6, 4, 0, 8),
        (2, "b", 6, 5, 0, 50),
        (2, "b", 9, 6, 0, 500),
    ],
    "valid": [(1, "a", 5, DAY_MS, 1, 5), (2, "b", 9, DAY_MS + 1, 0, 5), (3, "c", 5, DAY_MS + 2, 0, 0)],
    "test": [(1, "a", 5, 2 * DAY_MS, 1, 5), (2, "b", 9, 2 * DAY_MS + 1, 0, 5), (3, "c", 5, 2 * DAY_MS + 2, 0, 0)],
}


def small(folder: Path, spec: str = SMALL, log: dict[str, list[tuple[object, ...]]] = SMALL_LOG) -> tuple[Path, Path]:
    """The spec's file and the raw folder of a small log."""
    (folder / "spec.yaml").write_text(spec)
    (folder / "raw").mkdir()
    lines = ["uid,user_id,video,ts,click,seconds", *(",".join(map(str, row)) for rows in log.values() for row in rows)]
    (folder / "raw" / "log.csv").write_text("\n".join(lines))
    return folder / "spec.yaml", folder / "raw"


def train_rows(store: Path) -> pl.DataFrame:
    return pl.read_parquet(store / "split=train" / "*" / "*.parquet").sort("time_ms")


def test_the_user_may_have_any_name_beside_a_column_user_id(tmp_path: Path) -> None:
    manifest = build_samples(*small(tmp_path), tmp_path / "out")
    rows = train_rows(tmp_path / "out")
    assert rows["user_id"].to_list() == [1, 1, 2, 2, 2, 2]
    assert rows["time_ms"].to_list() == [1, 2, 3, 4, 5, 6]
    accounts = pl.read_parquet(tmp_path / "out" / manifest.learned.vocabularies["account"].path)
    assert accounts.rows() == [("b", 1, 4), ("a", 2, 2)]
    assert rows["feature_account"].to_list() == [2, 2, 1, 1, 1, 1]


def test_baselines_are_medians_of_the_rows_that_learn_the_objective(tmp_path: Path) -> None:
    """Videos 6, 5 and 9 have the indices 1, 2 and 3; `watch` is not learned on 9, which gets the median of all."""
    manifest = build_samples(*small(tmp_path), tmp_path / "out")
    assert manifest.learned.baselines == {"watch": [10, 8, 20, 10]}


def test_a_time_that_is_far_off_is_rejected(tmp_path: Path) -> None:
    """In seconds, in microseconds or before 1970 it would be a day, and so a split, of its own."""
    year_2100 = 4_102_444_800_000
    far = [(1, "a", 5, time, 1, 1) for time in (-1, year_2100 + 1, 1_770_000_000_000_000)]
    manifest = build_samples(*small(tmp_path, log=SMALL_LOG | {"far": far}), tmp_path / "out")
    assert manifest.raw["impression"].rejected == {f'fails the check "ts" between 0 and {year_2100}': 3}
    assert manifest.raw["impression"].kept == 12
    rejected = pl.read_parquet(tmp_path / "out" / "rejected" / "impression.parquet")
    assert [json.loads(record)["ts"] for record in rejected["record"]] == [str(row[3]) for row in far]


def test_a_time_may_be_called_like_a_word_of_sql(tmp_path: Path) -> None:
    spec, raw = small(
        tmp_path, SMALL.replace("ts: int64", "end: int64").replace("ts]", "end]").replace(": ts", ": end")
    )
    (raw / "log.csv").write_text((raw / "log.csv").read_text().replace(",ts,", ",end,"))
    assert build_samples(spec, raw, tmp_path / "out").raw["impression"].kept == 12


def test_a_day_of_filing_may_hold_several_local_days(tmp_path: Path) -> None:
    """In the order of the local days, whatever the number of partitions."""
    later = [(user, "x", 5, DAY_MS + 10 * user + i, 0, 3) for user in range(30) for i in range(2)]
    filed = "  day: case when seconds = 3 then strptime('1970-01-01', '%Y-%m-%d') else local_day end\n"
    spec = SMALL.replace("logs:\n", f"logs:\n{filed}").replace("outcomes: [click, seconds]", "outcomes: [click]")
    paths = small(tmp_path, spec, SMALL_LOG | {"later": later})
    stores = {}
    for partitions in (1, 2, 3, 8):
        manifest = build_samples(*paths, tmp_path / f"{partitions}", Options(partitions=partitions))
        assert sum(file.rows for file in manifest.files if file.date == "1970-01-01") == 6 + len(later)
        stores[partitions] = stored_rows(tmp_path / f"{partitions}", manifest)
    for store in stores.values():
        assert_frame_equal(store, stores[1])
    assert (stores[1]["time_ms"] // DAY_MS).to_list() == [0] * 6 + [1] * (len(later) + 3) + [2] * 3


def test_users_may_share_an_id(tmp_path: Path) -> None:
    """Each has a sample of that id, whether or not they are in one partition."""
    shared = [(user, "x", 5, 7, 0, 3) for user in range(20)]
    spec = SMALL.replace("id: [uid, video, ts]", "id: [video, ts]")
    paths = small(tmp_path, spec, SMALL_LOG | {"shared": shared})
    rows = {}
    for partitions in (1, 8):
        manifest = build_samples(*paths, tmp_path / f"{partitions}", Options(partitions=partitions))
        rows[partitions] = stored_rows(tmp_path / f"{partitions}", manifest).select("user_id", "sample_id")
    assert_frame_equal(rows[8], rows[1])


def test_an_impression_that_fails_the_filter_is_no_sample_but_counts(tmp_path: Path) -> None:
    """Histories see it, and so do counters of later days."""
    seen = """\
  seen: {kind: history, table: video, of: video, last: 9}
  shown: {kind: dense, source: user_shown_1d, normalise: []}
objectives:"""
    counters = "counters: {days: [1], by: {user: uid}, measures: {shown: {}}}\ntables:"
    both = SMALL.replace("objectives:", seen).replace("tables:", counters)
    found = {}
    for name, spec in (("all", both), ("some", f"{both}filter: seconds <> 8 and seconds <> 50\n")):
        (tmp_path / name).mkdir()
        manifest = build_samples(*small(tmp_path / name, spec), tmp_path / name / "out")
        found[name] = manifest, stored_rows(tmp_path / name / "out", manifest)
    (everything, all_rows), (filtered, rows) = found["all"], found["some"]
    assert (everything.filtered, filtered.filtered) == (0, 2)
    kept = ~all_rows["time_ms"].is_in([4, 5])
    assert rows["sample_id"].to_list() == all_rows.filter(kept)["sample_id"].to_list()
    assert filtered.labels["click"]["train"].rows == everything.labels["click"]["train"].rows - 2
    lengths = [frame["feature_seen"].list.len() for frame in (rows, all_rows.filter(kept))]
    assert lengths[0].to_list() == lengths[1].to_list()
    assert rows["feature_shown"].to_list() == all_rows.filter(kept)["feature_shown"].to_list()
    assert all_rows.sort("time_ms", "user_id")["feature_shown"].to_list() == [0] * 6 + [2, 4, 0] + [1, 1, 1]


def test_training_rows_are_thinned_and_the_others_are_not(tmp_path: Path) -> None:
    shown = [(user, "x", 5, 100 + user, user % 2, 3) for user in range(400)]
    later = [(user, "x", 5, 2 * DAY_MS + 100 + user, user % 2, 3) for user in range(400)]
    log = SMALL_LOG | {"more": shown, "later": later}
    rows = {}
    for name, end in (("all", ""), ("thinned", "downsample: [{where: click = 0, keep: 0.25}]\n")):
        (tmp_path / name).mkdir()
        manifest = build_samples(*small(tmp_path / name, SMALL + end, log), tmp_path / name / "out")
        rows[name] = stored_rows(tmp_path / name / "out", manifest)
        assert manifest.labels["click"]["train"].rows == 406  # as it was logged
        assert load_statistics(tmp_path / name / "out").days[0].rows == 406
    train = pl.col("time_ms") < DAY_MS
    everything, thinned = (rows[name].filter(train) for name in ("all", "thinned"))
    same = [name for name in thinned.columns if name != "sample_weight"]
    assert_frame_equal(rows["thinned"].filter(~train), rows["all"].filter(~train))
    clicked = pl.col("label_click") == 1
    assert_frame_equal(thinned.filter(clicked), everything.filter(clicked))
    others = thinned.filter(~clicked)
    assert set(others["sample_weight"]) == {4.0}
    assert 25 < others.height < 75  # of 205
    kept = everything.filter(pl.col("sample_id").is_in(others["sample_id"].implode()))
    assert_frame_equal(others.select(same), kept.select(same))


# --------------------------------------------------------------------------------------- when it fails


def refusal(spec: Path, raw: Path, out: Path) -> str:
    """The error of a build, after which no reader finds a store; only work that the next build can use is left."""
    before = set(out.parent.iterdir())
    with pytest.raises(StrataError) as error:
        build_samples(spec, raw, out)
    assert set(out.parent.iterdir()) - {out} == before
    assert not out.exists() or [path.name for path in out.iterdir()] == [".work"]
    with pytest.raises(StrataError, match="no sample store"):
        load_manifest(out)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_build_that_was_refused_can_be_repeated_in_the_same_place(tmp_path: Path) -> None:
    spec, raw = small(tmp_path, f"{SMALL}sample_weight: seconds - 6\n")
    assert "sample_weight" in refusal(spec, raw, tmp_path / "out")
    spec.write_text(SMALL)
    manifest = build_samples(spec, raw, tmp_path / "out")
    fresh = build_samples(spec, raw, tmp_path / "fresh")
    assert manifest.model_copy(update={"created": fresh.created}) == fresh
    assert_frame_equal(stored_rows(tmp_path / "out", manifest), stored_rows(tmp_path / "fresh", fresh))


def test_a_store_stays_as_it_is_when_a_later_build_is_refused(tmp_path: Path) -> None:
    spec, raw = small(tmp_path)
    manifest = build_samples(spec, raw, tmp_path / "out")
    before = stored_rows(tmp_path / "out", manifest)
    spec.write_text(f"{SMALL}sample_weight: seconds - 6\n")
    with pytest.raises(StrataError, match="sample_weight"):
        build_samples(spec, raw, tmp_path / "out")
    assert load_manifest(tmp_path / "out") == manifest
    assert_frame_equal(stored_rows(tmp_path / "out", manifest), before)


def test_a_label_that_is_always_0_is_refused(messy_spec: Path, messy_raw: Path, tmp_path: Path) -> None:
    spec = tmp_path / "spec.yaml"
    spec.write_text(messy_spec.read_text().replace("label: like}", "label: like and not like}"))
    message = refusal(spec, messy_raw, tmp_path / "out")
    assert message.startswith(f"{spec}: objectives.like.label is always 0 in the training split (")


def test_a_binary_label_of_2_is_refused_in_any_split(tmp_path: Path) -> None:
    spec, raw = small(tmp_path, log=SMALL_LOG | {"late": [(4, "d", 5, 2 * DAY_MS + 5, 2, 1)]})
    expected = f"{spec}: objectives.click.label is binary, but has values from 0 to 2; correct the label, or remove the"
    assert refusal(spec, raw, tmp_path / "out").startswith(expected)


@pytest.mark.parametrize(
    ("weight", "samples"),
    [
        ("seconds - 6", 6),
        ("case when click = 1 then 2 end", 9),
        ("1.0 / seconds", 2),  # infinite
        ("0.0 / seconds", 2),  # no number
    ],
)
def test_a_sample_weight_is_a_finite_number_of_at_least_0(tmp_path: Path, weight: str, samples: int) -> None:
    spec, raw = small(tmp_path, f"{SMALL}sample_weight: {weight}\n")
    expected = f"{spec}: sample_weight: {samples} samples have none, or a negative one; correct the expression"
    assert refusal(spec, raw, tmp_path / "out") == expected


def test_a_sample_weight_may_be_0(tmp_path: Path) -> None:
    build_samples(*small(tmp_path, f"{SMALL}sample_weight: seconds\n"), tmp_path / "out")
    rows = pl.read_parquet(tmp_path / "out" / "split=test" / "*" / "*.parquet").sort("time_ms")
    assert rows["sample_weight"].to_list() == [5, 5, 0]


def test_an_impression_without_a_day_is_refused(tmp_path: Path) -> None:
    day = "  day: case when uid < 3 then local_day end\n"
    spec, raw = small(tmp_path, SMALL.replace("logs:\n", "logs:\n" + day))
    message = refusal(spec, raw, tmp_path / "out")
    assert message.endswith("logs.day is null for 1 impressions of 1970-01-02; correct the expression")


def test_no_impression_in_any_scene_is_refused(messy_spec: Path, messy_raw: Path, tmp_path: Path) -> None:
    spec = tmp_path / "spec.yaml"
    text = messy_spec.read_text().replace("where: page = 'discover'\n", "where: page = 'd'\n")
    spec.write_text(text.replace("where: page = 'player'\n", "where: page = 'p'\n"))
    assert refusal(spec, messy_raw, tmp_path / "out").startswith(f"{spec}: scenes: none of the impressions")


def test_too_few_days_to_split_are_refused(messy_spec: Path, messy_raw: Path, tmp_path: Path) -> None:
    spec = tmp_path / "spec.yaml"
    spec.write_text(messy_spec.read_text().replace("valid_days: 1, test_days: 1", "valid_days: 3, test_days: 2"))
    raw = messy_raw
    expected = f"{raw}: has impressions on 5 days, but validation and test alone take 5; add earlier days, or change"
    assert refusal(spec, raw, tmp_path / "out").startswith(expected)


def test_a_truncated_file_is_refused(messy_spec: Path, messy_raw: Path, tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    shutil.copytree(messy_raw, raw)
    broken = raw / "like" / "2026-03-03-000.parquet"
    broken.write_bytes(broken.read_bytes()[:-100])
    assert refusal(messy_spec, raw, tmp_path / "out").startswith(f"{broken}: cannot be read (")


def test_a_folder_without_the_log_is_refused(messy_spec: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    message = refusal(messy_spec, tmp_path / "empty", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert message.startswith(f"{tmp_path / 'empty' / 'impression'}: no files of the table `impression` (")


def test_what_is_no_store_of_ours_is_never_written_over(messy_spec: Path, messy_raw: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "precious").write_text("kept")
    with pytest.raises(StrataError) as error:
        build_samples(messy_spec, messy_raw, out)
    assert str(error.value) == f"{out}: already exists and is not empty; choose another --out, or delete it"
    assert (out / "precious").read_text() == "kept"
    assert [path.name for path in out.iterdir()] == ["precious"]
