"""Simulated users behave as their true probabilities say, and the options of behaviour do what they say."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal
from scipy.special import logit
from sklearn.metrics import roc_auc_score

from pipeline.simulation.config import SimulationConfig
from pipeline.simulation.simulate import simulate_logs
from pipeline.spec.spec import Spec
from tests.simulation.conftest import CLEAN, SMALL, table


@pytest.fixture(scope="module")
def clean_log(spec: Spec, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("clean") / "raw"
    config = SimulationConfig(users=2_000, videos=500, new_videos=20, days=4, impressions=200_000, **CLEAN)
    simulate_logs(config, spec, out)
    return out


@pytest.fixture(scope="module")
def outcomes(clean_log: Path) -> pl.DataFrame:
    """One row per impression of the clean log: the true probabilities, and what happened."""
    rows = table(clean_log, "impression").join(table(clean_log, "truth"), on="impression_id", validate="1:1")
    rows = rows.join(table(clean_log, "video"), on="video_id", validate="m:1")
    for event in ("stay", "click", "play", "like"):
        happened = table(clean_log, event).rename({"time_ms": f"{event}_at"}).with_columns(pl.lit(True).alias(event))
        rows = rows.join(happened.drop("user_id"), on="impression_id", how="left", validate="1:1")
    return rows.with_columns(pl.col("stay", "click", "play", "like").fill_null(False)).sort("impression_id")


def test_an_impression_has_the_outcomes_of_its_page(outcomes: pl.DataFrame):
    discover, player = (outcomes.filter(page=page) for page in ("discover", "player"))
    assert outcomes["impression_id"].is_unique().all()
    assert len(discover) + len(player) == len(outcomes)
    assert not discover.select(pl.any_horizontal("play", "like")).to_series().any()
    assert not player.select(pl.any_horizontal("stay", "click")).to_series().any()
    assert player["play"].all()
    assert (player["position"] == 0).all()
    for column, null_on in (
        ("p_stay", player),
        ("p_click", player),
        ("dwell_s", player),
        ("p_like", discover),
        ("play_s", discover),
    ):
        assert null_on[column].is_null().all()
        assert outcomes[column].null_count() == len(null_on)
    assert discover.filter("click")["stay"].mean() > 0.9


@pytest.mark.parametrize("event", ["stay", "click", "play", "like"])
def test_an_event_has_the_user_of_its_impression(clean_log: Path, event: str):
    shown = table(clean_log, "impression").select("impression_id", "user_id")
    happened = table(clean_log, event)
    assert happened.height > 1000
    assert happened.join(shown, on=["impression_id", "user_id"], how="semi").height == happened.height


def test_each_click_opens_the_player_a_moment_later(outcomes: pl.DataFrame):
    keys = ["user_id", "video_id"]
    clicks = outcomes.filter("click").select(*keys, at="click_at").sort("at", maintain_order=True)
    plays = outcomes.filter(page="player").select(*keys, at="time_ms").sort("at", maintain_order=True)
    assert_frame_equal(clicks.select(keys).sort(keys), plays.select(keys).sort(keys))
    opened = clicks.with_columns(clicked="at").join_asof(
        plays.with_columns(opened="at"), on="at", by=keys, strategy="forward", check_sortedness=False
    )
    assert (opened["opened"] - opened["clicked"]).is_between(200, 1_000).all()


def test_play_time_is_bounded_by_what_people_do_with_the_duration(outcomes: pl.DataFrame):
    player = outcomes.filter(page="player")
    loops = player["play_ms"] / player["duration_ms"]
    assert loops.is_between(0, 4.001).all()  # a duration is rounded to the ms
    assert (loops < 0.999).mean() > 0.5
    assert 0.03 < (loops > 1.001).mean() < 0.2
    assert player["like_at"].is_between(player["time_ms"], player["play_ms"] + player["time_ms"]).drop_nulls().all()
    assert outcomes.filter("stay")["dwell_ms"].is_between(0, 3_600_000).all()


def test_rates_are_those_of_a_feed(outcomes: pl.DataFrame):
    discover, player = (outcomes.filter(page=page) for page in ("discover", "player"))
    assert len(outcomes) == pytest.approx(200_000, rel=0.03)
    assert discover["stay"].mean() == pytest.approx(0.5, abs=0.03)
    assert discover["click"].mean() == pytest.approx(0.25, abs=0.025)
    assert player["like"].mean() == pytest.approx(0.125, abs=0.02)


@pytest.mark.parametrize(("event", "page"), [("stay", "discover"), ("click", "discover"), ("like", "player")])
def test_true_probabilities_are_calibrated_by_decile_and_tell_apart(outcomes: pl.DataFrame, event: str, page: str):
    rows = outcomes.filter(page=page).sort(f"p_{event}")
    deciles = rows.with_columns(decile=pl.int_range(pl.len()) * 10 // pl.len()).group_by("decile")
    found = deciles.agg(
        z=(pl.col(event).sum() - pl.col(f"p_{event}").sum())
        / (pl.col(f"p_{event}") * (1 - pl.col(f"p_{event}"))).sum().sqrt()
    )
    assert found["z"].abs().max() < 4
    assert 0.74 < roc_auc_score(rows[event], rows[f"p_{event}"]) < 0.84


@pytest.mark.parametrize(
    ("mean", "found", "where"), [("dwell_s", "dwell_ms", pl.col("stay")), ("play_s", "play_ms", pl.col("play"))]
)
def test_true_means_are_calibrated_by_decile(outcomes: pl.DataFrame, mean: str, found: str, where: pl.Expr):
    rows = outcomes.filter(where).sort(mean)
    deciles = rows.with_columns(decile=pl.int_range(pl.len()) * 10 // pl.len()).group_by("decile")
    error = pl.col(found) / 1000 - pl.col(mean)
    z = deciles.agg(z=error.mean() / (error.std() / pl.len().sqrt()))["z"]
    assert z.abs().max() < 4
    assert np.corrcoef(rows[mean], rows[found])[0, 1] > 0.3


def test_task_correlation_moves_the_correlation_of_the_tasks(spec: Spec, tmp_path: Path):
    found = []
    for wanted in (0.0, 0.5, 1.0):
        out = tmp_path / str(wanted)
        simulate_logs(SMALL.model_copy(update={"users": 2_000, "videos": 2_000, "task_correlation": wanted}), spec, out)
        truth = table(out, "truth").drop_nulls("p_stay")
        found.append(np.corrcoef(logit(truth["p_stay"]), logit(truth["p_click"]))[0, 1])
    assert found == pytest.approx([0.05, 0.5, 0.95], abs=0.2)


def test_popularity_is_zipf(spec: Spec, tmp_path: Path):
    top_shares = []
    for exponent in (0.0, 1.0):
        config = SMALL.model_copy(update={"zipf": exponent, "new_videos": 0, "impressions": 20_000, **CLEAN})
        simulate_logs(config, spec, tmp_path / str(exponent))
        counts = table(tmp_path / str(exponent), "impression").filter(page="discover")["video_id"].value_counts()
        top_shares.append(counts["count"].max() / counts["count"].sum())
    assert top_shares[0] < 0.02
    assert top_shares[1] == pytest.approx(1 / np.sum(1 / np.arange(1, 101)), rel=0.1)


def test_new_videos_come_each_day_and_are_shown_from_the_next(outcomes: pl.DataFrame, clean_log: Path):
    for day, date in enumerate(("2026-03-02", "2026-03-03", "2026-03-04"), start=1):
        new = pl.read_parquet(clean_log / "video" / f"{date}-000.parquet")
        assert len(new) == 20
        assert (pl.from_epoch(new["upload_ms"], "ms").dt.strftime("%Y-%m-%d") == date).all()
        days = outcomes.join(new, on="video_id", how="semi").select(pl.from_epoch("time_ms", "ms").dt.day())
        assert day == 3 or set(days.to_series()) == set(range(day + 2, 5))
    assert (outcomes["time_ms"] > outcomes["upload_ms"]).all()


def test_tastes_drift(spec: Spec, tmp_path: Path):
    """The same user is shown the same video on the player page. Without drift only the hour differs between days."""
    spreads = []
    for drift in (0.0, 0.5):
        config = SMALL.model_copy(update={"users": 3, "videos": 3, "new_videos": 0, "drift": drift, **CLEAN})
        simulate_logs(config, spec, tmp_path / str(drift))
        raw = tmp_path / str(drift)
        rows = table(raw, "impression").join(table(raw, "truth"), on="impression_id").filter(page="player")
        pairs = rows.group_by("user_id", "video_id").agg(spread=pl.col("p_like").log().std())
        spreads.append(pairs["spread"].mean())
    assert spreads[1] > 1.2 * spreads[0]
