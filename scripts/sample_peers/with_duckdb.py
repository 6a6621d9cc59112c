#!/usr/bin/env python3
"""Computes the labels and counters of feature_specs/short_video.yaml in DuckDB.

.venv/bin/python scripts/sample_peers/with_duckdb.py --raw demo/raw --out labels.parquet

The columns are those of a sample store, in one file and in any order of rows. It assumes what the simulator promises:
a day is a UTC day, and an id is repeated by exact copies only.
"""

import os
from pathlib import Path

import duckdb

from pipeline.commands.command_line import run_script

# A check of a missing value passes, hence the coalesce. A row after the year 2100 is malformed to Strata as well.
SQL = """
SET threads = {threads};
SET preserve_insertion_order = false;
CREATE MACRO sane(ms) AS ms BETWEEN 0 AND 4102444800000;
CREATE MACRO day(ms) AS (ms // 86400000)::INTEGER;

CREATE TEMP TABLE impression AS
SELECT shown.*, author_id
FROM (
    SELECT DISTINCT ON (impression_id) impression_id, user_id, video_id, page, time_ms
    FROM '{raw}/impression/*.parquet'
    WHERE impression_id IS NOT NULL AND user_id IS NOT NULL AND video_id IS NOT NULL
        AND sane(time_ms) AND time_ms > 0 AND coalesce(position >= 0, true)
) shown
LEFT JOIN (
    SELECT DISTINCT ON (video_id) video_id, author_id
    FROM '{raw}/video/*.parquet'
    WHERE video_id IS NOT NULL AND coalesce(duration_ms > 0, true)
) USING (video_id);

CREATE TEMP TABLE stay AS
SELECT impression_id, max(dwell_ms) AS dwell_ms
FROM '{raw}/stay/*.parquet' event JOIN impression USING (impression_id, user_id)
WHERE sane(event.time_ms) AND coalesce(dwell_ms >= 0, true)
    AND event.time_ms - impression.time_ms BETWEEN 0 AND 3600000
GROUP BY impression_id;

CREATE TEMP TABLE click AS
SELECT impression_id, user_id, video_id, author_id, event.time_ms
FROM (SELECT DISTINCT impression_id, user_id, time_ms FROM '{raw}/click/*.parquet' WHERE sane(time_ms)) event
JOIN impression USING (impression_id, user_id)
WHERE event.time_ms - impression.time_ms BETWEEN 0 AND 3600000;

CREATE TEMP TABLE play AS
SELECT impression_id, user_id, video_id, author_id, event.time_ms, play_ms
FROM (
    SELECT DISTINCT impression_id, user_id, time_ms, play_ms
    FROM '{raw}/play/*.parquet'
    WHERE sane(time_ms) AND coalesce(play_ms >= 0, true)
) event
JOIN impression USING (impression_id, user_id)
WHERE event.time_ms - impression.time_ms BETWEEN 0 AND 86400000;

CREATE TEMP TABLE liked AS
SELECT impression_id, user_id, video_id, author_id, event.time_ms
FROM (SELECT DISTINCT impression_id, user_id, time_ms FROM '{raw}/like/*.parquet' WHERE sane(time_ms)) event
JOIN impression USING (impression_id, user_id)
WHERE event.time_ms - impression.time_ms BETWEEN 0 AND 86400000;

-- A row for each user, each video and each author on each day of theirs; the other two keys are null.
CREATE TEMP TABLE counters AS
SELECT user_id, video_id, author_id, day,
    sum(shown) OVER past AS shown, sum(clicks) OVER past AS clicks, sum(plays) OVER past AS plays,
    sum(likes) OVER past AS likes, sum(play_ms) OVER past / nullif(sum(plays) OVER past, 0) / 1000.0 AS play_s
FROM (
    SELECT user_id, video_id, author_id, day, sum(shown) AS shown, sum(clicks) AS clicks, sum(plays) AS plays,
        sum(likes) AS likes, sum(play_ms) AS play_ms
    FROM (
        SELECT user_id, video_id, author_id, day(time_ms) AS day,
            (page = 'discover')::INTEGER AS shown, 0 AS clicks, 0 AS plays, 0 AS likes, 0 AS play_ms FROM impression
        UNION ALL SELECT user_id, video_id, author_id, day(time_ms), 0, 1, 0, 0, 0 FROM click
        UNION ALL SELECT user_id, video_id, author_id, day(time_ms), 0, 0, 1, 0, play_ms FROM play
        UNION ALL SELECT user_id, video_id, author_id, day(time_ms), 0, 0, 0, 1, 0 FROM liked
    )
    GROUP BY GROUPING SETS ((user_id, day), (video_id, day), (author_id, day))
)
WINDOW past AS (PARTITION BY user_id, video_id, author_id ORDER BY day RANGE BETWEEN 7 PRECEDING AND 1 PRECEDING);

COPY (
    SELECT impression_id AS sample_id, page = 'discover' AS scene_discover, page = 'player' AS scene_player,
        (stay.impression_id IS NOT NULL)::FLOAT AS label_stay, true AS mask_stay,
        (dwell_ms / 1000.0)::FLOAT AS label_dwell, dwell_ms IS NOT NULL AS mask_dwell,
        (click.impression_id IS NOT NULL)::FLOAT AS label_click, true AS mask_click,
        (play_ms / 1000.0)::FLOAT AS label_play_time, play_ms IS NOT NULL AS mask_play_time,
        (liked.impression_id IS NOT NULL)::FLOAT AS label_like, true AS mask_like,
        {counters}
    FROM impression
    LEFT JOIN stay USING (impression_id)
    LEFT JOIN (SELECT DISTINCT impression_id FROM click) click USING (impression_id)
    LEFT JOIN (SELECT impression_id, sum(play_ms) AS play_ms FROM play GROUP BY impression_id) USING (impression_id)
    LEFT JOIN (SELECT DISTINCT impression_id FROM liked) liked USING (impression_id)
    LEFT JOIN counters of_user ON of_user.user_id = impression.user_id AND of_user.day = day(time_ms)
    LEFT JOIN counters of_video ON of_video.video_id = impression.video_id AND of_video.day = day(time_ms)
    LEFT JOIN counters of_author ON of_author.author_id = impression.author_id AND of_author.day = day(time_ms)
) TO '{out}' (FORMAT parquet);
"""


def main(raw: Path, out: Path) -> None:
    """Computes labels, sample spaces, scenes and counters of the simulated short-video logs in DuckDB.

    Args:
        raw: The folder that holds the raw logs, as Parquet.
        out: The Parquet file to write.
    """
    counters = ", ".join(
        f"coalesce(of_{by}.{measure}, 0)::FLOAT AS feature_{by}_{measure}_7d"
        for by in ("user", "video", "author")
        for measure in ("shown", "clicks", "plays", "likes", "play_s")
    )
    threads = len(os.sched_getaffinity(0))  # the cores it may use, not those of the machine
    with duckdb.connect() as database:
        database.execute(SQL.format(raw=raw, out=out, threads=threads, counters=counters))


if __name__ == "__main__":
    run_script(main, "--raw demo/raw --out labels.parquet")
