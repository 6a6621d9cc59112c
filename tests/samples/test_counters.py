"""Trailing counters see the completed days before the impression's, against a brute force over random logs."""

import random
from datetime import date, timedelta

import numpy as np
import polars as pl
import pytest

from pipeline.samples.counters import append_counters
from pipeline.spec import Counters

MONDAY = date(2026, 3, 2)
Event = tuple[int | None, str, int, float | None]  # user, tag, day after Monday, seconds


def table(rows: list[Event]) -> pl.DataFrame:
    schema = {"user": pl.Int64, "tag": pl.String, "offset": pl.Int64, "seconds": pl.Float64}
    frame = pl.DataFrame(rows, schema=schema, orient="row")
    return frame.with_columns(local_day=pl.lit(MONDAY) + pl.duration(days=pl.col("offset")))


def counters(days: list[int], by: list[str], **measures: dict[str, str]) -> Counters:
    return Counters.model_validate({"days": days, "by": {name: name for name in by}, "measures": measures})


def test_a_literal_log() -> None:
    plays: list[Event] = [(1, "a", 0, 10.0), (1, "b", 0, 20.0), (1, "a", 1, 60.0), (2, "a", 2, 5.0), (1, "a", 3, 7.0)]
    samples = table([(1, "a", 0, None), (1, "a", 1, None), (1, "b", 2, None), (1, "a", 3, None), (2, "c", 9, None)])
    asked = counters([1, 2], ["user", "tag"], plays={"event": "play"}, length={"event": "play", "mean": "seconds"})
    found = append_counters(samples, {"play": table(plays)}, asked)
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
        [1], ["user"],
        plays={"event": "play"}, of_a={"event": "play", "where": "tag = 'a'"},
        mean_a={"event": "play", "where": "tag = 'a'", "mean": "seconds * 2"},
        inverse={"event": "play", "mean": "1 / (seconds - 10)"},
    )  # fmt: skip
    found = append_counters(table([(1, "z", 1, None)]), {"play": table(plays)}, asked)
    assert found.select(asked.columns()).rows() == [(4, 3, 20, pytest.approx(0.1))]


def test_a_missing_key_counts_nothing() -> None:
    asked = counters([1], ["user"], plays={"event": "play"})
    plays: list[Event] = [(None, "a", 0, 1.0), (1, "a", 0, 1.0)]
    found = append_counters(table([(None, "a", 1, None), (1, "a", 1, None)]), {"play": table(plays)}, asked)
    assert found["user_plays_1d"].to_list() == [0, 1]


def test_no_events_at_all() -> None:
    asked = counters([1], ["user"], plays={"event": "play"}, length={"event": "play", "mean": "seconds"})
    found = append_counters(table([(1, "a", 1, None)]), {"play": table([])}, asked)
    assert found.select(asked.columns()).rows() == [(0, None)]


@pytest.mark.parametrize("seed", range(3))
def test_random_logs_against_a_brute_force(seed: int) -> None:
    rng = random.Random(seed)
    kinds: dict[str, list[Event]] = {
        kind: [(rng.randrange(5), rng.choice("ab"), rng.randrange(12), float(rng.randrange(9))) for _ in range(n)]
        for kind, n in (("impression", 150), ("play", 60))
    }
    asked = counters(
        [1, 3, 7], ["user", "tag"],
        shown={}, plays={"event": "play", "where": "seconds > 2"}, length={"event": "play", "mean": "seconds"},
    )  # fmt: skip
    samples = table([(rng.randrange(7), rng.choice("abc"), rng.randrange(15), None) for _ in range(100)])
    found = append_counters(samples, {kind: table(rows) for kind, rows in kinds.items()}, asked)
    for sample in found.to_dicts():
        for by, position in (("user", 0), ("tag", 1)):
            for days in asked.days:
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
