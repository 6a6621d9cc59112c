"""Events belong to their impression by its id, within the window that the spec gives them."""

from typing import Any

import polars as pl
import pytest

from pipeline.samples.attribution import EVENT_TIME, append_outcomes, attribute_events
from pipeline.spec import Logs

HOUR = 3600 * 1000


def logs(**events: dict[str, Any]) -> Logs:
    columns = {"id": "int64", "part": "string", "user": "int64", "video": "int64", "time_ms": "int64"}
    return Logs.model_validate(
        {
            "impression": {
                "files": "shown", "columns": columns, "id": ["id", "part"], "user": "user", "video": "video",
                "time": "time_ms",
            },
            "events": {
                name: {
                    "files": name, "columns": {"id": "int64", "part": "string", "at": "int64", "n": "int64"},
                    "time": "at", "within_s": 3600, **event,
                }
                for name, event in events.items()
            },
        }
    )  # fmt: skip


IMPRESSIONS = pl.DataFrame(
    {"id": [1, 1, 2], "part": ["a", "b", "a"], "user": [7, 7, 8], "video": [5, 5, 5], "time_ms": [1000, 2000, 3000]}
)


def events(*rows: tuple[int, str, int, int]) -> pl.DataFrame:
    columns = {"id": pl.Int64, "part": pl.String, "at": pl.Int64, "n": pl.Int64}
    return pl.DataFrame(rows, schema=columns, orient="row")


@pytest.mark.parametrize(
    ("delay_ms", "counts"),
    [
        (-1, (0, 0, 1)),
        (0, (1, 0, 0)),
        (HOUR, (1, 0, 0)),
        (HOUR + 1, (0, 0, 1)),
        (24 * HOUR, (0, 0, 1)),
    ],
)
def test_the_window_ends_with_within_s_and_begins_with_the_impression(delay_ms: int, counts: tuple[int, ...]) -> None:
    of_kind = logs(like={"values": {"n": "sum"}})
    found = attribute_events(IMPRESSIONS, events((1, "b", 2000 + delay_ms, 4)), of_kind.events["like"], of_kind)
    assert (found.events.height, found.without_impression, found.outside_window) == counts
    if counts[0]:
        assert found.events.to_dicts() == [{"id": 1, "part": "b", EVENT_TIME: 2000 + delay_ms, "n": 4}]


def test_the_whole_id_counts_and_an_unknown_impression_is_counted() -> None:
    of_kind = logs(like={})
    likes = events((1, "c", 2000, 1), (3, "a", 2000, 1), (2, "a", 3001, 1))
    found = attribute_events(IMPRESSIONS, likes, of_kind.events["like"], of_kind)
    assert found.events.to_dicts() == [{"id": 2, "part": "a", EVENT_TIME: 3001}]
    assert (found.without_impression, found.outside_window) == (2, 0)


def test_the_order_of_arrival_does_not_matter() -> None:
    """A late event lies anywhere in the log; its own time decides."""
    of_kind = logs(like={"values": {"n": "first"}})
    likes = events((1, "b", 2500, 1), (2, "a", 4000, 2), (1, "b", 2400, 3))
    for order in ([0, 1, 2], [2, 1, 0], [1, 2, 0]):
        found = attribute_events(IMPRESSIONS, likes[order], of_kind.events["like"], of_kind)
        assert append_outcomes(IMPRESSIONS, {"like": found}, of_kind)["n"].to_list() == [None, 3, 2]


@pytest.mark.parametrize(("how", "expected"), [("sum", 12), ("max", 7), ("min", 1), ("first", 4), ("last", 1)])
def test_an_event_that_happened_more_than_once_is_combined_as_the_spec_says(how: str, expected: int) -> None:
    of_kind = logs(play={"values": {"n": how}})
    plays = events((1, "a", 3000, 1), (1, "a", 1000, 4), (1, "a", 2000, 7), (1, "a", 1000 + HOUR + 1, 100))
    found = attribute_events(IMPRESSIONS, plays, of_kind.events["play"], of_kind)
    samples = append_outcomes(IMPRESSIONS, {"play": found}, of_kind)
    assert samples.select(IMPRESSIONS.columns).equals(IMPRESSIONS)
    assert samples["play"].to_list() == [True, False, False]
    assert samples["n"].to_list() == [expected, None, None]


def test_several_kinds_of_events_each_have_their_columns() -> None:
    of_kind = logs(play={"values": {"n": "sum"}}, like={})
    attributed = {
        "play": attribute_events(IMPRESSIONS, events((1, "a", 1000, 3)), of_kind.events["play"], of_kind),
        "like": attribute_events(IMPRESSIONS, events((2, "a", 3000, 3)), of_kind.events["like"], of_kind),
    }
    found = append_outcomes(IMPRESSIONS, attributed, of_kind).select("id", "part", "play", "n", "like")
    assert found.rows() == [(1, "a", True, 3, False), (1, "b", False, None, False), (2, "a", False, None, True)]


def test_no_events_at_all() -> None:
    of_kind = logs(play={"values": {"n": "sum"}})
    found = attribute_events(IMPRESSIONS, events(), of_kind.events["play"], of_kind)
    samples = append_outcomes(IMPRESSIONS, {"play": found}, of_kind)
    assert samples["play"].to_list() == [False] * 3
    assert samples["n"].to_list() == [None] * 3


def test_columns_of_an_event_may_have_any_name() -> None:
    """Those that are no values are left out; its time may be a value as well."""
    of_kind = logs(like={"values": {"at": "max"}})
    rows = events((1, "b", 2500, 4)).with_columns(impression_time_ms=0, impression_time=0, event_time_ms=0)
    found = attribute_events(IMPRESSIONS, rows, of_kind.events["like"], of_kind)
    assert found.events.to_dicts() == [{"id": 1, "part": "b", EVENT_TIME: 2500, "at": 2500}]
