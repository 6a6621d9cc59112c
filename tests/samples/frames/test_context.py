"""What is known of an impression: its local day, and the row of each profile that was in force at its time."""

import random
from datetime import date, datetime
from typing import Any
from zoneinfo import ZoneInfo

import polars as pl
import pytest

from pipeline.samples.frames.context import append_context, append_identity, append_profile, count_repeats
from pipeline.samples.frames.days import begins_ms
from pipeline.spec.logs import Logs, Profile
from pipeline.spec.spec import Spec

PLAIN = Profile.model_validate(
    {"files": "user", "key": "user", "columns": {"user": "int64", "city": "string", "age": "int64"}}
)
DATED = Profile.model_validate(
    {
        "files": "user",
        "key": "user",
        "valid_from": "since",
        "valid_to": "until",
        "columns": {"user": "int64", "since": "int64", "until": "int64", "city": "string"},
    }
)
OPEN = DATED.model_copy(update={"valid_to": None, "columns": {"user": "int64", "since": "int64", "city": "string"}})


def joined(shown: pl.DataFrame, rows: pl.DataFrame, profile: Profile) -> pl.DataFrame:
    found = append_profile(shown.lazy(), rows.lazy(), "person", profile, "ms").collect()
    assert found.select(shown.columns).equals(shown)
    assert found.columns == [*shown.columns, *profile.values, " without person"]
    return found.drop(shown.columns)


def test_a_profile_without_validity_is_joined_by_its_key() -> None:
    """A row with nothing but nulls is there all the same."""
    shown = pl.DataFrame({"user": [3, 1, 9, 1, 2, None], "ms": [5, 4, 3, 2, 1, 0]})
    rows = pl.DataFrame({"user": [1, 2, 3], "city": ["a", None, "c"], "age": [10, None, 30]})
    assert joined(shown, rows, PLAIN).rows() == [
        ("c", 30, False),
        ("a", 10, False),
        (None, None, True),
        ("a", 10, False),
        (None, None, False),
        (None, None, True),
    ]


@pytest.mark.parametrize(
    ("ms", "expected"),
    [
        (9, (None, True)),  # nothing yet
        (10, ("a", False)),  # valid from this ms on
        (19, ("a", False)),
        (20, (None, True)),  # valid until the ms before
        (29, (None, True)),  # a gap
        (30, ("b", False)),
        (35, ("c", False)),  # the later row, though the earlier is valid too
        (39, ("c", False)),
        (40, (None, True)),  # which is over, and does not come back
        (50, (None, False)),  # a row whose city is unknown
        (10**15, (None, False)),
    ],
)
def test_the_last_row_that_began_counts_if_it_has_not_ended(ms: int, expected: tuple[str | None, bool]) -> None:
    rows = pl.DataFrame(
        {
            "user": [1, 1, 1, 1, 2],
            "since": [35, 10, 50, 30, 0],
            "until": [40, 20, None, 45, None],
            "city": ["c", "a", None, "b", "another user's"],
        }
    )
    assert joined(pl.DataFrame({"user": [1], "ms": [ms]}), rows, DATED).row(0) == expected


@pytest.mark.parametrize("profile", [DATED, OPEN], ids=["with an end", "without"])
@pytest.mark.parametrize("seed", range(4))
def test_random_profiles_against_a_brute_force(seed: int, profile: Profile) -> None:
    """Few times, so that validity often begins or ends with an impression; many users have gaps or no row."""
    rng = random.Random(seed)
    begins = {(rng.randrange(6), rng.randrange(40)) for _ in range(40)}
    rows: list[tuple[int, int, int | None, str | None]] = [
        (user, since, rng.choice([None, since, since + rng.randrange(1, 9)]), rng.choice(["a", "b", None]))
        for user, since in begins
    ]
    rng.shuffle(rows)
    shown = [(rng.randrange(8), rng.randrange(-5, 45)) for _ in range(300)]
    expected: list[tuple[str | None, bool]] = []
    for user, ms in shown:
        begun = [row for row in rows if row[0] == user and row[1] <= ms]
        _, _, until, city = max(begun, key=lambda row: row[1], default=(0, 0, -100, None))
        over = until is not None and until <= ms
        if profile is OPEN:
            over = not begun
        expected.append((None if over else city, over))
    types = {"user": pl.Int64, "since": pl.Int64, "until": pl.Int64, "city": pl.String}
    frame = pl.DataFrame(rows, schema=types, orient="row").select(*profile.columns)
    asked = pl.DataFrame(shown, schema={"user": pl.Int64, "ms": pl.Int64}, orient="row")
    found = joined(asked, frame, profile).rows()
    assert found == expected
    assert {over for _, over in found} == {True, False}


def test_a_profile_without_rows() -> None:
    rows = pl.DataFrame(schema={"user": pl.Int64, "since": pl.Int64, "until": pl.Int64, "city": pl.String})
    assert joined(pl.DataFrame({"user": [1, 2], "ms": [1, 2]}), rows, DATED).rows() == [(None, True)] * 2


# ---------------------------------------------------------------------------------------- days and sample ids


def spec(timezone: str = "UTC", day: str | None = None, ids: tuple[str, ...] = ("user", "video"), **logs: Any) -> Spec:
    columns = {"user": "int64", "video": "int64", "ms": "int64", "click": "bool"}
    return Spec.model_validate(
        {
            "name": "small",
            "logs": {
                "timezone": timezone,
                "day": day,
                "impression": {
                    "files": "log",
                    "columns": columns,
                    "id": ids,
                    "user": "user",
                    "video": "video",
                    "time": "ms",
                    "outcomes": ["click"],
                },
                **logs,
            },
            "columns": {"hour": "extract(hour from impression_time)", "late": "hour > 20"},
            "tables": {"user": {"encode": "hash", "rows": 8, "dim": 4}},
            "features": {"user": {"kind": "id", "table": "user"}},
            "objectives": {"click": {"kind": "binary", "label": "click"}},
            "scenes": {"all": {"where": "true", "weights": {"click": 1}}},
        }
    )


@pytest.mark.parametrize("timezone", ["UTC", "Asia/Shanghai", "America/New_York", "Asia/Kathmandu"])
def test_days_and_hours_are_those_of_the_wall_clock(timezone: str) -> None:
    """Also where clocks change: on 8 March and 1 November 2026 in New York."""
    rng = random.Random(0)
    around = [datetime(2026, month, d).timestamp() for month, d in ((3, 7), (3, 8), (3, 9), (10, 31), (11, 1), (11, 2))]
    times = [int(rng.choice(around)) * 1000 + rng.randrange(86_400_000) for _ in range(500)]
    shown = pl.LazyFrame({"user": 1, "video": 2, "ms": times, "click": True})
    found = append_context(shown, {}, spec(timezone)).collect()
    clock = [datetime.fromtimestamp(ms / 1000, ZoneInfo(timezone)) for ms in times]
    assert found["local_day"].to_list() == found["day"].to_list() == [moment.date() for moment in clock]
    assert found["hour"].to_list() == [moment.hour for moment in clock]
    assert found["late"].to_list() == [moment.hour > 20 for moment in clock]
    assert all(begins_ms(day, timezone) <= ms for day, ms in zip(found["local_day"], times, strict=True))
    assert begins_ms(date(2026, 3, 8), timezone) == round(
        datetime(2026, 3, 8, tzinfo=ZoneInfo(timezone)).timestamp() * 1000
    )


def test_the_day_of_filing_may_be_another_than_the_local_one() -> None:
    shown = pl.LazyFrame({"user": 1, "video": [20260305, 20260306], "ms": [0, 1], "click": True})
    found = append_context(shown, {}, spec(day="strptime(cast(video as string), '%Y%m%d')")).collect()
    assert found["day"].to_list() == [date(2026, 3, 5), date(2026, 3, 6)]
    assert found["local_day"].to_list() == [date(1970, 1, 1)] * 2


def identified(shown: pl.DataFrame, logs: Logs) -> list[Any]:
    found = append_identity(count_repeats(shown, logs).lazy(), logs).collect()
    assert (found["user_id"].to_list(), found["time_ms"].to_list()) == (shown["user"].to_list(), shown["ms"].to_list())
    return found["sample_id"].to_list()


def test_a_repeated_id_of_an_interaction_log_is_numbered() -> None:
    shown = pl.DataFrame({"user": [1, 1, 2, 1], "video": [5, 5, 5, 5], "ms": [1, 2, 3, 4], "click": True})
    assert identified(shown, spec().logs) == ["1-5", "1-5#1", "2-5", "1-5#2"]
    assert identified(shown[1:3], spec().logs) == ["1-5", "2-5"]


def test_users_that_share_an_id_do_not_number_each_others() -> None:
    """Whether they meet depends on the number of partitions, on which a sample id must not depend."""
    shown = pl.DataFrame({"user": [1, 2], "video": [5, 5], "ms": [1, 2], "click": True})
    logs = spec(ids=("video",)).logs
    together = identified(shown, logs)
    apart = identified(shown[:1], logs) + identified(shown[1:], logs)
    assert together == apart
