"""However the work is divided, over partitions, processes, machines or runs of rows, the samples are the same."""

import shutil
from pathlib import Path

import polars as pl
import pytest

from pipeline.manifest import Manifest, load_manifest
from pipeline.samples.build import build_samples
from pipeline.samples.division import Options
from pipeline.simulation.config import SimulationConfig
from pipeline.simulation.simulate import simulate_logs
from pipeline.spec.file import load_spec

ROOT = Path(__file__).parents[2]
KUAIRAND = ROOT.parent / "shared" / "data" / "kuairand_pure"
Store = tuple[Manifest, str, dict[str, pl.DataFrame], dict[str, bytes], dict[str, pl.DataFrame]]


def build(spec: Path, raw: Path, out: Path, options: Options) -> Store:
    build_samples(spec, raw, out, options)
    return content(out)


def content(store: Path) -> Store:
    """All that does not depend on how the work was divided.

    Of the manifest everything but its time and the list of files; the statistics; the rows of every date in their
    order; the vocabularies; and the rejected rows in any order.
    """
    manifest = load_manifest(store)
    rows: dict[str, list[pl.DataFrame]] = {}
    for file in manifest.files:
        rows.setdefault(f"{file.split} {file.date}", []).append(
            pl.read_parquet(store / file.path, hive_partitioning=False)
        )
    vocabularies = {v.path: (store / v.path).read_bytes() for v in manifest.learned.vocabularies.values()}
    rejected = {path.name: pl.read_parquet(path).sort(pl.all()) for path in (store / "rejected").glob("*.parquet")}
    statistics = (store / "statistics.json").read_text()
    whole = manifest.model_copy(update={"created": "", "files": []})
    return whole, statistics, {date: pl.concat(parts) for date, parts in rows.items()}, vocabularies, rejected


def assert_same(found: Store, expected: Store) -> None:
    assert found[0] == expected[0]
    assert (found[0].fingerprint, found[0].learned) == (expected[0].fingerprint, expected[0].learned)
    assert found[1] == expected[1]
    assert found[3] == expected[3]
    for samples, wanted in ((found[2], expected[2]), (found[4], expected[4])):
        assert samples.keys() == wanted.keys()
        for name, rows in wanted.items():
            assert samples[name].equals(rows), name


# ---------------------------------------------------------------------------------------- a messy event log


@pytest.fixture(scope="module")
def messy_log(messy_raw: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first three days of the messy log: 64 partitions of all its days would take a minute."""
    raw = shutil.copytree(messy_raw, tmp_path_factory.mktemp("messy") / "raw")
    for path in raw.glob("*/2026-*.parquet"):
        if path.name > "2026-03-04":
            path.unlink()
    return raw


@pytest.fixture(scope="module")
def whole(messy_spec: Path, messy_log: Path, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Built in one partition by one process."""
    out = tmp_path_factory.mktemp("whole") / "samples"
    return build(messy_spec, messy_log, out, Options(workers=1, partitions=1))


@pytest.mark.slow
@pytest.mark.parametrize(("partitions", "workers"), [(1, 2), (3, 1), (3, 2), (64, 2)])
def test_partitions_and_processes_change_nothing(
    whole: Store, messy_spec: Path, messy_log: Path, tmp_path: Path, partitions: int, workers: int
) -> None:
    options = Options(workers=workers, partitions=partitions)
    assert_same(build(messy_spec, messy_log, tmp_path / "samples", options), whole)


@pytest.mark.slow
def test_ray_builds_the_same(whole: Store, messy_spec: Path, messy_log: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="needs Ray: pip install '.[ray]'")
    options = Options(engine="ray", workers=2, partitions=3)
    assert_same(build(messy_spec, messy_log, tmp_path / "samples", options), whole)


def test_more_partitions_than_an_earlier_build_had(
    whole: Store, messy_spec: Path, messy_log: Path, tmp_path: Path
) -> None:
    build(messy_spec, messy_log, tmp_path / "samples", Options(workers=1, partitions=2))
    assert_same(build(messy_spec, messy_log, tmp_path / "samples", Options(workers=1, partitions=3)), whole)


# ------------------------------------------------------------------------------- one user with most of the rows


@pytest.fixture(scope="module")
def busy_log(spec_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nearly all rows are of user 1."""
    raw = tmp_path_factory.mktemp("busy") / "raw"
    log = SimulationConfig(users=40, videos=60, new_videos=5, days=3, impressions=1500, malformed_rate=0)
    simulate_logs(log, load_spec(spec_path), raw)
    for path in raw.glob("*/2026-*.parquet"):
        rows = pl.read_parquet(path)
        if "user_id" in rows.columns:
            busy = pl.when(pl.col("user_id") > 5).then(pl.lit(1, pl.Int64))
            rows.with_columns(busy.otherwise("user_id").alias("user_id")).write_parquet(path)
    return raw


def test_a_day_of_one_user_is_worked_on_in_runs(
    busy_log: Path, spec_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Blocks are part of what sums of floats are: they are the same in both builds, small enough to be cut between."""
    monkeypatch.setattr("pipeline.samples.stages.draft.BLOCK_ROWS", 50)
    expected = build(spec_path, busy_log, tmp_path / "whole", Options(workers=1, partitions=2))
    monkeypatch.setattr("pipeline.samples.stages.draft.RUN_ROWS", 120)
    found = build(spec_path, busy_log, tmp_path / "runs", Options(workers=1, partitions=2))
    users = pl.concat(expected[2].values())["user_id"]
    assert (users == 1).sum() > 0.5 * len(users)
    parts = [file.path.split("part-")[1] for file in load_manifest(tmp_path / "runs").files]
    assert max(part.split("-")[2] for part in parts) >= "002"
    assert_same(found, expected)


# ------------------------------------------------------------------------------------ partitions without profiles


def test_a_partition_may_have_no_row_of_several_profiles(spec_path: Path, busy_log: Path, tmp_path: Path) -> None:
    raw = shutil.copytree(busy_log, tmp_path / "raw")
    shutil.rmtree(raw / "user")
    (raw / "user").mkdir()
    (raw / "user" / "one.csv").write_text("user_id,age_group,city,device\n1,a,b,c\n")
    (raw / "tier.csv").write_text("user_id,tier\n1,gold\n")
    tier = "    tier: {files: tier.csv, key: user_id, columns: {user_id: int64, tier: string}}"
    spec = tmp_path / "spec.yaml"
    spec.write_text(spec_path.read_text().replace("    video:\n      files", f"{tier}\n    video:\n      files"))
    one = build(spec, raw, tmp_path / "one", Options(workers=1, partitions=1))
    assert one[0].without_profile["tier"] == one[0].without_profile["user"] > 0
    assert_same(build(spec, raw, tmp_path / "two", Options(workers=1, partitions=2)), one)


# ---------------------------------------------------------------------------------------------------- KuaiRand


@pytest.fixture(scope="module")
def kuairand_log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All users on the last three days of the log: 64 partitions of all twelve would take minutes."""
    if not KUAIRAND.is_dir():
        pytest.skip(f"needs KuaiRand-Pure in {KUAIRAND}")
    raw = tmp_path_factory.mktemp("kuairand") / "raw"
    raw.mkdir()
    for path in KUAIRAND.glob("*.csv"):
        if path.name.startswith("log_"):
            log = pl.read_csv(path, infer_schema=False)
            log.filter(pl.col("date").is_in(["20220504", "20220505", "20220506"])).write_csv(raw / path.name)
        else:
            shutil.copy(path, raw)
    return raw


@pytest.mark.slow
def test_kuairand_gives_the_same_samples_in_1_7_and_64_partitions_and_on_ray(
    kuairand_log: Path, tmp_path: Path
) -> None:
    spec = ROOT / "feature_specs" / "kuairand.yaml"
    one = build(spec, kuairand_log, tmp_path / "1", Options(workers=1, partitions=1))
    assert len(pl.concat(one[2].values())) > 30_000
    for partitions in (7, 64):
        found = build(spec, kuairand_log, tmp_path / str(partitions), Options(workers=2, partitions=partitions))
        assert_same(found, one)
    pytest.importorskip("ray", reason="needs Ray: pip install '.[ray]'")
    assert_same(build(spec, kuairand_log, tmp_path / "ray", Options(engine="ray", workers=2, partitions=3)), one)
