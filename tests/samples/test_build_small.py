"""Samples of an interaction log of 12 rows, value by value."""

import json
from pathlib import Path

import polars as pl
from polars.testing import assert_frame_equal

from pipeline.samples.build import build_samples
from pipeline.samples.division import Options
from pipeline.statistics import load_statistics
from tests.samples.interaction_log import DAY_MS, SMALL, SMALL_LOG, small, stored_rows


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
