"""Sample building end to end: what becomes of a messy log is counted, and what cannot be built is refused."""

import hashlib
import json
import shutil
from collections import Counter
from pathlib import Path

import polars as pl
import pytest

from pipeline.errors import StrataError
from pipeline.manifest import Manifest, load_manifest
from pipeline.samples.build import build_samples


@pytest.mark.parametrize("format_", ["parquet", "csv", "jsonl"])
def test_the_manifest_counts_what_the_simulator_did_to_the_log(messy_folders: dict[str, Path], format_: str) -> None:
    done = json.loads((messy_folders[format_] / "raw" / "truth" / "simulation.json").read_text())["tables"]
    manifest = load_manifest(messy_folders[format_] / "samples")
    counts = manifest.raw
    assert counts.keys() == done.keys()
    for name, count in counts.items():
        assert (count.kept, count.duplicates, sum(count.rejected.values())) == (
            done[name]["rows"], done[name]["duplicated"], done[name]["malformed"],
        )  # fmt: skip
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
        assert other.files == parquet.files  # with their checksums
        assert other.learned == parquet.learned
        assert other.labels == parquet.labels


def test_building_again_gives_the_same_bytes(
    messy_spec: Path, messy_raw: Path, messy_manifest: Manifest, tmp_path: Path
) -> None:
    again = build_samples(messy_spec, messy_raw, tmp_path / "samples")
    assert load_manifest(tmp_path / "samples") == again
    assert again.model_copy(update={"created": messy_manifest.created}) == messy_manifest


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
        assert rows["time_ms"].is_sorted()
    for name, vocabulary in messy_manifest.learned.vocabularies.items():
        content = (messy_store / vocabulary.path).read_bytes()
        assert vocabulary.path == f"vocabularies/{name}.parquet"
        assert hashlib.sha256(content).hexdigest() == vocabulary.sha256
    assert sum(file.rows for file in messy_manifest.files) == messy_manifest.raw["impression"].kept


def test_the_last_days_are_for_validation_and_test(messy_manifest: Manifest) -> None:
    assert messy_manifest.days("train") == ["2026-03-01", "2026-03-02", "2026-03-03"]
    assert (messy_manifest.days("valid"), messy_manifest.days("test")) == (["2026-03-04"], ["2026-03-05"])


def test_the_columns_of_the_store(messy_store: Path, messy_manifest: Manifest) -> None:
    spec = messy_manifest.spec
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
        (1, "a", 5, 1, 1, 10), (1, "a", 5, 2, 0, 30), (2, "b", 6, 3, 0, 7), (2, "b", 6, 4, 0, 8), (2, "b", 6, 5, 0, 50),
        (2, "b", 9, 6, 0, 500),
    ],
    "valid": [(1, "a", 5, DAY_MS, 1, 5), (2, "b", 9, DAY_MS + 1, 0, 5), (3, "c", 5, DAY_MS + 2, 0, 0)],
    "test": [(1, "a", 5, 2 * DAY_MS, 1, 5), (2, "b", 9, 2 * DAY_MS + 1, 0, 5), (3, "c", 5, 2 * DAY_MS + 2, 0, 0)],
}  # fmt: skip


def small(folder: Path, spec: str = SMALL, log: dict[str, list[tuple[object, ...]]] = SMALL_LOG) -> tuple[Path, Path]:
    """The spec's file and the raw folder of a small log."""
    (folder / "spec.yaml").write_text(spec)
    (folder / "raw").mkdir()
    lines = ["uid,user_id,video,ts,click,seconds", *(",".join(map(str, row)) for rows in log.values() for row in rows)]
    (folder / "raw" / "log.csv").write_text("\n".join(lines))
    return folder / "spec.yaml", folder / "raw"


def test_the_user_may_have_any_name_beside_a_column_user_id(tmp_path: Path) -> None:
    manifest = build_samples(*small(tmp_path), tmp_path / "out")
    rows = pl.read_parquet(tmp_path / "out" / "split=train" / "*" / "*.parquet")
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


# --------------------------------------------------------------------------------------- when it fails


def refusal(spec: Path, raw: Path, out: Path) -> str:
    """The error of a build, of which nothing is left behind."""
    before = set(out.parent.iterdir())
    with pytest.raises(StrataError) as error:
        build_samples(spec, raw, out)
    assert set(out.parent.iterdir()) == before
    assert "\n" not in str(error.value)
    return str(error.value)


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
    weights = pl.read_parquet(tmp_path / "out" / "split=test" / "*" / "*.parquet")["sample_weight"]
    assert weights.to_list() == [5, 5, 0]


def test_an_impression_without_a_day_is_refused(tmp_path: Path) -> None:
    day = "  day: case when uid < 3 then local_day end\n"
    spec, raw = small(tmp_path, SMALL.replace("logs:\n", "logs:\n" + day))
    assert refusal(spec, raw, tmp_path / "out").endswith("logs.day is null for 2 impressions; correct the expression")


def test_no_impression_in_any_scene_is_refused(messy_spec: Path, messy_raw: Path, tmp_path: Path) -> None:
    spec = tmp_path / "spec.yaml"
    text = messy_spec.read_text().replace("where: page = 'discover'\n", "where: page = 'd'\n")
    spec.write_text(text.replace("where: page = 'player'\n", "where: page = 'p'\n"))
    assert refusal(spec, messy_raw, tmp_path / "out").startswith(f"{spec}: scenes: none of the impressions")


def test_too_few_days_to_split_are_refused(messy_spec: Path, messy_raw: Path, tmp_path: Path) -> None:
    spec = tmp_path / "spec.yaml"
    spec.write_text(messy_spec.read_text().replace("valid_days: 1, test_days: 1", "valid_days: 3, test_days: 2"))
    raw = messy_raw
    expected = f"{raw}: has impressions on 5 days, but validation and test alone take 5; add earlier days, or lower"
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
    assert message.startswith(f"{tmp_path / 'empty' / 'impression'}: no files of the table `impression` (")


def test_a_store_is_never_written_over(messy_spec: Path, messy_raw: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "precious").write_text("kept")
    message = refusal(messy_spec, messy_raw, out)
    assert message == f"{out}: already exists and is not empty; choose another --out, or delete it"
    assert (out / "precious").read_text() == "kept"
    assert [path.name for path in out.iterdir()] == ["precious"]
