"""After any change of a spec or damage to a store, building again gives the same as a build from scratch."""

import shutil
from pathlib import Path

import pytest

from pipeline.errors import StrataError
from pipeline.manifest import Manifest, load_manifest
from pipeline.samples.build import build_samples

CHANGES = {
    "profiles no longer end": [("      valid_to: until\n", "")],
    "another type of an id": [("slot: int8", "slot: int16")],
    "a shorter window": [("within_s: 86400", "within_s: 7200")],
    "values combined otherwise": [("ms: sum", "ms: max")],
    "another time zone": [("America/New_York", "Europe/Paris")],
    "a stricter check": [('checks: ["slot >= 0"]', 'checks: ["slot >= 1"]')],
    "another measure": [("mean: ms / 1000.0 + length", "mean: ms / 500.0")],
    "other rows": [("price < 300", "price < 10"), ("keep: 0.5", "keep: 0.25"), ("then 1.5", "then 2.5")],
    "other tables": [("min_count: 30", "min_count: 3"), ("[-1, 0.25, 12]", "[0, 5]"), ("buckets: 5", "buckets: 3")],
}


@pytest.fixture
def copy(everything: Path, tmp_path: Path) -> Path:
    """A copy of the log, the spec and the store with its work."""
    return shutil.copytree(everything, tmp_path / "copy")


def content(manifest: Manifest) -> Manifest:
    """With the checksums of all files."""
    return manifest.model_copy(update={"created": ""})


@pytest.mark.parametrize("edits", CHANGES.values(), ids=CHANGES)
def test_a_changed_spec_gives_what_it_gives_from_scratch(edits: list[tuple[str, str]], copy: Path) -> None:
    spec, before = copy / "spec.yaml", load_manifest(copy / "samples")
    for old, new in edits:
        assert old in spec.read_text()
        spec.write_text(spec.read_text().replace(old, new))
    changed = build_samples(spec, copy / "raw", copy / "samples")
    scratch = build_samples(spec, copy / "raw", copy / "scratch")
    assert content(changed) == content(scratch)
    assert changed.files != before.files


def test_a_file_that_was_lost_is_written_again(copy: Path) -> None:
    before = load_manifest(copy / "samples")
    (copy / "samples" / before.files[0].path).unlink()
    with pytest.raises(StrataError, match="build the samples again"):
        load_manifest(copy / "samples")
    build_samples(copy / "spec.yaml", copy / "raw", copy / "samples")
    assert load_manifest(copy / "samples").files == before.files


def test_a_damaged_kept_result_is_named_in_one_line_and_made_again(
    copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(copy / "samples" / ".work" / "encoded")
    drafts = sorted((copy / "samples" / ".work" / "drafts").rglob("run-0.arrow"))
    drafts[0].write_bytes(b"ARROW1 but no more")
    build_samples(copy / "spec.yaml", copy / "raw", copy / "samples")
    said = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("[ ")]
    assert said == [
        f"{drafts[0].parent}: a kept result is damaged (run-0.arrow is not what was written); it is made again"
    ]
    scratch = build_samples(copy / "spec.yaml", copy / "raw", copy / "scratch")
    assert content(load_manifest(copy / "samples")) == content(scratch)
