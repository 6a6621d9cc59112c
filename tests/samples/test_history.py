"""A history holds the user's last events strictly before the impression, against a brute force over random logs."""

import random

import polars as pl
import pytest

from pipeline.samples.history import append_history

SAMPLES = pl.DataFrame({"uid": [1, 1, 1, 2, 3], "at": [10, 20, 30, 20, 20]})


def histories(samples: pl.DataFrame, past: pl.DataFrame, last: int) -> list[list[object]]:
    found = append_history(samples, past, user="uid", time="at", name="history", last=last)
    assert found.select(samples.columns).equals(samples)
    return found["history"].to_list()


def log(*rows: tuple[int | None, int | None, object]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=["user", "time_ms", "value"], orient="row")


def test_strictly_before_oldest_first_own_events_only() -> None:
    past = log((1, 5, "a"), (1, 20, "c"), (1, 12, "b"), (2, 20, "x"), (2, 21, "y"))
    assert histories(SAMPLES, past, last=10) == [["a"], ["a", "b"], ["a", "b", "c"], [], []]


def test_only_the_last_are_kept() -> None:
    past = log(*((1, t, t) for t in range(25)))
    assert histories(SAMPLES, past, last=3) == [[7, 8, 9], [17, 18, 19], [22, 23, 24], [], []]
    assert histories(SAMPLES, past, last=1)[0] == [9]


def test_events_of_the_same_time_are_ordered_by_value() -> None:
    past = log((1, 5, 9), (1, 5, 3), (1, 5, 6), (1, 4, 100))
    assert histories(SAMPLES, past, last=2)[0] == [6, 9]
    assert histories(SAMPLES, past, last=4)[0] == [100, 3, 6, 9]


def test_an_event_without_a_value_is_not_in_it() -> None:
    past = log((1, 5, "a"), (1, 6, None), (1, 7, "b"))
    assert histories(SAMPLES, past, last=2)[0] == ["a", "b"]


@pytest.mark.parametrize("dtype", [pl.Int64, pl.String])
def test_no_events_at_all(dtype: type[pl.DataType]) -> None:
    past = pl.DataFrame(schema={"user": pl.Int64, "time_ms": pl.Int64, "value": dtype})
    found = append_history(SAMPLES, past, user="uid", time="at", name="history", last=3)["history"]
    assert found.to_list() == [[]] * 5
    assert found.dtype == pl.List(dtype)


def test_no_samples() -> None:
    assert histories(SAMPLES.clear(), log((1, 5, "a")), last=3) == []


@pytest.mark.parametrize("seed", range(5))
def test_random_logs_against_a_brute_force(seed: int) -> None:
    """Few users and times, so that ties between events, and with impressions, abound."""
    rng = random.Random(seed)
    events = [(rng.randrange(6), rng.randrange(60), rng.randrange(20)) for _ in range(400)]
    asked = [(rng.randrange(8), rng.randrange(65)) for _ in range(300)]
    last = rng.choice([1, 2, 5, 100])
    expected = [
        [value for _, value in sorted((t, v) for u, t, v in events if u == user and t < at)][-last:]
        for user, at in asked
    ]
    samples = pl.DataFrame(asked, schema=["uid", "at"], orient="row")
    assert histories(samples, log(*events), last) == expected
    rng.shuffle(events)
    assert histories(samples, log(*events), last) == expected
