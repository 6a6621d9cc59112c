"""The log simulator: users see videos on two pages, and their behaviour becomes raw logs with a known truth."""

import datetime
import json
from collections import Counter
from pathlib import Path
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from tqdm import tqdm

from pipeline.atomic import new_folder
from pipeline.errors import StrataError
from pipeline.simulation.behaviour import EFFECTS, Behaviour
from pipeline.simulation.config import SimulationConfig
from pipeline.simulation.declared import EVENT_LOGS, TRUTH, check_declared_tables
from pipeline.simulation.events import draw_day_part
from pipeline.simulation.mess import deliver
from pipeline.simulation.population import draw_users, draw_videos, generator
from pipeline.simulation.sessions import draw_sessions
from pipeline.simulation.writer import LogWriter
from pipeline.spec.spec import Spec

PART_ROWS = 200_000  # of impressions on the discovery page
PILOT_ROWS = 50_000
# The first number of a place of random numbers: the population, the log, or what goes wrong with it.
POPULATION, LOG, MESS = 0, 1, 2


def simulate_logs(config: SimulationConfig, spec: Spec, out: Path) -> dict[str, Counter[str]]:
    """Writes the raw logs that `spec` declares below `out`, and the truth about them below `out/truth`.

    `truth/*.parquet` has a row per impression: `impression_id`, the true probabilities `p_stay`, `p_click`, `p_like`,
    and the means `dwell_s` (of users who stay) and `play_s`. A value is null where the page has no such outcome.
    `truth/simulation.json` has the options and, for each table, the counts that are returned. `rows` truly happened.
    `duplicated` exact copies and `malformed` spoilt copies were added. `late` rows and exact copies came with the next
    day's files. Profiles are never messy.

    Raises StrataError, before anything is written, if the spec declares what cannot be simulated or if `out` is not
    empty; and if the disk is full. After an error or an interruption `out` is as it was. Memory grows with users and
    videos, not with impressions.
    """
    check_declared_tables(spec)
    dates = [config.start_date + datetime.timedelta(days=day) for day in range(config.days + 1)]
    midnights = _midnights_ms(dates, spec.logs.timezone)
    try:
        with new_folder(out) as folder:
            writer = LogWriter(folder, spec, config)
            _write_days(config, midnights, [date.isoformat() for date in dates], writer)
            report = {"options": config.model_dump(mode="json"), "tables": writer.counts}
            (folder / TRUTH / "simulation.json").write_text(json.dumps(report, indent=2) + "\n")
    except OSError as error:
        what = f"the log cannot be written ({error.strerror or error})"
        raise StrataError(what, where=out, fix="make room, or choose another --out") from None
    return writer.counts


def _write_days(config: SimulationConfig, midnights: list[int], dates: list[str], writer: LogWriter) -> None:
    users = draw_users(config, generator(config.seed, POPULATION, 0))
    videos = draw_videos(config, midnights[0], generator(config.seed, POPULATION, 1))
    pilot = draw_sessions(users, videos, 0, PILOT_ROWS, (0, 1), generator(config.seed, POPULATION, 2))
    people = Behaviour.with_usual_rates(users, videos, pilot)

    writer.write_profiles("user", dates[0], users.profiles)
    writer.write_profiles("video", dates[0], videos.profiles.filter(videos.upload_day < 0))
    plan = _plan(config)
    progress = tqdm(total=sum(map(sum, plan)), desc="simulating", unit=" impressions", unit_scale=True, disable=None)
    next_id = 1
    for day, parts in enumerate(plan):
        writer.write_profiles("video", dates[day], videos.profiles.filter(videos.upload_day == day))
        people_today = people.turned(day * config.drift)
        for number, rows in enumerate(parts):
            rng = generator(config.seed, LOG, day, number)
            share_of_day = (number / len(parts), (number + 1) / len(parts))
            shown = draw_sessions(users, videos, day, rows, share_of_day, rng)
            day_part = draw_day_part(people_today, shown, (midnights[day], midnights[day + 1]), next_id, rng)
            next_id += len(day_part.truth)
            writer.write_truth(dates[day], day_part.truth)
            for place, table in enumerate(EVENT_LOGS):
                mess = generator(config.seed, MESS, day, number, place)
                writer.write_events(table, dates[day], dates[day + 1], deliver(day_part.tables[table], config, mess))
            progress.update(rows)
    progress.close()


def _plan(config: SimulationConfig) -> list[list[int]]:
    """Impressions on the discovery page, by day and part of the day. Clicks add impressions on the player page."""
    shown = round(config.impressions / (1 + EFFECTS["click"].rate))
    return [_split(rows, -(-rows // PART_ROWS)) for rows in _split(shown, config.days)]


def _split(rows: int, parts: int) -> list[int]:
    return [rows * (part + 1) // parts - rows * part // parts for part in range(parts)]


def _midnights_ms(dates: list[datetime.date], timezone: str) -> list[int]:
    """The beginning of each day in the time zone of the spec, in ms since the epoch."""
    try:
        zone = ZoneInfo(timezone)
    except (ZoneInfoNotFoundError, ValueError):
        raise StrataError(f"unknown time zone `{timezone}`", where="logs.timezone", fix="use one such as UTC") from None
    return [round(datetime.datetime.combine(date, datetime.time(), zone).timestamp() * 1000) for date in dates]
