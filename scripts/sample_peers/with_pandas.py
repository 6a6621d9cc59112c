#!/usr/bin/env python3
"""Computes the labels and counters of feature_specs/short_video.yaml in pandas.

.venv/bin/python scripts/sample_peers/with_pandas.py --raw demo/raw --out labels.parquet

The columns are those of a sample store, in one file and in any order of rows. It assumes what the simulator promises:
a day is a UTC day, and impression ids are unique among users. Rows are filtered while Parquet is read, numbers are no
wider than they need be, and nothing but pandas' own joins and groups is used.
"""

from pathlib import Path

import pandas as pd
import pyarrow.compute as pc

from pipeline.commands.command_line import run_script

DAY_MS = 86_400_000
YEAR_2100_MS = 4_102_444_800_000
KEYS = {"user": "user_id", "video": "video_id", "author": "author_id"}
COUNTS = ["shown", "clicks", "plays", "likes"]


def main(raw: Path, out: Path) -> None:
    """Computes labels, sample spaces, scenes and counters of the simulated short-video logs in pandas.

    Args:
        raw: The folder that holds the raw logs, as Parquet.
        out: The Parquet file to write.
    """
    impressions = read_impressions(raw)
    stays = read_event(raw / "stay", impressions, 3_600_000, "dwell_ms")
    clicks = read_event(raw / "click", impressions, 3_600_000)
    plays = read_event(raw / "play", impressions, DAY_MS, "play_ms")
    likes = read_event(raw / "like", impressions, DAY_MS)

    samples = impressions[["impression_id", "page"]]
    samples = samples.rename(columns={"impression_id": "sample_id"}).set_index("sample_id")
    page = samples.pop("page")
    samples["scene_discover"], samples["scene_player"] = page == "discover", page == "player"
    for name, events in {"stay": stays, "click": clicks, "like": likes}.items():
        samples[f"label_{name}"] = samples.index.isin(events["impression_id"]).astype("float32")
        samples[f"mask_{name}"] = True
    dwell_ms = stays.groupby("impression_id")["dwell_ms"].max()
    play_ms = plays.groupby("impression_id")["play_ms"].sum()
    for name, value in {"dwell": dwell_ms / 1000, "play_time": play_ms / 1000}.items():
        samples[f"label_{name}"] = value.astype("float32").reindex(samples.index)
        samples[f"mask_{name}"] = samples[f"label_{name}"].notna()

    activity = {"shown": impressions[page.to_numpy() == "discover"], "clicks": clicks, "plays": plays, "likes": likes}
    for by, key in KEYS.items():
        counters = trailing_counters(activity, key, impressions["day"].min(), impressions["day"].max())
        rows = pd.MultiIndex.from_frame(impressions[[key, "day"]])
        found = counters.reindex(rows).fillna(0).add_prefix(f"feature_{by}_").add_suffix("_7d")
        samples[found.columns] = found.to_numpy()
    samples.reset_index().to_parquet(out, index=False)


def read_impressions(raw: Path) -> pd.DataFrame:
    """Sound impressions, each once, with their author and day."""
    ids, time = ("impression_id", "user_id", "video_id"), pc.field("time_ms")
    sound = passes(pc.field("position") >= 0) & (time > 0) & (time <= YEAR_2100_MS)
    for column in ids:
        sound &= pc.field(column).is_valid()
    rows = pd.read_parquet(raw / "impression", columns=[*ids, "page", "time_ms"], filters=sound)
    rows = rows.drop_duplicates("impression_id", ignore_index=True)
    sound = pc.field("video_id").is_valid() & passes(pc.field("duration_ms") > 0)
    videos = pd.read_parquet(raw / "video", columns=["video_id", "author_id"], filters=sound)
    rows = rows.merge(videos.drop_duplicates("video_id"), on="video_id", how="left")
    rows["page"] = rows["page"].astype("category")
    rows["day"] = (rows["time_ms"] // DAY_MS).astype("int32")
    return rows


def read_event(folder: Path, impressions: pd.DataFrame, within_ms: int, value: str | None = None) -> pd.DataFrame:
    """Sound events, each once, that belong to an impression, with its keys and their own day."""
    columns, time = ["impression_id", "user_id", "time_ms"], pc.field("time_ms")
    sound = pc.field("impression_id").is_valid() & pc.field("user_id").is_valid()
    sound &= (time >= 0) & (time <= YEAR_2100_MS)
    if value:
        columns.append(value)
        sound &= passes(pc.field(value) >= 0)
    events = pd.read_parquet(folder, columns=columns, filters=sound).drop_duplicates()
    shown = impressions[["impression_id", "user_id", "video_id", "author_id", "time_ms"]]
    events = events.merge(shown, on="impression_id", suffixes=("", "_shown"))
    mine = events["user_id"] == events.pop("user_id_shown")
    events = events[mine & (events["time_ms"] - events.pop("time_ms_shown")).between(0, within_ms)]
    events["day"] = (events.pop("time_ms") // DAY_MS).astype("int32")
    return events


def passes(check: pc.Expression) -> pc.Expression:
    """A check of a missing value passes."""
    return check | check.is_null()


def trailing_counters(activity: dict[str, pd.DataFrame], key: str, first: int, last: int) -> pd.DataFrame:
    """For every key and day: what happened on the 7 days before, from cumulative sums over the days."""
    daily = {name: rows.groupby([key, "day"]).size() for name, rows in activity.items()}
    daily["play_ms"] = activity["plays"].groupby([key, "day"])["play_ms"].sum()
    wide = pd.concat(daily, axis=1).fillna(0).unstack("day", fill_value=0)
    before = {}
    for name in daily:
        to_day = wide[name].reindex(columns=range(first, last + 1), fill_value=0).cumsum(axis=1)
        before[name] = (to_day.shift(1, axis=1, fill_value=0) - to_day.shift(8, axis=1, fill_value=0)).stack()
    counters = pd.DataFrame(before)
    counters["play_s"] = counters.pop("play_ms") / counters["plays"] / 1000
    return counters[[*COUNTS, "play_s"]].astype("float32")


if __name__ == "__main__":
    run_script(main, "--raw demo/raw --out labels.parquet")
