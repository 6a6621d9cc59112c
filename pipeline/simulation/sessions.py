"""Draws sessions: which user is shown which videos on the discovery page, and when."""

from dataclasses import dataclass

import numpy as np

from pipeline.simulation.population import Floats, Ints, Users, Videos

MEAN_LENGTH, MAX_LENGTH = 12, 60
# Sessions that start in each hour of the day, relative to the others.
HOURLY = np.array([4, 2, 1, 1, 1, 2, 4, 6, 7, 6, 6, 7, 9, 8, 7, 6, 6, 7, 9, 11, 13, 14, 12, 8])


@dataclass(frozen=True)
class Shown:
    """Impressions: row numbers of `user` and `video`, `position` in the session, `hour` when the session began.

    `session` numbers the sessions from 0. All are [rows], sorted by session and position.
    """

    user: Ints
    video: Ints
    position: Ints
    hour: Floats
    session: Ints

    def __getitem__(self, rows: Ints) -> "Shown":
        return Shown(self.user[rows], self.video[rows], self.position[rows], self.hour[rows], self.session[rows])


def draw_sessions(
    users: Users, videos: Videos, day: int, rows: int, part: tuple[float, float], rng: np.random.Generator
) -> Shown:
    """`rows` impressions of the sessions in one part of the day, the earliest first; (0, 1) is the whole day.

    Users are drawn in proportion to their activity. Videos uploaded before the day are drawn in proportion to their
    popularity.
    """
    lengths = np.minimum(rng.geometric(1 / MEAN_LENGTH, size=rows), MAX_LENGTH)
    sessions = int(np.searchsorted(np.cumsum(lengths), rows)) + 1
    session = np.repeat(np.arange(sessions), lengths[:sessions])[:rows]
    first_row = np.searchsorted(session, np.arange(sessions))
    started = np.sort(rng.uniform(*part, size=sessions))
    share_of_day = np.cumsum(HOURLY) / HOURLY.sum()
    hour = np.interp(started, np.concatenate([[0.0], share_of_day]), np.arange(len(HOURLY) + 1)).astype(np.float32)
    return Shown(
        user=_choose(users.activity, sessions, rng)[session],
        video=_choose(np.where(videos.upload_day < day, videos.popularity, 0), rows, rng),
        position=np.arange(rows) - first_row[session],
        hour=hour[session],
        session=session,
    )


def _choose(weights: Floats, size: int, rng: np.random.Generator) -> Ints:
    """Draws row numbers in proportion to the weights, with replacement."""
    ends = np.cumsum(weights, dtype=np.float64)
    rows: Ints = np.searchsorted(ends, rng.random(size) * ends[-1], side="right")
    return rows
