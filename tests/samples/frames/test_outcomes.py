"""Events belong to the impression of their id and user, within the window that the spec gives them; copies are one."""

from typing import Any

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from pipeline.columns import EVENT_TIME
from pipeline.samples.frames.outcomes import ROW, append_outcomes, attribute_events, drop_repeats
from pipeline.spec.logs import Logs

HOUR = 3600 * 1000


def logs(**events: dict[str, Any]) -> Logs:
    columns = {"id": "int64", "part": "string", "user": "int64", "video": "int64", "time_ms": "int64"}
    event_columns = {"id": "int64", "part": "string", "user": "int64", "at": "int64", "n": "int64"}
    return Logs.model_validate(
        {
            "impression": {
                "files": "shown",
                "columns": columns,
                "id": ["id", "part"],
                "user": "user",
                "video": "video",
                "time": "time_ms",
            },
            "events": {
                name: {"files": name, "columns": event_columns, "time": "at", "within_s": 3600, **event}
                for name, event in events.items()
            },
        }
    )


IMPRESSIONS = pl.DataFrame(
    {"id": [1, 1, 2], "part": ["a", "b", "a"], "user": [7, 7, 8], "video": [5, 5, 5], "time_ms": [1000, 2000, 3000]}
)


def events(*rows: tuple[int, str, int, int, int]) -> pl.DataFrame:
    columns = {"id": pl.Int64, "part": pl.String, "user": pl.Int64, "at": pl.Int64, "n": pl.Int64}
    return pl.DataFrame(rows, schema=columns, orient="row")


@pytest.mark.parametrize(
    ("delay_ms", "counts"),
    [
        (-1, (0, 1)),
        (0, (1, 0)),
        (HOUR, (1, 0)),
        (HOUR + 1, (0, 1)),
        (24 * HOUR, (0, 1)),
    ],
)
def test_the_window_ends_with_within_s_and_begins_with_the_impression(delay_ms: int, counts: tuple[int, int]) -> None:
    of_kind = logs(like={"values": {"n": "sum"}})
    found = attribute_events(IMPRESSIONS, events((1, "b", 7, 2000 + delay_ms, 4)), of_kind.events["like"], of_kind)
    assert (found.events.height, found.outside_window) == counts
    if counts[0]:
        assert found.events.to_dicts() == [{ROW: 1, EVENT_TIME: 2000 + delay_ms, "n": 4}]


def test_the_whole_id_and_the_user_count() -> None:
    of_kind = logs(like={})
    likes = events((1, "c", 7, 2000, 1), (3, "a", 8, 2000, 1), (2, "a", 8, 3001, 1), (2, "a", 7, 3001, 1))
    found = attribute_events(IMPRESSIONS, likes, of_kind.events["like"], of_kind)
    assert found.events.to_dicts() == [{ROW: 2, EVENT_TIME: 3001}]
    assert found.outside_window == 0


def test_users_may_share_an_id() -> None:
    """Each has an impression of that id: an event belongs to that of its user."""
    of_kind = logs(like={"values": {"n": "sum"}})
    shared = IMPRESSIONS.with_columns(id=1, part=pl.lit("a"), user=pl.Series([7, 8, 9]))
    likes = events((1, "a", 8, 3000, 80), (1, "a", 9, 3000, 90), (1, "a", 6, 3000, 60))
    found = attribute_events(shared, likes, of_kind.events["like"], of_kind)
    assert append_outcomes(shared, {"like": found.events}, of_kind)["n"].to_list() == [None, 80, 90]


def test_the_user_may_be_part_of_the_id() -> None:
    of_kind = logs(like={"values": {"n": "sum"}})
    impression = of_kind.impression.model_copy(update={"id": ("user", "id", "part")})
    of_kind = of_kind.model_copy(update={"impression": impression})
    likes = events((2, "a", 8, 3001, 4), (2, "a", 7, 3001, 5))
    found = attribute_events(IMPRESSIONS, likes, of_kind.events["like"], of_kind)
    assert found.events.to_dicts() == [{ROW: 2, EVENT_TIME: 3001, "n": 4}]


def test_the_order_of_arrival_does_not_matter() -> None:
    """A late event lies anywhere in the log; its own time decides."""
    of_kind = logs(like={"values": {"n": "first"}})
    likes = events((1, "b", 7, 2500, 1), (2, "a", 8, 4000, 2), (1, "b", 7, 2400, 3))
    for order in ([0, 1, 2], [2, 1, 0], [1, 2, 0]):
        found = attribute_events(IMPRESSIONS, likes[order], of_kind.events["like"], of_kind)
        assert append_outcomes(IMPRESSIONS, {"like": found.events}, of_kind)["n"].to_list() == [None, 3, 2]


@pytest.mark.parametrize(("how", "expected"), [("sum", 12), ("max", 7), ("min", 1), ("first", 4), ("last", 1)])
def test_an_event_that_happened_more_than_once_is_combined_as_the_spec_says(how: str, expected: int) -> None:
    of_kind = logs(play={"values": {"n": how}})
    plays = events((1, "a", 7, 3000, 1), (1, "a", 7, 1000, 4), (1, "a", 7, 2000, 7), (1, "a", 7, 1001 + HOUR, 100))
    found = attribute_events(IMPRESSIONS, plays, of_kind.events["play"], of_kind)
    samples = append_outcomes(IMPRESSIONS, {"play": found.events}, of_kind)
    assert samples.select(IMPRESSIONS.columns).equals(IMPRESSIONS)
    assert samples["play"].to_list() == [True, False, False]
    assert samples["n"].to_list() == [expected, None, None]


def test_several_kinds_of_events_each_have_their_columns() -> None:
    of_kind = logs(play={"values": {"n": "sum"}}, like={})
    attributed = {
        "play": attribute_events(IMPRESSIONS, events((1, "a", 7, 1000, 3)), of_kind.events["play"], of_kind).events,
        "like": attribute_events(IMPRESSIONS, events((2, "a", 8, 3000, 3)), of_kind.events["like"], of_kind).events,
    }
    found = append_outcomes(IMPRESSIONS, attributed, of_kind).select("id", "part", "play", "n", "like")
    assert found.rows() == [(1, "a", True, 3, False), (1, "b", False, None, False), (2, "a", False, None, True)]


def test_no_events_at_all() -> None:
    of_kind = logs(play={"values": {"n": "sum"}})
    found = attribute_events(IMPRESSIONS, events(), of_kind.events["play"], of_kind)
    samples = append_outcomes(IMPRESSIONS, {"play": found.events}, of_kind)
    assert samples["play"].to_list() == [False] * 3
    assert samples["n"].to_list() == [None] * 3


def test_columns_of_an_event_may_have_any_name() -> None:
    """Those that are no values are left out; its time may be a value as well."""
    of_kind = logs(like={"values": {"at": "max"}})
    ours = {name: pl.lit(0) for name in ("impression_time", "impression_user", EVENT_TIME, ROW)}
    rows = events((1, "b", 7, 2500, 4)).with_columns(**ours)
    found = attribute_events(IMPRESSIONS, rows, of_kind.events["like"], of_kind)
    assert found.events.to_dicts() == [{ROW: 1, EVENT_TIME: 2500, "at": 2500}]


# ------------------------------------------------------------------------------------------------- copies


@pytest.mark.parametrize("within", [["id"], ["id", "part"], ["id", "part", "n"]])
@pytest.mark.parametrize("seed", range(4))
def test_copies_are_those_that_polars_finds(seed: int, within: list[str]) -> None:
    """Few values, also missing ones, so that rows repeat the columns of `within` with and without the rest."""
    rng = np.random.default_rng(seed)
    rows = rng.integers(1, 400)
    frame = pl.DataFrame(
        {
            "id": rng.integers(0, 12, rows),
            "part": rng.choice(["a", "b", "c"], rows),
            "n": rng.choice([0.0, 0.5, None, float("nan")], rows).astype(float),
            "x": rng.choice(["", "x", "y"], rows),
        }
    ).with_columns(pl.col("part", "x").replace({"c": None, "y": None}))
    kept = drop_repeats(frame, within)
    assert kept.height < rows or rows < 20
    assert_frame_equal(kept, frame.unique(maintain_order=True))


@pytest.mark.parametrize("rows", [[], [1], [1, 2, 3]])
def test_rows_that_all_differ_are_left_as_they_are(rows: list[int]) -> None:
    frame = pl.DataFrame({"id": rows, "x": 0}, schema={"id": pl.Int64, "x": pl.Int64})
    assert_frame_equal(drop_repeats(frame, ["id"]), frame)


def test_a_row_that_repeats_an_id_with_other_content_is_no_copy() -> None:
    frame = pl.DataFrame({"id": [1, 1, 1, 2], "x": ["a", "b", "a", "a"]})
    assert drop_repeats(frame, ["id"]).rows() == [(1, "a"), (1, "b"), (2, "a")]


def test_the_sum_of_a_missing_value_is_0_for_one_event_as_for_several() -> None:
    of_kind = logs(play={"values": {"n": "sum"}})
    attributed = pl.DataFrame(
        {ROW: [0, 1, 1, 2, 2], EVENT_TIME: [5, 5, 6, 5, 6], "n": [None, None, None, None, 3]},
        schema={ROW: pl.UInt32, EVENT_TIME: pl.Int64, "n": pl.Int64},
    )
    assert append_outcomes(IMPRESSIONS, {"play": attributed}, of_kind)["n"].to_list() == [0, 0, 3]
