"""A history holds the user's last events strictly before the impression, against a brute force over random logs."""

import random

import numpy as np
import polars as pl
import pytest

from pipeline.columns import EVENT_TIME
from pipeline.samples.frames.history import VALUE, find_spans, lists_of_spans, sort_past, still_needed

SAMPLES = pl.DataFrame({"user": [1, 1, 1, 2, 3], "time_ms": [10, 20, 30, 20, 20]})
Row = tuple[int | None, int | None, object]  # user, time, value


def log(*rows: Row) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=["user", EVENT_TIME, VALUE], orient="row")


def histories(asked: pl.DataFrame, past: pl.DataFrame, last: int) -> list[list[object]]:
    ordered = sort_past(past)
    spans = find_spans(asked, ordered, last)
    assert len(spans.start) == len(spans.length) == asked.height
    return lists_of_spans(ordered[VALUE], spans).to_list()


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


def test_times_may_lie_before_all_events_or_long_after() -> None:
    past = log((1, 2_000_000_000_000, "a"), (2, 2_000_000_000_005, "b"))
    asked = pl.DataFrame({"user": [1, 1, 2, 2, 1], "time_ms": [0, 4_000_000_000_000, 0, 4_000_000_000_000, 2 * 10**12]})
    assert histories(asked, past, last=2) == [[], ["a"], [], ["b"], []]


@pytest.mark.parametrize("dtype", [pl.Int64, pl.String])
def test_no_events_at_all(dtype: type[pl.DataType]) -> None:
    past = pl.DataFrame(schema={"user": pl.Int64, EVENT_TIME: pl.Int64, VALUE: dtype})
    found = lists_of_spans(past[VALUE], find_spans(SAMPLES, past, last=3))
    assert found.to_list() == [[]] * 5
    assert found.dtype == pl.List(dtype)
    assert still_needed(past, 3, 10).equals(past)


def test_no_samples() -> None:
    assert histories(SAMPLES.clear(), log((1, 5, "a")), last=3) == []


def plain(events: list[Row], user: int | str, before: int, last: int) -> list[object]:
    return [value for _, value in sorted((t, v) for u, t, v in events if u == user and t < before)][-last:]


@pytest.mark.parametrize("last", [1, 2, 5, 100])
@pytest.mark.parametrize("seed", range(3))
def test_random_logs_against_a_brute_force(seed: int, last: int) -> None:
    """Few users and times, so that ties between events, and with impressions, abound; some users have no past."""
    rng = random.Random(seed)
    name = [lambda number: number, lambda number: f"user {number}"][seed % 2]
    events: list[Row] = [(name(rng.randrange(6)), rng.randrange(5, 60), rng.randrange(20)) for _ in range(400)]
    asked = [(name(rng.randrange(9)), rng.randrange(65)) for _ in range(300)]
    expected = [plain(events, user, at, last) for user, at in asked]
    rows = pl.DataFrame(asked, schema=["user", "time_ms"], orient="row")
    assert histories(rows, log(*events), last) == expected
    rng.shuffle(events)
    by_user = rows.with_row_index("row").sort("user", "time_ms")  # as attributed impressions come
    assert histories(by_user, log(*events), last) == [expected[row] for row in by_user["row"]]


@pytest.mark.parametrize("last", [1, 3, 50])
@pytest.mark.parametrize("seed", range(3))
def test_carried_from_day_to_day_a_history_is_that_of_the_whole_log(seed: int, last: int) -> None:
    """An event may be found a day or two before it happens: with its impression. On some days a user does nothing."""
    rng = random.Random(seed)
    day, days = 20, 6
    found_on: dict[int, list[Row]] = {number: [] for number in range(days)}
    for _ in range(250):
        begins = rng.randrange(days * day)
        found_on[begins // day].append((rng.randrange(5), begins + rng.choice([0, 0, 1, 5, 25, 45]), rng.randrange(9)))
    found_on[3] = []
    everything = [event for events in found_on.values() for event in events]
    carried = log(*everything).clear()
    for number, events in found_on.items():
        happened = sort_past(pl.concat([carried, log(*events).cast(dict(carried.schema))]))
        asked = [(rng.randrange(7), rng.randrange(number * day, (number + 1) * day)) for _ in range(80)]
        rows = pl.DataFrame(asked, schema=["user", "time_ms"], orient="row")
        lists = lists_of_spans(happened[VALUE], find_spans(rows, happened, last)).to_list()
        assert lists == [plain(everything, user, at, last) for user, at in asked]
        carried = still_needed(happened, last, (number + 1) * day)
        assert carried.equals(sort_past(carried))


@pytest.mark.parametrize("last", [1, 3])
@pytest.mark.parametrize("seed", range(3))
def test_no_more_is_carried_than_can_be_seen(seed: int, last: int) -> None:
    """Of each user the last events before the moment, and all from then on, the moment itself included."""
    rng = random.Random(seed)
    before = 30
    events: list[Row] = [(rng.randrange(6), rng.randrange(60), rng.randrange(4)) for _ in range(150)]
    expected = []
    for user in range(6):
        mine = sorted((t, v) for u, t, v in events if u == user)
        early = [event for event in mine if event[0] < before]
        expected += [(user, *event) for event in early[-last:] + [event for event in mine if event[0] >= before]]
    assert still_needed(sort_past(log(*events)), last, before).rows() == expected
    assert not np.array_equal([row[1] for row in expected], sorted(row[1] for row in events))
