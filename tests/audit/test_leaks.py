"""Leaks planted in a store or in its log: the audit, or the data report, finds each and names its column."""

from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from pipeline.audit.audit import Audit, audit
from pipeline.commands import build
from pipeline.data_report.summary import summarise
from pipeline.errors import StrataError
from pipeline.manifest import Manifest, load_manifest
from pipeline.samples.build import build_samples
from pipeline.spec.parts import samples_fingerprint
from pipeline.statistics import load_statistics

Rewrite = Callable[..., Path]
ROWS = 120
LEAK_AUC = 0.99


def leaking(found: Audit) -> set[str]:
    """The columns in which the store differs from the log."""
    return {difference.column for difference in found.differences}


def rows(store: Path) -> pl.DataFrame:
    return pl.concat(pl.read_parquet(store / f.path, hive_partitioning=False) for f in load_manifest(store).files)


def with_user_shown(store: Path, days_back: tuple[int, ...]) -> Callable[[pl.DataFrame], pl.DataFrame]:
    """Gives each sample the number of its user's impressions on the discovery page, that many local days before."""
    local_day = pl.from_epoch(pl.col("time_ms") + 8 * 3_600_000, time_unit="ms").dt.date()  # Shanghai
    norm = load_manifest(store).learned.normalisers["user_shown"]
    shown = rows(store).filter("scene_discover").group_by("user_id", day=local_day).len("shown")
    sees = [shown.with_columns(pl.col("day") + pl.duration(days=back)) for back in days_back]
    counts = pl.concat(sees).group_by("user_id", "day").agg(pl.col("shown").sum())
    value = (pl.col("shown").fill_null(0).log1p() - norm.mean) / norm.std

    def change(frame: pl.DataFrame) -> pl.DataFrame:
        found = frame.with_columns(day=local_day).join(counts, on=["user_id", "day"], how="left", maintain_order="left")
        return found.with_columns(feature_user_shown=value.cast(pl.Float32)).drop("day", "shown")

    return change


@pytest.mark.parametrize(
    ("days_back", "expected"), [((1, 2), set()), ((0, 1), {"feature_user_shown"}), ((0, 1, 2), {"feature_user_shown"})]
)
def test_a_counter_that_includes_the_same_day(
    messy_store: Path, messy_raw: Path, rewritten: Rewrite, days_back: tuple[int, ...], expected: set[str]
) -> None:
    store = rewritten(messy_store, with_user_shown(messy_store, days_back))
    found = audit(store, messy_raw, ROWS)
    assert leaking(found) == expected
    assert len(found.differences) > ROWS / 2 or not expected


def test_a_history_that_includes_the_impression_itself(messy_store: Path, messy_raw: Path, rewritten: Rewrite) -> None:
    """The last video that the user clicked is the one that is shown, wherever it is clicked."""
    clicked, shown = pl.col("feature_clicked_videos"), pl.col("feature_video_id")
    itself = clicked.list.concat(shown).list.tail(20)
    leak = pl.when(pl.col("label_click") == 1).then(itself).otherwise(clicked)
    store = rewritten(messy_store, lambda frame: frame.with_columns(leak))
    found = audit(store, messy_raw, ROWS)
    assert leaking(found) == {"feature_clicked_videos"}
    assert all(difference.stored[-1] > 0 or 0 in difference.stored for difference in found.differences)


def test_a_label_as_a_feature(messy_store: Path, messy_raw: Path, rewritten: Rewrite) -> None:
    """The audit finds that the feature is not what the log says; the data report, that it tells the label."""
    leak = pl.col("label_click").fill_null(0.0).alias("feature_position")
    store = rewritten(messy_store, lambda frame: frame.with_columns(leak))
    found = audit(store, messy_raw, 400)
    assert leaking(found) == {"feature_position"}
    summary = summarise(store, load_manifest(store), load_statistics(store))
    leaks = [(o, f, auc) for o, areas in summary.separations.items() for f, auc in areas.items() if auc >= LEAK_AUC]
    assert leaks == [("click", "position", 1.0)]


def test_a_label_of_an_event_outside_its_window(messy_store: Path, messy_raw: Path, rewritten: Rewrite) -> None:
    """The samples were built with a window of an hour for a stay; the spec now gives it two seconds."""
    spec = load_manifest(messy_store).spec
    stay = spec.logs.events["stay"].model_copy(update={"within_s": 2})
    logs = spec.logs.model_copy(update={"events": spec.logs.events | {"stay": stay}})
    short = spec.model_copy(update={"logs": logs})

    def promise(manifest: Manifest) -> Manifest:
        return manifest.model_copy(update={"spec": short, "fingerprint": samples_fingerprint(short)})

    store = rewritten(messy_store, lambda frame: frame, promise)
    found = audit(store, messy_raw, ROWS)
    assert leaking(found) == {"label_stay", "label_dwell", "mask_dwell"}
    stays = [difference for difference in found.differences if difference.column == "label_stay"]
    assert {(stay.stored, stay.expected) for stay in stays} == {(1.0, 0.0)}
    dwells = [difference.stored for difference in found.differences if difference.column == "label_dwell"]
    assert len(dwells) == len(stays)
    assert min(dwells) > 2


# ------------------------------------------------------------------- logs of a few columns, built by the product

SPEC = """\
name: small
logs:
  impression:
    files: log.csv
    columns: {uid: int64, video: int64, ts: int64, click: int64, copy: int64, page: string}
    id: [uid, video, ts]
    user: uid
    video: video
    time: ts
    outcomes: [click]
tables: {video: {encode: vocab, dim: 4}, hashed: {encode: hash, rows: 1000000, dim: 4}}
features:
  user: {kind: id, table: hashed, source: uid}
  video: {kind: id, table: video}
  seen: {kind: history, table: video, of: video, last: 3}
  FEATURE
objectives:
  click: {kind: binary, label: click}
scenes:
  feed: {where: video >= 0, weights: {click: 1}}
"""
DAY = 86_400_000


def write_small(folder: Path, feature: str, log: pl.DataFrame) -> tuple[Path, Path, Path]:
    """The spec, the raw folder, and the folder for the store."""
    (folder / "raw").mkdir()
    log.write_csv(folder / "raw" / "log.csv")
    (folder / "spec.yaml").write_text(SPEC.replace("FEATURE", feature))
    return folder / "spec.yaml", folder / "raw", folder / "samples"


def log_of(n: int) -> pl.DataFrame:
    """50 rows a day. `copy` repeats the outcome under another name, `page` says it in words, `video` tells nothing."""
    click = [i * i % 7 > 2 for i in range(n)]
    return pl.DataFrame(
        {
            "uid": [i % 5 for i in range(n)],
            "video": [i % 3 for i in range(n)],
            "ts": [DAY + i * DAY // 50 for i in range(n)],
            "click": [int(c) for c in click],
            "copy": [-3 * int(c) for c in click],
            "page": [f"{'yes' if c else 'no'}-{i % 2}" for i, c in enumerate(click)],
        }
    )


@pytest.mark.parametrize(
    ("name", "feature"),
    [
        ("copy", "copy: {kind: dense}"),
        ("page", "page: {kind: id, table: hashed}"),
        ("pages", "pages: {kind: id_list, table: hashed, source: page, separator: '-'}"),
    ],
)
def test_build_with_audit_fails_on_an_outcome_under_another_name(tmp_path: Path, name: str, feature: str) -> None:
    """The samples hold what the log says, so that only the feature's power gives the leak away."""
    spec, raw, out = write_small(tmp_path, feature, log_of(400))
    found = f"{out}: features may repeat an outcome: {name} alone separates the label of click: AUC "
    with pytest.raises(StrataError, match=f"^{found}.*; take out those that are not known at the impression$"):
        build.main(spec, str(raw), str(out), audit=400)
    assert audit(out, raw, 400).differences == []
    build.main(spec, str(raw), str(out))  # without an audit it is a warning in data.html


@pytest.mark.parametrize(
    ("feature", "rows"),
    [
        ("ts: {kind: id, table: hashed}", 400),  # nearly unique: it tells nothing about another sample
        ("ts: {kind: dense}", 400),
        ("copy: {kind: dense}", 200),  # a leak, but 100 training rows may be told apart by chance
    ],
)
def test_no_alarm_without_a_leak_or_with_too_few_rows(
    tmp_path: Path, feature: str, rows: int, capsys: pytest.CaptureFixture[str]
) -> None:
    spec, raw, out = write_small(tmp_path, feature, log_of(rows))
    build.main(spec, str(raw), str(out), audit=100)
    assert "values of 100 samples are what the raw logs say" in capsys.readouterr().out


def test_a_history_that_includes_an_event_at_the_very_time_of_the_impression(
    tmp_path: Path, rewritten: Rewrite
) -> None:
    """User 7 sees videos 1 and 2 at once, and each then has the other in its history."""
    at_once = pl.DataFrame(
        {"uid": [7, 7], "video": [1, 2], "ts": [4 * DAY, 4 * DAY], "click": [0, 1], "copy": [0, 0], "page": ["", ""]}
    )
    spec, raw, store = write_small(tmp_path, "ts: {kind: dense}", pl.concat([log_of(200), at_once]))
    build_samples(spec, raw, store)
    assert audit(store, raw, 300).differences == []
    others = rows(store).filter(user_id=7)["feature_video"].to_list()
    assert len(others) == 2
    mine = pl.col("feature_video")
    other = pl.when(pl.col("user_id") == 7).then(pl.lit(sum(others)) - mine)
    leak = pl.col("feature_seen").list.concat(other).list.drop_nulls().cast(pl.List(pl.Int32))
    store = rewritten(store, lambda frame: frame.with_columns(leak))
    found = audit(store, raw, 300)
    assert [(d.sample_id, d.column, d.expected) for d in sorted(found.differences, key=lambda d: d.sample_id)] == [
        (f"7-1-{4 * DAY}", "feature_seen", []),
        (f"7-2-{4 * DAY}", "feature_seen", []),
    ]
    assert sorted(d.stored for d in found.differences) == sorted([index] for index in others)
