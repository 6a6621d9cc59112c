"""How users behave: the true probabilities of outcomes, and outcomes drawn from them.

A logit is a sum of biases, a product of the user's taste and the video's topic, and effects of position, hour and
duration. Only the draw is random, so no model can predict better than the true probability.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import expit

from pipeline.simulation.population import TASKS, Floats, Ints, Users, Videos
from pipeline.simulation.sessions import Shown

Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Task:
    """`rate` is the mean probability, `spread` scales the score. The others are effects, where a bias has effect 1."""

    rate: float
    spread: float
    position: float
    hour: float
    duration: float


# `play` is to play a loop to its end. `dwell` is no probability: its score is added to the logarithm of a mean.
EFFECTS = {
    "stay": Task(rate=0.5, spread=1.4, position=-0.30, hour=0.20, duration=0.10),
    "dwell": Task(rate=0.5, spread=0.5, position=-0.15, hour=0.20, duration=0.30),
    "click": Task(rate=0.25, spread=1.4, position=-0.25, hour=0.25, duration=-0.15),
    "play": Task(rate=0.35, spread=1.2, position=0.0, hour=0.20, duration=-0.60),
    "like": Task(rate=0.125, spread=1.4, position=0.0, hour=0.30, duration=0.40),
}
USER_SHARE, VIDEO_SHARE, TASTE_SHARE = 0.36, 0.42, 0.12

MEAN_DWELL_S = 2.5  # for a user and a video of average score
DWELL_SHAPE = 2  # of the gamma distribution of dwell
MAX_LOOPS = 4
REPLAY_RATE = 0.3  # of the users who saw the end
EARLY_LEAVE = 1 / 3  # mean share of a loop that is played by a user who leaves early: Beta(1, 2)


@dataclass(frozen=True)
class DiscoverTruth:
    """The truth of every impression on the discovery page. `dwell_s` is the mean dwell of users who stay."""

    p_stay: Floats
    p_click: Floats
    dwell_s: Floats


@dataclass(frozen=True)
class PlayerTruth:
    """The truth of every impression on the player page. `p_end` is the probability to play a loop to its end."""

    p_end: Floats
    play_s: Floats
    p_like: Floats


class Behaviour:
    """The users of one day, whose tastes have turned by `angle` since the first day."""

    def __init__(self, users: Users, videos: Videos, intercepts: Mapping[str, float], angle: float) -> None:
        self.users, self.videos, self.intercepts = users, videos, intercepts
        # A turn by an angle keeps the spread of the tastes the same on every day.
        self.taste = np.float32(np.cos(angle)) * users.taste + np.float32(np.sin(angle)) * users.turn

    @classmethod
    def with_usual_rates(cls, users: Users, videos: Videos, pilot: Shown) -> Self:
        """Chooses the intercepts so that the mean probabilities on the pilot's impressions are the rates of EFFECTS."""
        plain = cls(users, videos, dict.fromkeys(TASKS, 0.0), angle=0.0)
        intercepts = {"dwell": 0.0}
        for task in ("stay", "click"):
            intercepts[task] = _intercept(plain.score(task, pilot), EFFECTS[task].rate, np.ones(len(pilot.user)))
        p_click = expit(plain.score("click", pilot) + intercepts["click"])
        for task in ("play", "like"):  # on the player page, which a click opens
            intercepts[task] = _intercept(plain.score(task, pilot, player=True), EFFECTS[task].rate, p_click)
        return cls(users, videos, intercepts, angle=0.0)

    def turned(self, angle: float) -> Self:
        """The same users with tastes that have turned by `angle` since the first day."""
        return type(self)(self.users, self.videos, self.intercepts, angle)

    def score(self, task: str, shown: Shown, *, player: bool = False) -> Floats:
        """The logit of a task, [rows]; for `dwell`, the logarithm of its mean over MEAN_DWELL_S."""
        t, effect = TASKS.index(task), EFFECTS[task]
        liking = np.einsum("rd,rd->r", self.taste[t][shown.user], self.videos.topic[shown.video])
        hour = np.cos((shown.hour - 21) * np.float32(2 * np.pi / 24))
        duration = np.log(self.videos.duration_s / 20)[shown.video]
        score = (
            np.float32(np.sqrt(USER_SHARE)) * self.users.bias[t][shown.user]
            + np.float32(np.sqrt(VIDEO_SHARE)) * self.videos.bias[t][shown.video]
            + np.float32(np.sqrt(TASTE_SHARE)) * liking
            + effect.hour * hour
            + effect.duration * duration
        )
        if not player:  # the player page shows one video, so it has no positions
            score += effect.position * np.log1p(shown.position)
        return np.asarray(effect.spread * score + self.intercepts[task], dtype=np.float32)

    def on_discover(self, shown: Shown) -> DiscoverTruth:
        return DiscoverTruth(
            p_stay=expit(self.score("stay", shown)),
            p_click=expit(self.score("click", shown)),
            dwell_s=np.float32(MEAN_DWELL_S) * np.exp(self.score("dwell", shown)),
        )

    def on_player(self, shown: Shown) -> PlayerTruth:
        p_end = expit(self.score("play", shown, player=True))
        return PlayerTruth(
            p_end=p_end,
            play_s=_mean_loops(p_end) * self.videos.duration_s[shown.video],
            p_like=expit(self.score("like", shown, player=True)),
        )


def draw_stay_and_click(truth: DiscoverTruth, rng: np.random.Generator) -> tuple[Flags, Flags]:
    """Decides both with one draw, so that nearly all users who click also stay."""
    draw = rng.random(len(truth.p_stay), dtype=np.float32)
    return draw < truth.p_stay, draw < truth.p_click


def draw_dwell_ms(truth: DiscoverTruth, rng: np.random.Generator) -> Ints:
    dwell_s = truth.dwell_s * rng.standard_gamma(DWELL_SHAPE, size=len(truth.dwell_s), dtype=np.float32) / DWELL_SHAPE
    return np.rint(1000 * dwell_s).astype(np.int64)


def draw_play_ms(truth: PlayerTruth, duration_s: Floats, rng: np.random.Generator) -> Ints:
    """Users play a loop to its end with probability `p_end`, or leave early. Some who saw the end start again.

    They play at most MAX_LOOPS loops.
    """
    loops = np.zeros(len(duration_s), dtype=np.float32)
    playing = np.ones(len(duration_s), dtype=np.bool_)
    for _ in range(MAX_LOOPS):
        to_end = rng.random(len(loops), dtype=np.float32) < truth.p_end
        left_at = 1 - np.sqrt(rng.random(len(loops), dtype=np.float32))  # Beta(1, 2)
        loops += np.where(playing, np.where(to_end, np.float32(1), left_at), np.float32(0))
        playing &= to_end & (rng.random(len(loops), dtype=np.float32) < REPLAY_RATE)
    play_ms: Ints = np.rint(loops * duration_s * 1000).astype(np.int64)
    return play_ms


def _mean_loops(p_end: Floats) -> Floats:
    """The mean play time of `draw_play_ms` in durations, computed from the last loop backwards."""
    mean = np.zeros_like(p_end)
    for _ in range(MAX_LOOPS):
        mean = (1 - p_end) * np.float32(EARLY_LEAVE) + p_end * (1 + np.float32(REPLAY_RATE) * mean)
    return mean


def _intercept(score: Floats, rate: float, weight: NDArray[np.floating]) -> float:
    return float(brentq(lambda b: np.average(expit(score + b), weights=weight) - rate, -50, 50))
