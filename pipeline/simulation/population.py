"""Users and videos: their profiles in the log, and the latent tastes and biases that drive behaviour.

Latent values are standard normal before they are weighted, and are drawn once per task. Tasks are related as in MMoE's
synthetic data (Ma et al., KDD 2018, section 3.2), extended to more than two tasks: the value of task t is
sqrt(c) shared + sqrt(1 - c) own_t, so that any two tasks have the correlation c.
"""

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from pipeline.simulation.config import SimulationConfig

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

TASKS = ("stay", "dwell", "click", "play", "like")
TASTE_DIM = 4
VIDEOS_PER_AUTHOR = 10
MAX_TAGS = 3
CATALOGUE_DAYS = 60  # the first videos were uploaded during the days before the log
DAY_MS = 86_400_000

AGE_GROUPS = ("under 18", "18-24", "25-34", "35-44", "45-54", "55 and over")
CITIES = tuple(f"city {n:02d}" for n in range(1, 31))
DEVICES = ("android low", "android mid", "android high", "iphone", "tablet")
TAGS = (
    "animals",
    "art",
    "beauty",
    "books",
    "cars",
    "comedy",
    "cooking",
    "crafts",
    "dance",
    "fashion",
    "film",
    "fitness",
    "football",
    "games",
    "garden",
    "music",
    "news",
    "parenting",
    "science",
    "travel",
)


@dataclass(frozen=True)
class Users:
    """`bias` is [T, U]. `taste` on the first day and `turn`, the direction in which it drifts, are [T, U, D]."""

    profiles: pl.DataFrame
    activity: Floats
    bias: Floats
    taste: Floats
    turn: Floats


@dataclass(frozen=True)
class Videos:
    """`bias` is [T, V]; `topic` is [V, D], unit vectors; `popularity`, `duration_s` and `upload_day` are [V].

    `upload_day` is -1 for the videos that exist when the log begins.
    """

    profiles: pl.DataFrame
    popularity: Floats
    duration_s: Floats
    upload_day: Ints
    bias: Floats
    topic: Floats


def generator(seed: int, *place: int) -> np.random.Generator:
    """The random numbers of one place (a part of a day, a table, ...). They do not depend on draws elsewhere."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=place))


def draw_users(config: SimulationConfig, rng: np.random.Generator) -> Users:
    """Draws users. Most of a user's biases and tastes follow from age group, city and device."""
    n = config.users

    def latent(*shape: int) -> Floats:
        return _related(rng, config.task_correlation, *shape)

    age = rng.integers(len(AGE_GROUPS), size=n)
    city = rng.choice(len(CITIES), size=n, p=_zipf(len(CITIES), 1.0))
    device = rng.integers(len(DEVICES), size=n)
    bias_of_segment = latent(len(AGE_GROUPS))[:, age] + latent(len(CITIES))[:, city] + latent(len(DEVICES))[:, device]
    by_age, by_city = latent(len(AGE_GROUPS), TASTE_DIM), latent(len(CITIES), TASTE_DIM)
    return Users(
        profiles=pl.DataFrame(
            {
                "user_id": np.arange(1, n + 1),
                "age_group": np.array(AGE_GROUPS)[age],
                "city": np.array(CITIES)[city],
                "device": np.array(DEVICES)[device],
            }
        ),
        activity=rng.lognormal(sigma=0.8, size=n).astype(np.float32),
        bias=_weigh((0.7, bias_of_segment / np.sqrt(3)), (0.3, latent(n))),
        taste=_weigh((0.35, by_age[:, age]), (0.35, by_city[:, city]), (0.3, latent(n, TASTE_DIM))),
        turn=latent(n, TASTE_DIM),
    )


def draw_videos(config: SimulationConfig, first_day_ms: int, rng: np.random.Generator) -> Videos:
    """Draws videos. Most of a video's biases and topic follow from author and tags, so a new video is predictable."""
    new = config.days * config.new_videos
    n = config.videos + new
    authors = -(-n // VIDEOS_PER_AUTHOR)

    def latent(*shape: int) -> Floats:
        return _related(rng, config.task_correlation, *shape)

    author = rng.integers(authors, size=n)
    has_tag = _draw_tags(author, authors, rng)
    upload_day = np.concatenate([np.full(config.videos, -1), np.repeat(np.arange(config.days), config.new_videos)])
    upload_ms = first_day_ms + np.concatenate(
        [
            -rng.integers(1, CATALOGUE_DAYS * DAY_MS, size=config.videos),
            upload_day[config.videos :] * DAY_MS + rng.integers(DAY_MS, size=new),
        ]
    )
    duration_s = np.clip(rng.lognormal(np.log(20), 0.8, size=n), 4, 300).astype(np.float32)
    tag_share = has_tag / np.sqrt(has_tag.sum(axis=1, keepdims=True))
    topic = _weigh(
        (0.6, tag_share @ rng.standard_normal((len(TAGS), TASTE_DIM))),
        (0.3, rng.standard_normal((authors, TASTE_DIM))[author]),
        (0.1, rng.standard_normal((n, TASTE_DIM))),
    )
    return Videos(
        profiles=pl.DataFrame(
            {
                "video_id": np.arange(1, n + 1),
                "author_id": author + 1,
                "tags": _join_tags(has_tag),
                "duration_ms": np.rint(duration_s * 1000).astype(np.int64),
                "upload_ms": upload_ms,
            }
        ),
        popularity=rng.permutation(_zipf(n, config.zipf)).astype(np.float32),
        duration_s=duration_s,
        upload_day=upload_day,
        bias=_weigh((0.4, latent(authors)[:, author]), (0.45, latent(len(TAGS)) @ tag_share.T), (0.15, latent(n))),
        topic=topic / np.linalg.norm(topic, axis=1, keepdims=True),
    )


def _draw_tags(author: Ints, authors: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """The tags of each video, bool [V, tags]: one to three, mostly among the three tags of its author."""
    of_author = rng.random((authors, len(TAGS))).argsort(axis=1) < MAX_TAGS
    appeal = rng.random((len(author), len(TAGS))) + 0.8 * of_author[author]
    rank = (-appeal).argsort(axis=1).argsort(axis=1)
    return rank < rng.integers(1, MAX_TAGS + 1, size=(len(author), 1))


def _join_tags(has_tag: NDArray[np.bool_]) -> pl.Series:
    names = [pl.when(pl.col(tag)).then(pl.lit(tag)) for tag in TAGS]
    tags = pl.DataFrame(has_tag, schema=list(TAGS))
    return tags.select(tags=pl.concat_str(names, separator=",", ignore_nulls=True))["tags"]


def _related(rng: np.random.Generator, correlation: float, *shape: int) -> Floats:
    """Standard normal values of each task, [T, *shape]. Any two tasks have the given correlation."""
    shared = rng.standard_normal(shape, dtype=np.float32)
    own = rng.standard_normal((len(TASKS), *shape), dtype=np.float32)
    return _weigh((correlation, shared), (1 - correlation, own))


def _weigh(*parts: tuple[float, NDArray[np.floating]]) -> Floats:
    """The sum of latent values, each with its share of the variance."""
    total = sum(np.sqrt(share) * part for share, part in parts)
    return np.asarray(total, dtype=np.float32)


def _zipf(n: int, exponent: float) -> NDArray[np.float64]:
    weights = np.arange(1, n + 1) ** -exponent
    return np.asarray(weights / weights.sum(), dtype=np.float64)
