"""Trailing counters see the completed days before the impression's, against a brute force over random logs."""

import random
from collections.abc import Iterable
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from pipeline.samples.frames.counters import KEY, add_up, append_counters, daily_counts, windows
from pipeline.spec.features import Counters

MONDAY = date(2026, 3, 2)
Event = tuple[int | None, str, int, float | None]  # user, tag, day after Monday, seconds


def table(rows: list[Event]) -> pl.DataFrame:
    schema = {"user": pl.Int64, "tag": pl.String, "offset": pl.Int64, "seconds": pl.Float64}
    frame = pl.DataFrame(rows, schema=schema, orient="row")
    return frame.with_columns(local_day=pl.lit(MONDAY) + pl.duration(days=pl.col("offset")))


def counters(days: list[int], by: list[str], **measures: dict[str, str]) -> Counters:
    return Counters.model_validate({"days": days, "by": {name: name for name in by}, "measures": measures})


def counted(samples: pl.DataFrame, parts: Iterable[dict[str, pl.DataFrame]], asked: Counters) -> pl.DataFrame:
    """The samples with their counters; each of `parts` has by kind some of the events, counted by themselves."""
    parts = list(parts)
    by_day = {
        by: [daily_counts(part, asked, key).partition_by("local_day", as_dict=True) for part in parts]
        for by, key in asked.by.items()
    }
    days = []
    for (day,), of_day in samples.with_row_index("row").partition_by("local_day", as_dict=True).items():
        found: dict[str, pl.LazyFrame | None] = {}
        for by, counts in by_day.items():
            past = [((day - d).days, frame.lazy()) for part in counts for (d,), frame in part.items()]
            within = [(back, frame) for back, frame in past if 0 < back <= max(asked.days)]
            found[by] = windows(within, asked, by).lazy() if within else None
        days.append(append_counters(of_day.lazy(), found, asked).collect())
    return pl.concat(days).sort("row").drop("row")


def test_a_literal_log() -> None:
    plays: list[Event] = [(1, "a", 0, 10.0), (1, "b", 0, 20.0), (1, "a", 1, 60.0), (2, "a", 2, 5.0), (1, "a", 3, 7.0)]
    samples = table([(1, "a", 0, None), (1, "a", 1, None), (1, "b", 2, None), (1, "a", 3, None), (2, "c", 9, None)])
    asked = counters([1, 2], ["user", "tag"], plays={"event": "play"}, length={"event": "play", "mean": "seconds"})
    found = counted(samples, [{"play": table(plays)}], asked)
    assert found.select(samples.columns).equals(samples)
    assert {name: found[name].to_list() for name in asked.columns()} == {
        "user_plays_1d": [0, 2, 1, 0, 0],  # nothing of its own day, and of the day before only
        "user_plays_2d": [0, 2, 3, 1, 0],
        "user_length_1d": [None, 15, 60, None, None],
        "user_length_2d": [None, 15, 30, 60, None],
        "tag_plays_1d": [0, 1, 0, 1, 0],
        "tag_plays_2d": [0, 1, 1, 2, 0],
        "tag_length_1d": [None, 10, None, 5, None],
        "tag_length_2d": [None, 10, 20, 32.5, None],
    }
    assert {found.schema[name] for name in asked.columns()} == {pl.Float32}


def test_a_condition_and_a_missing_value_leave_events_out() -> None:
    plays: list[Event] = [(1, "a", 0, 10.0), (1, "b", 0, 20.0), (1, "a", 0, None), (1, "a", 0, float("nan"))]
    asked = counters(
        [1],
        ["user"],
        plays={"event": "play"},
        of_a={"event": "play", "where": "tag = 'a'"},
        mean_a={"event": "play", "where": "tag = 'a'", "mean": "seconds * 2"},
        inverse={"event": "play", "mean": "1 / (seconds - 10)"},
    )
    found = counted(table([(1, "z", 1, None)]), [{"play": table(plays)}], asked)
    assert found.select(asked.columns()).rows() == [(4, 3, 20, pytest.approx(0.1))]


def test_a_missing_key_counts_nothing() -> None:
    asked = counters([1], ["user"], plays={"event": "play"})
    plays: list[Event] = [(None, "a", 0, 1.0), (1, "a", 0, 1.0)]
    found = counted(table([(None, "a", 1, None), (1, "a", 1, None)]), [{"play": table(plays)}], asked)
    assert found["user_plays_1d"].to_list() == [0, 1]


def test_no_events_at_all() -> None:
    asked = counters([1], ["user"], plays={"event": "play"}, length={"event": "play", "mean": "seconds"})
    found = counted(table([(1, "a", 1, None)]), [{"play": table([])}], asked)
    assert found.select(asked.columns()).rows() == [(0, None)]
    assert found.select(asked.columns()).dtypes == [pl.Float32] * 2


def test_daily_counts_of_a_literal_log() -> None:
    """A day with one kind of event alone has nothing of the others; a sum has nine decimal places."""
    asked = counters(
        [1],
        ["tag"],
        shown={},
        long={"event": "play", "where": "seconds > 5"},
        length={"event": "play", "mean": "seconds"},
    )
    shown: list[Event] = [(1, "a", 0, None), (2, "a", 0, None), (2, "b", 1, None)]
    plays: list[Event] = [(1, "a", 0, 0.1), (1, "a", 0, 0.2), (1, "a", 0, 6.0000000001), (1, "a", 2, 7.5)]
    found = daily_counts({"impression": table(shown), "play": table(plays)}, asked, "tag").sort(KEY, "local_day")
    assert found.select(KEY, "local_day", "shown n", "long n", "length n", "length sum").rows() == [
        ("a", MONDAY, 2, 1, 3, Decimal("6.3")),
        ("a", MONDAY + timedelta(2), 0, 1, 1, Decimal("7.5")),
        ("b", MONDAY + timedelta(1), 1, 0, 0, 0),
    ]


def random_log(seed: int) -> dict[str, list[Event]]:
    rng = random.Random(seed)
    return {
        kind: [(rng.randrange(5), rng.choice("ab"), rng.randrange(12), rng.randrange(90) / 7) for _ in range(n)]
        for kind, n in (("impression", 150), ("play", 60))
    }


ASKED = counters(
    [1, 3, 7],
    ["user", "tag"],
    shown={},
    plays={"event": "play", "where": "seconds > 2"},
    length={"event": "play", "mean": "seconds"},
)


@pytest.mark.parametrize("seed", range(3))
def test_random_logs_against_a_brute_force(seed: int) -> None:
    rng, kinds = random.Random(-seed), random_log(seed)
    samples = table([(rng.randrange(7), rng.choice("abc"), rng.randrange(15), None) for _ in range(100)])
    found = counted(samples, [{kind: table(rows) for kind, rows in kinds.items()}], ASKED)
    assert found.select(samples.columns).equals(samples)
    for sample in found.to_dicts():
        for by, position in (("user", 0), ("tag", 1)):
            for days in ASKED.days:
                first = sample["local_day"] - timedelta(days)
                past = {
                    kind: [
                        seconds
                        for *keys, offset, seconds in rows
                        if keys[position] == sample[by] and first <= MONDAY + timedelta(offset) < sample["local_day"]
                    ]
                    for kind, rows in kinds.items()
                }
                assert sample[f"{by}_shown_{days}d"] == len(past["impression"])
                assert sample[f"{by}_plays_{days}d"] == sum(s > 2 for s in past["play"])
                mean = pytest.approx(np.mean(past["play"])) if past["play"] else None
                assert sample[f"{by}_length_{days}d"] == mean


@pytest.mark.parametrize("seed", range(3))
def test_counters_do_not_depend_on_how_the_log_is_divided(seed: int) -> None:
    """To the last bit: events counted all at once, or in parts of any order that are added up."""
    rng, kinds = random.Random(-seed), random_log(seed)
    samples = table([(rng.randrange(7), rng.choice("abc"), rng.randrange(15), None) for _ in range(100)])
    parts: list[dict[str, list[Event]]] = [{kind: [] for kind in kinds} for _ in range(4)]
    for kind, rows in kinds.items():
        for row in rng.sample(rows, len(rows)):
            rng.choice(parts)[kind].append(row)
    whole = counted(samples, [{kind: table(rows) for kind, rows in kinds.items()}], ASKED)
    divided = counted(samples, [{kind: table(rows) for kind, rows in part.items()} for part in parts], ASKED)
    assert_frame_equal(divided, whole, check_exact=True)

    def daily(events: dict[str, list[Event]]) -> pl.LazyFrame:
        return daily_counts({kind: table(rows) for kind, rows in events.items()}, ASKED, "tag").lazy()

    by = [KEY, "local_day"]
    added: Any = add_up([daily(part) for part in parts], by).sort(by).collect()
    assert_frame_equal(added, daily(kinds).sort(by).collect(), check_column_order=False, check_exact=True)
