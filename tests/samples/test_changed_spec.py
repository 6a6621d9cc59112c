"""A changed spec redoes what it concerns and nothing else, and `--explain` says so before."""

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.spec.file import load_spec
from pipeline.spec.parts import BY_DAYS, NO_STAGE, changed_parts
from tests.samples.stores import (
    arrived_after,
    assert_as_from_scratch,
    build,
    edited,
    finished,
    samples_by_day,
    stamps,
)


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
