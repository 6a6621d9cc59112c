"""How a build is divided: days into splits, users into partitions."""

from datetime import date, timedelta
from pathlib import Path

import polars as pl
import pytest

from pipeline.errors import StrataError
from pipeline.raw.reading import RawFile, find_files
from pipeline.samples.division import DIVISION, Options, divide, estimate_busiest_day, estimate_rows
from pipeline.samples.frames.days import DAY_MS
from pipeline.samples.split import split_days
from pipeline.spec.logs import Logs, RawTable
from pipeline.spec.spec import Split
from pipeline.storage import Folder

RAW = Folder.at("/raw")
MONDAY = date(2026, 3, 2)


def days(*offsets: int) -> list[date]:
    return [MONDAY + timedelta(offset) for offset in offsets]


def splits(offsets: list[int], **split: object) -> str:
    """The first letter of each day's split, in the order of the days."""
    found = split_days(reversed(days(*offsets)), Split.model_validate(split), RAW)
    assert list(found) == days(*offsets)
    return "".join(name[0] for name in found.values()).replace("t", "T", list(found.values()).count("train"))


@pytest.mark.parametrize(
    ("split", "expected"),
    [
        ({}, "TTTTvt"),
        ({"valid_days": 2}, "TTTvvt"),
        ({"test_days": 3, "valid_days": 2}, "Tvvttt"),
        ({"valid_from": MONDAY + timedelta(2), "test_from": MONDAY + timedelta(4)}, "TTvtt"),
    ],
)
def test_the_last_days_are_for_validation_and_test(split: dict[str, object], expected: str) -> None:
    """By number it is days with samples that count, by date days of the calendar."""
    offsets = [0, 1, 3, 4, 7, 9] if len(expected) == 6 else [0, 1, 3, 4, 7]
    assert splits(offsets, **split) == expected


def test_a_day_that_comes_later_moves_no_other_if_the_split_is_by_dates() -> None:
    by_dates = {"valid_from": MONDAY + timedelta(1), "test_from": MONDAY + timedelta(2)}
    assert splits([0, 1, 2], **by_dates) == "Tvt"
    assert splits([-1, 0, 1, 2, 3], **by_dates) == "TTvtt"
    assert splits([0, 1, 2, 3]) == "TTvt"


@pytest.mark.parametrize(
    ("split", "message"),
    [
        ({"valid_days": 2}, "has impressions on 3 days, but validation and test alone take 3; add earlier days"),
        ({"valid_days": 9}, "has impressions on 3 days, but validation and test alone take 10; add earlier days"),
        (
            {"valid_from": MONDAY, "test_from": MONDAY + timedelta(2)},
            "has impressions on 3 days, but they are 2026-03-02 to 2026-03-04, validation begins on 2026-03-02 "
            "and the test on 2026-03-04; add earlier",
        ),
        (
            {"valid_from": MONDAY + timedelta(1), "test_from": MONDAY + timedelta(3)},
            "has impressions on 3 days, but they are 2026-03-02 to 2026-03-04, validation begins on 2026-03-03 "
            "and the test on 2026-03-05; add the later days",
        ),
    ],
)
def test_a_split_needs_a_day_to_train_on(split: dict[str, object], message: str) -> None:
    with pytest.raises(StrataError) as error:
        split_days(days(0, 1, 2), Split.model_validate(split), RAW)
    assert str(error.value).startswith(f"/raw: {message}")


# ------------------------------------------------------------------------------------------------ partitions


LOGS = Logs.model_validate(
    {
        "timezone": "Asia/Shanghai",
        "impression": {
            "files": "log",
            "columns": {"id": "int64", "time_ms": "int64", "clicked": "bool"},
            "id": ["id"],
            "user": "id",
            "video": "id",
            "time": "time_ms",
            "outcomes": ["clicked"],
        },
    }
)
MORNING_MS = 8 * 3_600_000  # of a UTC day, so that 12 hours from then on are of one day in Shanghai as well


def write_log(folder: Path, rows: int, days: int = 1, stray_days: int = 0) -> list[RawFile]:
    """Three files a day; in each the last row is of a day that lies further back."""
    (folder / "log").mkdir(exist_ok=True, parents=True)
    for day in range(days):
        times = pl.int_range(rows, eager=True) % (DAY_MS // 2 - MORNING_MS) + (20_000 + day) * DAY_MS + MORNING_MS
        times[-1] = int(times[-1]) - stray_days * DAY_MS
        for part in range(3):
            pl.DataFrame({"time_ms": times}).write_parquet(folder / "log" / f"{day:03d}-{part}.parquet")
    return found(folder)


def found(folder: Path) -> list[RawFile]:
    return find_files("log", RawTable(files="log", columns={"time_ms": "int64"}), Folder.at(folder))


def partitions(files: list[RawFile], options: Options) -> int:
    return divide(options, LOGS, files, files, Folder.at("/nowhere")).partitions


def test_less_memory_means_more_partitions(tmp_path: Path) -> None:
    files = write_log(tmp_path, 1_000_000)
    assert estimate_rows(files) == 3_000_000
    few, more, most = (partitions(files, Options(workers=1, memory_gb=gb)) for gb in (8, 0.44, 0.41))
    assert 2 <= few < more < most
    assert partitions(files, Options(workers=4, memory_gb=8)) % 4 == 0
    for gb in (0.3, float("nan"), float("inf")):
        with pytest.raises(StrataError, match=r"GB are too little for 1 workers; give at least 0\.4 GB"):
            partitions(files, Options(workers=1, memory_gb=gb))


def test_a_partition_holds_a_day_of_its_users_and_not_all_days(tmp_path: Path) -> None:
    for days in (1, 4):
        files = write_log(tmp_path / f"{days} days", 1_000_000, days)
        assert estimate_busiest_day(files, "time_ms", "Asia/Shanghai") == 3_000_000
        assert partitions(files, Options(workers=1)) == 6
        assert estimate_busiest_day(files, "not there", "UTC") == 3_000_000 * days


def test_a_stray_time_does_not_spread_the_rows_of_a_day(tmp_path: Path) -> None:
    for stray in (2, 30, 9000, 100_000_000):
        files = write_log(tmp_path / str(stray), 100_000, days=2, stray_days=stray)
        assert estimate_busiest_day(files, "time_ms", "UTC") >= 300_000


def test_a_large_file_counts_by_its_size_though_it_is_not_looked_into(tmp_path: Path) -> None:
    write_log(tmp_path, 1000, days=50)
    times = pl.int_range(100_000, eager=True) + 20_001 * DAY_MS
    pl.DataFrame({"time_ms": times}).write_parquet(tmp_path / "log" / "000-00.parquet")
    files = found(tmp_path)
    assert files[1].info.name == "log/000-00.parquet"  # of three files in a row the first is looked into
    small, larger = files[0].info.size, files[1].info.size
    share = (150 * small + larger) / (51 * small)
    assert estimate_rows(files) == pytest.approx(51 * 1000 * share, rel=0.01)
    # Of the first day two files are looked into.
    assert estimate_busiest_day(files, "time_ms", "UTC") == pytest.approx(2000 * share, rel=0.01)


def test_a_log_without_rows_is_one_partition(tmp_path: Path) -> None:
    assert partitions(write_log(tmp_path, 1)[:0], Options(workers=1)) == 1
    (tmp_path / "log" / "000-0.parquet").write_bytes(b"PAR1")
    assert partitions(found(tmp_path)[:1], Options(workers=1)) == 1


def test_the_partitions_of_an_earlier_build_stay(tmp_path: Path) -> None:
    files = write_log(tmp_path / "raw", 10)
    store = Folder.at(tmp_path / "store")
    assert divide(Options(workers=1), LOGS, files, files, store).partitions == 1
    store.write(DIVISION, b'{"partitions": 11}')
    assert divide(Options(workers=1), LOGS, files, files, store).partitions == 11
    assert divide(Options(workers=1, partitions=5), LOGS, files, files, store).partitions == 5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (Options(partitions=0), "--partitions: found 0; give from 1 to 4096"),
        (Options(partitions=-3), "--partitions: found -3; give from 1 to 4096"),
        (Options(partitions=4097), "--partitions: found 4097; give from 1 to 4096"),
        (Options(workers=0), "--workers: found 0; give at least 1"),
    ],
)
def test_numbers_that_divide_nothing_are_refused(tmp_path: Path, options: Options, message: str) -> None:
    files = write_log(tmp_path, 10)
    with pytest.raises(StrataError) as error:
        partitions(files, options)
    assert str(error.value) == message
