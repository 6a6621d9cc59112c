"""A manifest names files of its store and nothing else; what was written is what is read."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.batches.mapping import Encoding
from pipeline.errors import LocalError, StrataError
from pipeline.manifest import MANIFEST, Manifest, check_file, load_manifest

OUTSIDE = [
    "/etc/passwd",
    "../x.parquet",
    "split=train/../../x",
    "a//b",
    "./a",
    "a/.",
    "..",
    "",
    "a\\..\\b",
    "a\nb",
    "a/",
]
Change = Callable[[dict[str, Any]], object]


def first_file(content: dict[str, Any], path: str) -> None:
    content["files"][0]["path"] = path


def first_vocabulary(content: dict[str, Any], path: str) -> None:
    next(iter(content["learned"]["vocabularies"].values()))["path"] = path


def table_name(content: dict[str, Any], name: str) -> None:
    vocabularies = content["learned"]["vocabularies"]
    vocabularies[name] = next(iter(vocabularies.values()))


@pytest.fixture
def store(samples: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return shutil.copytree(samples, tmp_path / "samples", ignore=shutil.ignore_patterns(".*"))


@pytest.mark.parametrize("path", OUTSIDE)
@pytest.mark.parametrize("change", [first_file, first_vocabulary])
def test_a_path_that_may_leave_the_store_is_refused(
    change: Callable[[dict[str, Any], str], None], path: str, manifest: Manifest, tmp_path: Path
) -> None:
    content = json.loads(manifest.model_dump_json())
    change(content, path)
    (tmp_path / MANIFEST).write_text(json.dumps(content))
    with pytest.raises(StrataError, match=r"should be the path of a file below the store at `.*path`") as error:
        load_manifest(tmp_path)
    assert str(error.value).startswith(f"{tmp_path}/{MANIFEST}: ")
    assert "passwd" not in str(error.value)


@pytest.mark.parametrize("name", ["../../x", "/tmp/x", "A", "a.b", "a\n", ""])
def test_a_vocabulary_whose_name_could_be_a_path_is_refused(name: str, manifest: Manifest, tmp_path: Path) -> None:
    content = json.loads(manifest.model_dump_json())
    table_name(content, name)
    (tmp_path / MANIFEST).write_text(json.dumps(content))
    with pytest.raises(StrataError, match=r"manifest.json: not a manifest of this version .* at `learned.vocabularies"):
        load_manifest(tmp_path)


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_a_file_behind_a_symbolic_link_is_refused(store: Path, manifest: Manifest, tmp_path: Path, depth: int) -> None:
    path = manifest.files[0].path
    inside = Path(*Path(path).parts[:depth])
    (store / inside).rename(tmp_path / "elsewhere")
    (store / inside).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StrataError, match="is reached through a symbolic link") as error:
        load_manifest(store)
    assert str(store / Path(*Path(path).parts[:1])) in str(error.value)


def test_a_store_that_is_itself_behind_a_link_is_read(store: Path, manifest: Manifest, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(store)
    assert load_manifest(tmp_path / "link") == manifest


def test_a_flipped_byte_in_a_manifest_is_seen(store: Path) -> None:
    content = (store / MANIFEST).read_bytes()
    for at in range(0, len(content), len(content) // 50):
        (store / MANIFEST).write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        with pytest.raises(StrataError, match=rf"^{store}/{MANIFEST}: "):
            load_manifest(store)


def test_a_missing_vocabulary_is_named(store: Path, manifest: Manifest) -> None:
    path = store / next(iter(manifest.learned.vocabularies.values())).path
    path.unlink()
    with pytest.raises(StrataError, match=f"^{path}: missing"):
        load_manifest(store)


def test_a_damaged_vocabulary_is_named(store: Path, manifest: Manifest) -> None:
    table, vocabulary = next(iter(manifest.learned.vocabularies.items()))
    path, encoding = store / vocabulary.path, Encoding(store, manifest)
    content = path.read_bytes()
    assert encoding.vocabulary_path(table) == path
    path.write_bytes(content[:-20] + bytes([content[-20] ^ 1]) + content[-19:])
    with pytest.raises(LocalError, match=f"^{path}: is not what was written"):
        encoding.vocabulary_path(table)
    path.write_bytes(content)
    check_file(path, vocabulary.sha256)


def test_a_run_is_no_store_though_it_keeps_a_manifest(manifest: Manifest, tmp_path: Path) -> None:
    (tmp_path / MANIFEST).write_bytes(manifest.as_file())
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(StrataError, match="is a run and no sample store"):
        load_manifest(tmp_path)


def test_days_of_training_may_be_left_out_and_other_splits_stay(manifest: Manifest):
    first, second, third = manifest.days("train")
    for since, left in (
        ("", [first, second, third]),
        (second, [second, third]),
        (third, [third]),
        ("9999-12-31", []),
    ):
        narrowed = manifest.trained_since(since)
        assert narrowed.days("train") == left
        assert narrowed.rows("train") == sum(f.rows for f in manifest.files if f.split == "train" and f.date in left)
        for split in ("valid", "test"):
            files = [[file for file in of.files if file.split == split] for of in (narrowed, manifest)]
            assert files[0] == files[1] != []


def test_a_digest_tells_manifests_apart_and_survives_a_file(manifest: Manifest):
    assert Manifest.model_validate_json(manifest.model_dump_json(indent=1)).digest() == manifest.digest()
    assert manifest.trained_since(manifest.days("train")[1]).digest() != manifest.digest()
    assert manifest.model_copy(update={"filtered": manifest.filtered + 1}).digest() != manifest.digest()
