"""Turns outcomes into log rows: impressions on both pages, their events, and the truth about them."""

from dataclasses import dataclass

import numpy as np
import polars as pl

from pipeline.simulation.behaviour import Behaviour, draw_dwell_ms, draw_play_ms, draw_stay_and_click
from pipeline.simulation.population import Ints
from pipeline.simulation.sessions import Shown

GLANCE_MS = 400  # spent on an impression without a stay
SCROLL_MS = 500  # to the next impression
OPEN_MS = (200, 1000)  # from a click to the player


@dataclass(frozen=True)
class DayPart:
    """The log of a part of a day: each table in order of time, and a row of truth per impression in order of id."""

    tables: dict[str, pl.DataFrame]
    truth: pl.DataFrame


def draw_day_part(
    behaviour: Behaviour, shown: Shown, day_ms: tuple[int, int], first_id: int, rng: np.random.Generator
) -> DayPart:
    """What happens after the impressions `shown` on the discovery page, between the day's first and last ms.

    The impressions of both pages are numbered together from `first_id`, in order of time.
    """
    discover = behaviour.on_discover(shown)
    stay, click = draw_stay_and_click(discover, rng)
    dwell_ms = np.where(stay, draw_dwell_ms(discover, rng), GLANCE_MS)
    clicked = np.flatnonzero(click)
    on_player = shown[clicked]
    player = behaviour.on_player(on_player)
    play_ms = draw_play_ms(player, behaviour.videos.duration_s[on_player.video], rng)
    like = rng.random(len(clicked), dtype=np.float32) < player.p_like
    open_ms = rng.integers(*OPEN_MS, size=len(clicked))

    spent_ms = dwell_ms + SCROLL_MS
    spent_ms[clicked] += open_ms + play_ms
    discover_ms = _times(shown, spent_ms, day_ms)
    click_ms = discover_ms + dwell_ms
    player_ms = click_ms[clicked] + open_ms
    like_ms = player_ms + np.rint(rng.random(len(clicked)) * play_ms).astype(np.int64)

    rows, plays = len(stay), len(clicked)
    time_ms = np.concatenate([discover_ms, player_ms])
    ids = np.empty(rows + plays, dtype=np.int64)
    ids[np.argsort(time_ms, kind="stable")] = np.arange(first_id, first_id + rows + plays)
    discover_id, player_id = ids[:rows], ids[rows:]

    impression = pl.DataFrame(
        {
            "impression_id": ids,
            "user_id": np.concatenate([shown.user, on_player.user]) + 1,
            "video_id": np.concatenate([shown.video, on_player.video]) + 1,
            "page": pl.concat([pl.repeat("discover", rows, eager=True), pl.repeat("player", plays, eager=True)]),
            "position": np.concatenate([shown.position, np.zeros(plays, dtype=np.int64)]),
            "time_ms": time_ms,
        }
    )
    user_id = impression["user_id"].to_numpy()
    discover_user, player_user = user_id[:rows], user_id[rows:]

    def events(happened: np.ndarray, ids: Ints, users: Ints, **columns: Ints) -> pl.DataFrame:
        values = {name: values[happened] for name, values in columns.items()}
        return pl.DataFrame({"impression_id": ids[happened], "user_id": users[happened], **values})

    tables = {
        "impression": impression,
        "stay": events(stay, discover_id, discover_user, time_ms=click_ms, dwell_ms=dwell_ms),
        "click": events(click, discover_id, discover_user, time_ms=click_ms),
        "play": events(np.full(plays, True), player_id, player_user, time_ms=player_ms + play_ms, play_ms=play_ms),
        "like": events(like, player_id, player_user, time_ms=like_ms),
    }
    truth = pl.concat(
        [
            pl.DataFrame(
                {
                    "impression_id": discover_id,
                    "p_stay": discover.p_stay,
                    "p_click": discover.p_click,
                    "dwell_s": discover.dwell_s,
                }
            ),
            pl.DataFrame({"impression_id": player_id, "p_like": player.p_like, "play_s": player.play_s}),
        ],
        how="diagonal",
    )
    by_time = {name: table.sort("time_ms", maintain_order=True) for name, table in tables.items()}
    return DayPart(by_time, truth.sort("impression_id"))


def _times(shown: Shown, spent_ms: Ints, day_ms: tuple[int, int]) -> Ints:
    """The time of each impression: the start of its session plus the time spent on the impressions before it.

    A session that would run past midnight begins earlier, so that every row belongs to its day.
    """
    begin, end = day_ms
    after = np.cumsum(spent_ms)
    first = np.flatnonzero(shown.position == 0)
    last = np.append(first[1:], len(spent_ms)) - 1
    before = after[first] - spent_ms[first]
    start = begin + np.rint(shown.hour[first] / 24 * (end - begin)).astype(np.int64)
    start = np.minimum(start, end - (after[last] - before))
    assert start.min() >= begin, "a session is longer than a day"
    times: Ints = (start - before)[shown.session] + after - spent_ms
    return times
