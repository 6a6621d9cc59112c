"""Simulated logs are reproducible, the same in every format, and exactly as messy as they say."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from pipeline.errors import StrataError
from pipeline.raw.reading import REJECTED, RawChunk, find_files, read_chunks
from pipeline.simulation.config import LogFormat
from pipeline.simulation.simulate import simulate_logs
from pipeline.spec.file import load_spec
from pipeline.spec.spec import Spec
from pipeline.sql.types import schema
from pipeline.storage import Folder
from tests.simulation.conftest import CLEAN, SMALL, SPECS, table

MESSY = SMALL.model_copy(update={"late_rate": 0.1, "duplicate_rate": 0.1, "malformed_rate": 0.1, "disorder": 0.3})
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
