"""The log simulator is reproducible, true to its probabilities, and exactly as messy as it says."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal
from scipy.special import logit
from sklearn.metrics import roc_auc_score

from pipeline.errors import StrataError
from pipeline.raw.reading import REJECTED, RawChunk, find_files, read_chunks
from pipeline.simulation.config import LogFormat, SimulationConfig
from pipeline.simulation.simulate import simulate_logs
from pipeline.spec.file import load_spec
from pipeline.spec.spec import Spec
from pipeline.sql.types import schema
from pipeline.storage import Folder

SPECS = Path(__file__).parents[2] / "feature_specs"
SMALL = SimulationConfig(users=200, videos=100, new_videos=5, days=3, impressions=5_000)
MESSY = SMALL.model_copy(update={"late_rate": 0.1, "duplicate_rate": 0.1, "malformed_rate": 0.1, "disorder": 0.3})
CLEAN = {"late_rate": 0.0, "duplicate_rate": 0.0, "malformed_rate": 0.0, "disorder": 0.0}
EVENTS = ("impression", "stay", "click", "play", "like")
# Every format that a log can be written in, and the suffix of its files.
FORMATS: list[tuple[LogFormat, bool, str]] = [
    ("parquet", False, ".parquet"),
    ("parquet", True, ".parquet"),
    ("csv", False, ".csv"),
    ("csv", True, ".csv.gz"),
    ("jsonl", False, ".jsonl"),
    ("jsonl", True, ".jsonl.gz"),
]


@pytest.fixture(scope="module")
def spec() -> Spec:
    return load_spec(SPECS / "short_video.yaml")


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


def table(raw: Path, name: str) -> pl.DataFrame:
    return pl.read_parquet(raw / name / "*.parquet")


def read(spec: Spec, raw: Path, name: str) -> RawChunk:
    """A table as sample building reads it, all columns required."""
    declared = spec.logs.tables()[name]
    files = find_files(name, declared, Folder.at(raw))
    chunks = [chunk for file in files for chunk in read_chunks(name, declared, file, required=set(declared.columns))]
    nothing = RawChunk(pl.DataFrame(schema=schema(declared)), pl.DataFrame(schema=REJECTED))
    return RawChunk(pl.concat(c.rows for c in [nothing, *chunks]), pl.concat(c.rejected for c in [nothing, *chunks]))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def messy_logs(spec: Spec, tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, bool], Path]:
    logs = {}
    for format_, gzip, _ in FORMATS:
        logs[format_, gzip] = tmp_path_factory.mktemp("messy") / "raw"
        simulate_logs(MESSY.model_copy(update={"format": format_, "gzip": gzip}), spec, logs[format_, gzip])
    return logs


@pytest.mark.parametrize(("format_", "gzip", "suffix"), FORMATS)
def test_the_same_options_give_the_same_bytes(
    spec: Spec, messy_logs: dict[tuple[str, bool], Path], tmp_path: Path, format_: LogFormat, gzip: bool, suffix: str
):
    simulate_logs(MESSY.model_copy(update={"format": format_, "gzip": gzip}), spec, tmp_path / "again")
    again = contents(tmp_path / "again")
    assert f"impression/2026-03-01-000{suffix}" in again
    assert again == contents(messy_logs[format_, gzip])


def test_another_seed_gives_another_log(spec: Spec, messy_logs: dict[tuple[str, bool], Path], tmp_path: Path):
    simulate_logs(MESSY.model_copy(update={"seed": 1}), spec, tmp_path / "other")
    for name in spec.logs.tables():
        assert not table(tmp_path / "other", name).equals(table(messy_logs["parquet", False], name))


@pytest.mark.parametrize(("format_", "gzip", "suffix"), FORMATS)
def test_every_format_carries_the_same_rows(
    spec: Spec, messy_logs: dict[tuple[str, bool], Path], format_: LogFormat, gzip: bool, suffix: str
):
    this, reference = messy_logs[format_, gzip], messy_logs["parquet", False]
    for name in spec.logs.tables():
        assert_frame_equal(read(spec, this, name).rows, read(spec, reference, name).rows)
    assert_frame_equal(table(this, "truth"), table(reference, "truth"))
    assert {p.name.split(".", 1)[1] for p in (this / "click").iterdir()} == {suffix[1:]}


@pytest.mark.parametrize(("format_", "gzip", "suffix"), FORMATS)
def test_the_mess_is_what_the_report_declares(
    spec: Spec, messy_logs: dict[tuple[str, bool], Path], format_: LogFormat, gzip: bool, suffix: str
):
    raw = messy_logs[format_, gzip]
    declared = json.loads((raw / "truth" / "simulation.json").read_text())["tables"]
    assert declared.keys() == spec.logs.tables().keys()
    for name, count in declared.items():
        found = read(spec, raw, name)
        distinct = found.rows.unique().height
        assert (distinct, found.rows.height - distinct, found.rejected.height) == (
            count["rows"],
            count["duplicated"],
            count["malformed"],
        )
    for name in EVENTS:
        for kind in ("duplicated", "malformed", "late"):
            rows, expected = declared[name]["rows"], 0.1 * declared[name]["rows"]
            assert abs(declared[name][kind] - expected) < 5 * np.sqrt(0.1 * rows) + 2


def test_malformed_rows_are_those_of_their_format(spec: Spec, messy_logs: dict[tuple[str, bool], Path]):
    parquet = table(messy_logs["parquet", False], "play")
    assert parquet["impression_id"].null_count() > 0
    assert (parquet["play_ms"] < 0).sum() > 0
    csv = "".join(p.read_text() for p in (messy_logs["csv", False] / "play").iterdir())
    lines = pl.Series(csv.splitlines())
    for defect in (r"^unknown,\d+,\d+,\d+$", r"^\d+$", r"^,\d+,\d+,\d+$"):
        assert lines.str.contains(defect).any(), defect
    text = "".join(p.read_text() for p in (messy_logs["jsonl", False] / "play").iterdir())
    lines = pl.Series(text.splitlines())
    for defect in (r'^\{"impression_id":"unknown",', r'^\{"impression_id":\d+$', r'^\{"user_id":'):
        assert lines.str.contains(defect).any(), defect


def test_late_rows_come_with_the_next_days_files(messy_logs: dict[tuple[str, bool], Path]):
    raw = messy_logs["parquet", False]
    declared = json.loads((raw / "truth" / "simulation.json").read_text())["tables"]
    for name in EVENTS:
        rows = pl.read_parquet(raw / name / "*.parquet", include_file_paths="file")
        arrived = pl.col("file").str.extract(r"(\d{4}-\d\d-\d\d)-\d{3}\.parquet$").str.to_date()
        days = rows.select((arrived - pl.from_epoch("time_ms", "ms").dt.date()).dt.total_days().alias("days"))["days"]
        assert set(days) == {0, 1}
        assert (days == 1).sum() == declared[name]["late"]


def test_disorder_displaces_rows_within_their_file_and_without_it_time_rises(spec: Spec, tmp_path: Path):
    shares = []
    for share in (0.0, 0.3):
        out = tmp_path / str(share)
        simulate_logs(SMALL.model_copy(update={**CLEAN, "disorder": share}), spec, out)
        times = pl.read_parquet(out / "impression" / "2026-03-01-000.parquet")["time_ms"]
        shares.append((times.diff().drop_nulls() < 0).mean())
    assert shares[0] == 0
    assert shares[1] > 0.1


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


@pytest.mark.parametrize(
    "change",
    [
        {"impressions": 1, "users": 1, "videos": 1, "days": 1, "new_videos": 0},
        {"impressions": 2, "days": 5},
        {"late_rate": 1.0},
    ],
)
def test_small_sizes_and_extreme_rates_give_a_whole_log(spec: Spec, tmp_path: Path, change: dict[str, float]):
    counts = simulate_logs(SMALL.model_copy(update=change), spec, tmp_path / "raw")
    for name, count in counts.items():
        assert read(spec, tmp_path / "raw", name).rows.unique().height == count["rows"]


def test_what_exists_is_not_overwritten(spec: Spec, tmp_path: Path):
    mine = tmp_path / "raw" / "mine.txt"
    mine.parent.mkdir()
    mine.write_text("precious")
    with pytest.raises(StrataError, match="not empty"):
        simulate_logs(SMALL, spec, tmp_path / "raw")
    assert contents(tmp_path) == {"raw/mine.txt": b"precious"}
    with pytest.raises(StrataError, match="not empty"):
        simulate_logs(SMALL, spec, mine)
    (tmp_path / "empty").mkdir()
    simulate_logs(SMALL, spec, tmp_path / "empty")
    assert (tmp_path / "empty" / "truth" / "simulation.json").exists()


def test_a_spec_that_cannot_be_simulated_is_refused_before_anything_is_written(spec: Spec, tmp_path: Path):
    def with_stay(**change: object) -> Spec:
        stay = spec.logs.events["stay"].model_copy(update=change)
        events = {**spec.logs.events, "stay": stay}
        return spec.model_copy(update={"logs": spec.logs.model_copy(update={"events": events})})

    columns = spec.logs.events["stay"].columns
    share = spec.logs.events | {"share": spec.logs.events["like"]}
    refused = {
        "no column `date`": load_spec(SPECS / "kuairand.yaml"),
        "no such table": spec.model_copy(update={"logs": spec.logs.model_copy(update={"events": share})}),
        "no column `mood`": with_stay(columns={**columns, "mood": "string"}),
        "`dwell_ms` is declared int32": with_stay(columns={**columns, "dwell_ms": "int32"}),
        "is no folder": with_stay(files="stay/*.parquet"),
        "folder `truth` is taken": with_stay(files="truth"),
        "folder `click` is taken": with_stay(files="click"),
        "unknown time zone": spec.model_copy(update={"logs": spec.logs.model_copy(update={"timezone": "Mars"})}),
    }
    for message, wrong in refused.items():
        with pytest.raises(StrataError, match=message):
            simulate_logs(SMALL, wrong, tmp_path / "raw")
    assert list(tmp_path.iterdir()) == []


def test_only_what_the_spec_declares_is_written(spec: Spec, tmp_path: Path):
    play = spec.logs.events["play"].model_copy(update={"files": "watched"})
    logs = spec.logs.model_copy(update={"events": {"play": play}, "timezone": "Asia/Shanghai"})
    simulate_logs(SMALL.model_copy(update=CLEAN), spec.model_copy(update={"logs": logs}), tmp_path / "raw")
    assert {p.name for p in (tmp_path / "raw").iterdir()} == {"impression", "watched", "user", "video", "truth"}
    local = pl.from_epoch(table(tmp_path / "raw", "impression")["time_ms"], "ms").dt.offset_by("8h")
    assert local.dt.strftime("%Y-%m-%d").unique().sort().to_list() == ["2026-03-01", "2026-03-02", "2026-03-03"]
