"""What ends a build, in one line, and leaves a store as it was."""

import shutil
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from pipeline.errors import StrataError
from pipeline.manifest import load_manifest
from pipeline.samples.build import build_samples
from tests.samples.interaction_log import DAY_MS, SMALL, SMALL_LOG, small, stored_rows


def refusal(spec: Path, raw: Path, out: Path) -> str:
    """The error of a build, after which no reader finds a store; only work that the next build can use is left."""
    before = set(out.parent.iterdir())
    with pytest.raises(StrataError) as error:
        build_samples(spec, raw, out)
    assert set(out.parent.iterdir()) - {out} == before
    assert not out.exists() or [path.name for path in out.iterdir()] == [".work"]
    with pytest.raises(StrataError, match="no sample store"):
        load_manifest(out)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_build_that_was_refused_can_be_repeated_in_the_same_place(tmp_path: Path) -> None:
    spec, raw = small(tmp_path, f"{SMALL}sample_weight: seconds - 6\n")
    assert "sample_weight" in refusal(spec, raw, tmp_path / "out")
    spec.write_text(SMALL)
    manifest = build_samples(spec, raw, tmp_path / "out")
    fresh = build_samples(spec, raw, tmp_path / "fresh")
    assert manifest.model_copy(update={"created": fresh.created}) == fresh
    assert_frame_equal(stored_rows(tmp_path / "out", manifest), stored_rows(tmp_path / "fresh", fresh))


def test_a_store_stays_as_it_is_when_a_later_build_is_refused(tmp_path: Path) -> None:
    spec, raw = small(tmp_path)
    manifest = build_samples(spec, raw, tmp_path / "out")
    before = stored_rows(tmp_path / "out", manifest)
    spec.write_text(f"{SMALL}sample_weight: seconds - 6\n")
    with pytest.raises(StrataError, match="sample_weight"):
        build_samples(spec, raw, tmp_path / "out")
    assert load_manifest(tmp_path / "out") == manifest
    assert_frame_equal(stored_rows(tmp_path / "out", manifest), before)


def test_a_label_that_is_always_0_is_refused(messy_spec: Path, messy_raw: Path, tmp_path: Path) -> None:
    spec = tmp_path / "spec.yaml"
    spec.write_text(messy_spec.read_text().replace("label: like}", "label: like and not like}"))
    message = refusal(spec, messy_raw, tmp_path / "out")
    assert message.startswith(f"{spec}: objectives.like.label is always 0 in the training split (")


def test_a_binary_label_of_2_is_refused_in_any_split(tmp_path: Path) -> None:
    spec, raw = small(tmp_path, log=SMALL_LOG | {"late": [(4, "d", 5, 2 * DAY_MS + 5, 2, 1)]})
    expected = f"{spec}: objectives.click.label is binary, but has values from 0 to 2; correct the label, or remove the"
    assert refusal(spec, raw, tmp_path / "out").startswith(expected)


@pytest.mark.parametrize(
    ("weight", "samples"),
    [
        ("seconds - 6", 6),
        ("case when click = 1 then 2 end", 9),
        ("1.0 / seconds", 2),  # infinite
        ("0.0 / seconds", 2),  # no number
    ],
)
def test_a_sample_weight_is_a_finite_number_of_at_least_0(tmp_path: Path, weight: str, samples: int) -> None:
    spec, raw = small(tmp_path, f"{SMALL}sample_weight: {weight}\n")
    expected = f"{spec}: sample_weight: {samples} samples have none, or a negative one; correct the expression"
    assert refusal(spec, raw, tmp_path / "out") == expected


def test_a_sample_weight_may_be_0(tmp_path: Path) -> None:
    build_samples(*small(tmp_path, f"{SMALL}sample_weight: seconds\n"), tmp_path / "out")
    rows = pl.read_parquet(tmp_path / "out" / "split=test" / "*" / "*.parquet").sort("time_ms")
    assert rows["sample_weight"].to_list() == [5, 5, 0]


def test_an_impression_without_a_day_is_refused(tmp_path: Path) -> None:
    day = "  day: case when uid < 3 then local_day end\n"
    spec, raw = small(tmp_path, SMALL.replace("logs:\n", "logs:\n" + day))
    message = refusal(spec, raw, tmp_path / "out")
    assert message.endswith("logs.day is null for 1 impressions of 1970-01-02; correct the expression")


def test_no_impression_in_any_scene_is_refused(messy_spec: Path, messy_raw: Path, tmp_path: Path) -> None:
    spec = tmp_path / "spec.yaml"
    text = messy_spec.read_text().replace("where: page = 'discover'\n", "where: page = 'd'\n")
    spec.write_text(text.replace("where: page = 'player'\n", "where: page = 'p'\n"))
    assert refusal(spec, messy_raw, tmp_path / "out").startswith(f"{spec}: scenes: none of the impressions")


def test_too_few_days_to_split_are_refused(messy_spec: Path, messy_raw: Path, tmp_path: Path) -> None:
    spec = tmp_path / "spec.yaml"
    spec.write_text(messy_spec.read_text().replace("valid_days: 1, test_days: 1", "valid_days: 3, test_days: 2"))
    raw = messy_raw
    expected = f"{raw}: has impressions on 5 days, but validation and test alone take 5; add earlier days, or change"
    assert refusal(spec, raw, tmp_path / "out").startswith(expected)


def test_a_truncated_file_is_refused(messy_spec: Path, messy_raw: Path, tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    shutil.copytree(messy_raw, raw)
    broken = raw / "like" / "2026-03-03-000.parquet"
    broken.write_bytes(broken.read_bytes()[:-100])
    assert refusal(messy_spec, raw, tmp_path / "out").startswith(f"{broken}: cannot be read (")


def test_a_folder_without_the_log_is_refused(messy_spec: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    message = refusal(messy_spec, tmp_path / "empty", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert message.startswith(f"{tmp_path / 'empty' / 'impression'}: no files of the table `impression` (")


def test_what_is_no_store_of_ours_is_never_written_over(messy_spec: Path, messy_raw: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "precious").write_text("kept")
    with pytest.raises(StrataError) as error:
        build_samples(messy_spec, messy_raw, out)
    assert str(error.value) == f"{out}: already exists and is not empty; choose another --out, or delete it"
    assert (out / "precious").read_text() == "kept"
    assert [path.name for path in out.iterdir()] == ["precious"]
