"""A second build does what is new and nothing else, and its store is that of one build over everything."""

import hashlib
import re
import shutil
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

from pipeline.manifest import Manifest, load_manifest
from pipeline.samples.build import build_samples
from pipeline.samples.division import Options
from pipeline.samples.store import replaced_files
from pipeline.simulation.config import SimulationConfig
from pipeline.simulation.simulate import simulate_logs
from pipeline.spec.file import load_spec
from pipeline.spec.parts import BY_DAYS, NO_STAGE, changed_parts
from pipeline.storage import Folder

LOG = SimulationConfig(
    users=150,
    videos=80,
    new_videos=5,
    days=6,
    impressions=2000,
    late_rate=0.05,
    duplicate_rate=0.02,
    malformed_rate=0.02,
)
DATES = "split: {valid_from: 2026-03-04, test_from: 2026-03-05}"
DAY_MS = 86_400_000
Stamps = dict[str, tuple[int, int]]


@pytest.fixture(scope="module")
def whole_log(tmp_path_factory: pytest.TempPathFactory, spec_path: Path) -> Path:
    """Six days; the rows that came late lie in the files of the day after."""
    raw = tmp_path_factory.mktemp("whole") / "raw"
    simulate_logs(LOG, load_spec(spec_path), raw)
    return raw


@pytest.fixture
def log(whole_log: Path, tmp_path: Path) -> Path:
    """A copy to change."""
    return shutil.copytree(whole_log, tmp_path / "raw")


@pytest.fixture(scope="module")
def dated_spec(tmp_path_factory: pytest.TempPathFactory, spec_path: Path) -> Path:
    path = tmp_path_factory.mktemp("spec") / "spec.yaml"
    path.write_text(edited(spec_path.read_text(), "split: {valid_days: 1, test_days: 1}", DATES))
    return path


@pytest.fixture(scope="module")
def built(whole_log: Path, dated_spec: Path) -> Path:
    """The store of `whole_log`; read only."""
    out = whole_log.parent / "samples"
    build(dated_spec, whole_log, out)
    return out


@pytest.fixture
def store(built: Path, tmp_path: Path) -> Path:
    """A copy to bring up to date."""
    return shutil.copytree(built, tmp_path / "samples")


def build(spec: Path, raw: Path, out: Path) -> Manifest:
    return build_samples(spec, raw, out, Options(workers=1))


def edited(text: str, *pairs: str) -> str:
    for before, after in zip(pairs[::2], pairs[1::2], strict=True):
        assert text.count(before) == 1, before
        text = text.replace(before, after)
    return text


def content(store: Path) -> dict[str, object]:
    """All that a reader can find in a store, but for when it was made; checks what the manifest says of its files.

    Files that were replaced and stay for readers are left out.
    """
    manifest = load_manifest(store)
    sums = {file.path: file.sha256 for file in manifest.files}
    sums |= {vocabulary.path: vocabulary.sha256 for vocabulary in manifest.learned.vocabularies.values()}
    found = {str(p.relative_to(store)): p for p in store.rglob("*") if p.is_file() and ".work" not in p.parts}
    kept = {file.name for file in replaced_files(manifest, Folder.at(store))}
    digests = {n: hashlib.sha256(path.read_bytes()).hexdigest() for n, path in found.items() if n not in kept}
    assert sums.items() <= digests.items()
    extra = {name for name in digests.keys() - sums.keys() if not name.startswith("rejected/")}
    assert extra == {"manifest.json", "statistics.json"}
    del digests["manifest.json"]
    return digests | {"manifest": manifest.model_copy(update={"created": ""})}


def assert_as_from_scratch(store: Path, spec: Path, raw: Path) -> None:
    scratch = store.parent / "scratch"
    build(spec, raw, scratch)
    assert content(store) == content(scratch)


def stamps(store: Path, below: str) -> Stamps:
    """Which file lies there, and when it was written."""
    paths = [path for path in (store / below).rglob("*") if path.is_file()]
    return {str(p.relative_to(store)): (p.stat().st_ino, p.stat().st_mtime_ns) for p in paths}


def samples_by_day(store: Path) -> dict[str, Stamps]:
    days: dict[str, Stamps] = {}
    named = load_manifest(store).paths()
    for name, stamp in stamps(store, ".").items():
        if name.startswith("split=") and name in named:
            days.setdefault(name.split("date=")[1][:10], {})[name] = stamp
    return days


def arrived_after(raw: Path, day: str, *but_of: str) -> list[Path]:
    """The files that came after a day, but of some tables."""
    return [p for p in raw.glob("*/2026-*.parquet") if p.name[:10] > day and p.parent.name not in but_of]


def take_out(table: Path, rows: pl.Expr) -> tuple[Path, pl.DataFrame]:
    """Takes rows out of the files of a table, for a file of their own that has yet to come."""
    taken = []
    for path in sorted(table.glob("*.parquet")):
        every = pl.read_parquet(path)
        which = every.select(rows.fill_null(False)).to_series()
        if which.any():
            taken.append(every.filter(which))
            every.filter(~which).write_parquet(path)
    assert taken
    return table / "late.parquet", pl.concat(taken)


def on(day: str) -> pl.Expr:
    """Rows of a day in UTC, but for its first hours, in which events of the day before may follow their impression."""
    begins = int(datetime.fromisoformat(day).replace(tzinfo=UTC).timestamp() * 1000)
    return pl.col("time_ms").cast(pl.Int64, strict=False).is_between(begins + 7_200_000, begins + DAY_MS - 1)


# --------------------------------------------------------------------------------------------- new and late rows


def build_in_two_steps(spec: Path, raw: Path, later: list[Path], store: Path) -> tuple[Manifest, Manifest, list[str]]:
    """Builds before and after some files come; returns both manifests, and the days whose files are as they were."""
    assert len(later) > 5
    aside = {path: path.rename(path.with_suffix(".not_yet")) for path in later}
    first, before = build(spec, raw, store), samples_by_day(store)
    for path, place in aside.items():
        place.rename(path)
    second, after = build(spec, raw, store), samples_by_day(store)
    return first, second, sorted(day for day in before if before[day] == after[day])


def test_a_day_added_later_gives_the_store_of_one_build(log: Path, spec_path: Path, tmp_path: Path) -> None:
    store = tmp_path / "samples"
    first, second, _ = build_in_two_steps(spec_path, log, arrived_after(log, "2026-03-05"), store)
    assert (first.days("test"), second.days("test")) == (["2026-03-05"], ["2026-03-06"])
    assert_as_from_scratch(store, spec_path, log)


def test_with_dates_in_the_split_a_day_added_leaves_the_others_alone(
    log: Path, dated_spec: Path, tmp_path: Path
) -> None:
    """But for the day before, whose late impressions and events lie in the new files, and what these change."""
    store, new = tmp_path / "samples", arrived_after(log, "2026-03-05", "video")
    first, second, kept = build_in_two_steps(dated_spec, log, new, store)
    assert set(second.days("test")) - set(first.days("test")) == {"2026-03-06"}
    same = {file.sha256 for file in first.files} & {file.sha256 for file in second.files}
    assert kept == sorted(file.date for file in first.files if file.sha256 in same)
    assert (
        {"2026-03-01", "2026-03-02", "2026-03-03"}
        <= set(kept)
        < set(first.days("train")) | {"2026-03-04", "2026-03-05"}
    )
    assert_as_from_scratch(store, dated_spec, log)


def test_profiles_of_new_videos_leave_earlier_days_alone(log: Path, dated_spec: Path, tmp_path: Path) -> None:
    new = arrived_after(log, "2026-03-05")
    assert {path.parent.name for path in new} >= {"video"}
    _, _, kept = build_in_two_steps(dated_spec, log, new, tmp_path / "samples")
    assert {"2026-03-01", "2026-03-02", "2026-03-03"} <= set(kept)


def test_late_outcomes_change_the_files_of_their_day_alone(log: Path, dated_spec: Path, tmp_path: Path) -> None:
    """`stay` is a label of the short_video spec; no counter and no history uses it."""
    store = tmp_path / "samples"
    path, rows = take_out(log / "stay", on("2026-03-03") & (pl.col("impression_id").hash(0) % 3 == 0))
    build(dated_spec, log, store)
    before = samples_by_day(store)
    rows.write_parquet(path)
    build(dated_spec, log, store)
    after = samples_by_day(store)
    assert {day for day in before if before[day] != after[day]} == {"2026-03-03"}
    assert_as_from_scratch(store, dated_spec, log)


def test_late_clicks_reach_the_days_after_through_counters_and_histories(
    log: Path, dated_spec: Path, tmp_path: Path
) -> None:
    store = tmp_path / "samples"
    path, rows = take_out(log / "click", on("2026-03-02") & (pl.col("impression_id").hash(0) % 3 == 0))
    build(dated_spec, log, store)
    before = samples_by_day(store)
    rows.write_parquet(path)
    build(dated_spec, log, store)
    after = samples_by_day(store)
    assert {day for day in before if before[day] != after[day]} >= {f"2026-03-{day:02}" for day in range(2, 7)}
    assert_as_from_scratch(store, dated_spec, log)


# ------------------------------------------------------------------------------------------ changed raw files


def remove_clicks(raw: Path) -> None:
    (raw / "click" / "2026-03-03-000.parquet").unlink()


def remove_the_last_day(raw: Path) -> None:
    for path in arrived_after(raw, "2026-03-05"):
        path.unlink()


def replace_profiles(raw: Path) -> None:
    for path in (raw / "video").glob("*.parquet"):
        rows = pl.read_parquet(path)
        rows.with_columns(pl.col("duration_ms") * 2, pl.col("author_id").shuffle(0)).write_parquet(path)


@pytest.mark.parametrize("change", [remove_clicks, remove_the_last_day, replace_profiles])
def test_after_raw_files_were_removed_or_replaced_the_store_is_as_from_scratch(
    log: Path, dated_spec: Path, tmp_path: Path, change: Callable[[Path], None]
) -> None:
    store = tmp_path / "samples"
    first = build(dated_spec, log, store)
    change(log)
    assert build(dated_spec, log, store).files != first.files
    assert_as_from_scratch(store, dated_spec, log)


def test_two_builds_give_the_same_files(built: Path, whole_log: Path, dated_spec: Path, tmp_path: Path) -> None:
    build(dated_spec, whole_log, tmp_path / "samples")
    assert content(tmp_path / "samples") == content(built)


def test_a_build_of_what_is_finished_makes_nothing_anew(store: Path, whole_log: Path, dated_spec: Path) -> None:
    before = finished(store)
    build(dated_spec, whole_log, store)
    assert finished(store) == before


# --------------------------------------------------------------------------------------------- a changed spec


def finished(store: Path, *stages: str) -> Stamps:
    """What tasks have left, of some stages or of all, and the samples."""
    left = [f".work/{stage}" for stage in stages] or [str(p.relative_to(store)) for p in (store / ".work").glob("*/")]
    return {name: stamp for place in left for name, stamp in stamps(store, place).items()}


def test_what_training_alone_uses_makes_nothing_anew(
    store: Path, whole_log: Path, dated_spec: Path, tmp_path: Path
) -> None:
    before, samples = finished(store), samples_by_day(store)
    assert len(before) > 100
    spec = tmp_path / "spec.yaml"
    spec.write_text(
        edited(
            dated_spec.read_text(),
            "city: {encode: vocab, dim: 8}",
            "city: {encode: vocab, dim: 12, pooling: sum}",
            "weights: {stay: 1.0, dwell: 0.5, click: 1.0}",
            "weights: {stay: 1.0, dwell: 0.25, click: 1.0}",
            "label: dwell_ms / 1000.0, where: stay, unit: s",
            "label: dwell_ms / 1000.0, where: stay, unit: sec",
        )
    )
    manifest = build(spec, whole_log, store)
    assert (finished(store), samples_by_day(store)) == (before, samples)
    assert manifest.spec == load_spec(spec)
    assert_as_from_scratch(store, spec, whole_log)


def test_columns_of_the_log_in_another_order_change_nothing_even_with_a_day_added(
    log: Path, spec_path: Path, tmp_path: Path
) -> None:
    store, spec = tmp_path / "samples", tmp_path / "spec.yaml"
    later = arrived_after(log, "2026-03-05")
    aside = {path: path.rename(path.with_suffix(".not_yet")) for path in later}
    build(spec_path, log, store)
    before = finished(store, "dealt")
    for path, place in aside.items():
        place.rename(path)
    text = spec_path.read_text()
    columns = re.findall(r"columns: \{(.*int64.*)\}", text)
    assert len(columns) == 7
    for of_table in columns:
        text = text.replace(of_table, ", ".join(reversed(of_table.split(", "))))
    spec.write_text(text)
    found = build(spec, log, store)
    assert before.items() <= finished(store, "dealt").items()
    scratch = build(spec, log, tmp_path / "scratch")
    assert [file.sha256 for file in found.files] == [file.sha256 for file in scratch.files]
    assert found.learned == scratch.learned


def test_a_changed_feature_keeps_all_that_comes_before_drafts(
    store: Path, whole_log: Path, dated_spec: Path, tmp_path: Path
) -> None:
    earlier = ("dealt", "profiles", "attributed", "counted", "daily", "windows")
    before, drafts = finished(store, *earlier), finished(store, "drafts")
    spec = tmp_path / "spec.yaml"
    spec.write_text(edited(dated_spec.read_text(), "source: (user_likes_7d + 1)", "source: (user_likes_7d + 2)"))
    build(spec, whole_log, store)
    assert finished(store, *earlier) == before
    after = finished(store, "drafts")
    assert len(after) == len(drafts) > 0
    assert not after.keys() & drafts.keys()
    assert_as_from_scratch(store, spec, whole_log)


EDITS: dict[str, tuple[list[str], dict[str, list[str]]]] = {
    "dim": (["city: {encode: vocab, dim: 8}", "city: {encode: vocab, dim: 4}"], {NO_STAGE: ["tables.city.dim"]}),
    "min_count": (
        ["video: {encode: vocab, min_count: 2, dim: 16}", "video: {encode: vocab, min_count: 3, dim: 16}"],
        {"learned": ["tables.video.min_count"]},
    ),
    "split": (["split: {valid_days: 1, test_days: 1}", "split: {valid_days: 2, test_days: 2}"], {BY_DAYS: ["split"]}),
    "source": (
        ["position: {kind: dense}", "position: {kind: dense, source: position + 1}"],
        {"drafts": ["features.position.source"]},
    ),
    "new feature": (
        ["  position: {kind: dense}", "  position: {kind: dense}\n  slot: {kind: dense, source: position}"],
        {"drafts": ["features.slot"]},
    ),
    "feature gone": (["  position: {kind: dense}\n", ""], {"drafts": ["features.position"]}),
    "filter": (["split: {", "filter: position < 5\nsplit: {"], {"drafts": ["filter"]}),
    "weight": (["play_time: 0.5", "play_time: 0.7"], {NO_STAGE: ["scenes.player.weights.play_time"]}),
    "learned elsewhere": (["like: 1.0}", "like: 1.0, stay: 0.5}"], {"drafts": ["scenes.player.weights.stay"]}),
    "label": (["label: like}", "label: like and play}"], {"drafts": ["objectives.like.label"]}),
    "window of counters": (["days: [7]", "days: [7, 1]"], {"windows": ["counters.days"]}),
    "column": (["age_days: (time_ms", "age_days: (1 + time_ms"], {"counted": ["columns.age_days"]}),
    "window of an event": (
        [
            "columns: {impression_id: int64, user_id: int64, time_ms: int64, dwell_ms: int64}\n"
            '      checks: ["dwell_ms >= 0"]\n      time: time_ms\n      within_s: 3600',
            "columns: {impression_id: int64, user_id: int64, time_ms: int64, dwell_ms: int64}\n"
            '      checks: ["dwell_ms >= 0"]\n      time: time_ms\n      within_s: 600',
        ],
        {"attributed": ["logs.events.stay.within_s"]},
    ),
    "zone and weight": (
        ["timezone: UTC", "timezone: Asia/Tokyo", "play_time: 0.5", "play_time: 0.7"],
        {"dealt": ["logs.timezone"], NO_STAGE: ["scenes.player.weights.play_time"]},
    ),
    "check": (['checks: ["play_ms >= 0"]', 'checks: ["play_ms > 0"]'], {"dealt": ["logs.events.play.checks"]}),
    "nothing": ([], {}),
}


@pytest.mark.parametrize("name", EDITS)
def test_changes_are_named_with_the_stage_that_they_redo(name: str, spec_path: Path, tmp_path: Path) -> None:
    edits, expected = EDITS[name]
    spec = tmp_path / "spec.yaml"
    spec.write_text(edited(spec_path.read_text(), *edits))
    assert changed_parts(load_spec(spec_path), load_spec(spec)) == expected


ORDER = ["dealt", "attributed", "counted", "drafts", "learned"]


@pytest.mark.parametrize("name", ["min_count", "source", "learned elsewhere", "column", "window of an event", "check"])
def test_the_stage_that_changes_name_is_where_work_begins_again(
    name: str, store: Path, whole_log: Path, dated_spec: Path, tmp_path: Path
) -> None:
    edits, expected = EDITS[name]
    before = {stage: finished(store, stage) for stage in ORDER}
    spec = tmp_path / "spec.yaml"
    spec.write_text(edited(dated_spec.read_text(), *edits))
    build(spec, whole_log, store)
    anew = [stage for stage in ORDER if not finished(store, stage).items() <= before[stage].items()]
    assert anew[0] == next(iter(expected))


# ------------------------------------------------------------------------------------------------------ --explain


def test_explain_says_what_a_build_would_do_and_does_nothing(
    store: Path,
    whole_log: Path,
    dated_spec: Path,
    tmp_path: Path,
    command: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    spec = tmp_path / "spec.yaml"
    spec.write_text(
        edited(
            dated_spec.read_text(),
            "play_time: 0.5",
            "play_time: 0.7",
            "position: {kind: dense}",
            "position: {kind: dense, source: position + 1}",
        )
    )
    before = stamps(store, ".")
    done = command(
        "build_samples.py", "--spec", spec, "--raw", whole_log, "--out", store, "--explain", "--partitions", 6
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert stamps(store, ".") == before
    lines = [" ".join(line.split()) for line in done.stdout.splitlines()]
    for promised in (
        "users in 6 ranges of the hash of `user_id`, each day by day",
        "play at most 86,400 s after the impression, by the event's own time",
        "user counters shown, clicks, plays, likes, play_s over 7 completed days, in its partition",
        "video counters shown, clicks, plays, likes, play_s over 7 completed days, from all partitions, "
        "added up by day",
        "hour = extract(hour from impression_time)",
        "feature_clicked_videos history: video_id of the last 20 click events -> table video, vocabulary of what "
        "training shows 2 times or more",
        "feature_position number: position + 1, standardise",
        "label_play_time regression: play_ms / 1000.0 where play",
        "is done again for all days, from drafts on (drafts, vocabularies, encoding) features.position.source",
        "nothing is done again scenes.player.weights.play_time",
    ):
        assert promised in lines


def test_explain_of_a_first_build_creates_nothing(
    whole_log: Path, dated_spec: Path, tmp_path: Path, command: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    done = command("build_samples.py", "--spec", dated_spec, "--raw", whole_log, "--out", tmp_path / "new", "--explain")
    assert (done.returncode, done.stderr) == (0, "")
    assert "all of it is to be done: there is none yet" in " ".join(done.stdout.split())
    assert list(tmp_path.iterdir()) == []
