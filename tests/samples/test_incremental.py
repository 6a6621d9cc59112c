"""A second build does what is new and nothing else, and its store is that of one build over everything."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

from pipeline.manifest import Manifest
from tests.samples.stores import arrived_after, assert_as_from_scratch, build, content, finished, samples_by_day

DAY_MS = 86_400_000


def take_out(table: Path, rows: pl.Expr) -> tuple[Path, pl.DataFrame]:
    """Takes rows out of the files of a table, for a file of their own that has yet to come."""
    taken = []
    for path in sorted(table.glob("*.parquet")):
        every = pl.read_parquet(path)
        which = every.select(rows.fill_null(False)).to_series()
        if which.any():
            taken.append(every.filter(which))
            every.filter(~which).write_parquet(path)
    assert taken
    return table / "late.parquet", pl.concat(taken)


def on(day: str) -> pl.Expr:
    """Rows of a day in UTC, but for its first hours, in which events of the day before may follow their impression."""
    begins = int(datetime.fromisoformat(day).replace(tzinfo=UTC).timestamp() * 1000)
    return pl.col("time_ms").cast(pl.Int64, strict=False).is_between(begins + 7_200_000, begins + DAY_MS - 1)


def build_in_two_steps(spec: Path, raw: Path, later: list[Path], store: Path) -> tuple[Manifest, Manifest, list[str]]:
    """Builds before and after some files come; returns both manifests, and the days whose files are as they were."""
    assert len(later) > 5
    aside = {path: path.rename(path.with_suffix(".not_yet")) for path in later}
    first, before = build(spec, raw, store), samples_by_day(store)
    for path, place in aside.items():
        place.rename(path)
    second, after = build(spec, raw, store), samples_by_day(store)
    return first, second, sorted(day for day in before if before[day] == after[day])


def test_a_day_added_later_gives_the_store_of_one_build(log: Path, spec_path: Path, tmp_path: Path) -> None:
    store = tmp_path / "samples"
    first, second, _ = build_in_two_steps(spec_path, log, arrived_after(log, "2026-03-05"), store)
    assert (first.days("test"), second.days("test")) == (["2026-03-05"], ["2026-03-06"])
    assert_as_from_scratch(store, spec_path, log)


def test_with_dates_in_the_split_a_day_added_leaves_the_others_alone(
    log: Path, dated_spec: Path, tmp_path: Path
) -> None:
    """But for the day before, whose late impressions and events lie in the new files, and what these change."""
    store, new = tmp_path / "samples", arrived_after(log, "2026-03-05", "video")
    first, second, kept = build_in_two_steps(dated_spec, log, new, store)
    assert set(second.days("test")) - set(first.days("test")) == {"2026-03-06"}
    same = {file.sha256 for file in first.files} & {file.sha256 for file in second.files}
    assert kept == sorted(file.date for file in first.files if file.sha256 in same)
    assert (
        {"2026-03-01", "2026-03-02", "2026-03-03"}
        <= set(kept)
        < set(first.days("train")) | {"2026-03-04", "2026-03-05"}
    )
    assert_as_from_scratch(store, dated_spec, log)


def test_profiles_of_new_videos_leave_earlier_days_alone(log: Path, dated_spec: Path, tmp_path: Path) -> None:
    new = arrived_after(log, "2026-03-05")
    assert {path.parent.name for path in new} >= {"video"}
    _, _, kept = build_in_two_steps(dated_spec, log, new, tmp_path / "samples")
    assert {"2026-03-01", "2026-03-02", "2026-03-03"} <= set(kept)


def test_late_outcomes_change_the_files_of_their_day_alone(log: Path, dated_spec: Path, tmp_path: Path) -> None:
    """`stay` is a label of the short_video spec; no counter and no history uses it."""
    store = tmp_path / "samples"
    path, rows = take_out(log / "stay", on("2026-03-03") & (pl.col("impression_id").hash(0) % 3 == 0))
    build(dated_spec, log, store)
    before = samples_by_day(store)
    rows.write_parquet(path)
    build(dated_spec, log, store)
    after = samples_by_day(store)
    assert {day for day in before if before[day] != after[day]} == {"2026-03-03"}
    assert_as_from_scratch(store, dated_spec, log)


def test_late_clicks_reach_the_days_after_through_counters_and_histories(
    log: Path, dated_spec: Path, tmp_path: Path
) -> None:
    store = tmp_path / "samples"
    path, rows = take_out(log / "click", on("2026-03-02") & (pl.col("impression_id").hash(0) % 3 == 0))
    build(dated_spec, log, store)
    before = samples_by_day(store)
    rows.write_parquet(path)
    build(dated_spec, log, store)
    after = samples_by_day(store)
    assert {day for day in before if before[day] != after[day]} >= {f"2026-03-{day:02}" for day in range(2, 7)}
    assert_as_from_scratch(store, dated_spec, log)


def remove_clicks(raw: Path) -> None:
    (raw / "click" / "2026-03-03-000.parquet").unlink()


def remove_the_last_day(raw: Path) -> None:
    for path in arrived_after(raw, "2026-03-05"):
        path.unlink()


def replace_profiles(raw: Path) -> None:
    for path in (raw / "video").glob("*.parquet"):
        rows = pl.read_parquet(path)
        rows.with_columns(pl.col("duration_ms") * 2, pl.col("author_id").shuffle(0)).write_parquet(path)


@pytest.mark.parametrize("change", [remove_clicks, remove_the_last_day, replace_profiles])
def test_after_raw_files_were_removed_or_replaced_the_store_is_as_from_scratch(
    log: Path, dated_spec: Path, tmp_path: Path, change: Callable[[Path], None]
) -> None:
    store = tmp_path / "samples"
    first = build(dated_spec, log, store)
    change(log)
    assert build(dated_spec, log, store).files != first.files
    assert_as_from_scratch(store, dated_spec, log)


def test_two_builds_give_the_same_files(built: Path, whole_log: Path, dated_spec: Path, tmp_path: Path) -> None:
    build(dated_spec, whole_log, tmp_path / "samples")
    assert content(tmp_path / "samples") == content(built)


def test_a_build_of_what_is_finished_makes_nothing_anew(store: Path, whole_log: Path, dated_spec: Path) -> None:
    before = finished(store)
    build(dated_spec, whole_log, store)
    assert finished(store) == before
