"""A file of JSON is what was written, or one line that names the file and the key and shows none of its content."""

import json
from collections.abc import Callable
from itertools import product
from pathlib import Path

import pytest
from pydantic import BaseModel, ConfigDict

from pipeline.errors import StrataError
from pipeline.json_files import load_json, sealed
from pipeline.manifest import MANIFEST, load_manifest
from pipeline.samples.division import KeptDivision
from pipeline.samples.kept.results import Receipt, results
from pipeline.statistics import STATISTICS, load_statistics
from pipeline.storage import Folder
from pipeline.training.config import CONFIG, load_config

SECRET = "root:x:0:0"


class Numbers(BaseModel):
    """What the files of these tests hold."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    first: int
    more: dict[str, float] = {}


def load(folder: Path) -> Numbers:
    return load_json(Numbers, Folder.at(folder), "file.json", what="a file of numbers", fix="write it again")


def test_a_sealed_file_is_read_and_so_is_one_without_a_digest(tmp_path: Path) -> None:
    numbers = Numbers(first=7, more={"a": 0.1})
    for content in (numbers.model_dump_json(), numbers.model_dump_json(indent=1)):
        for written in (content.encode(), sealed(content.encode())):
            (tmp_path / "file.json").write_bytes(written)
            assert load(tmp_path) == numbers


def test_a_file_that_a_program_wrote_again_is_as_good_as_one_without_a_digest(tmp_path: Path) -> None:
    content = json.loads(sealed(Numbers(first=7).model_dump_json().encode()))
    for layout in ({}, {"indent": 1}, {"indent": 4}, {"separators": (",", ":")}):
        (tmp_path / "file.json").write_text(json.dumps(content | {"first": 8}, **layout))
        assert load(tmp_path) == Numbers(first=8)


def test_no_bit_of_a_sealed_file_flips_unseen(tmp_path: Path) -> None:
    written = sealed(Numbers(first=7, more={"a": 0.1}).model_dump_json().encode())
    assert json.loads(written)["sha256"]
    for at, bit in product(range(len(written)), range(8)):
        flipped = written[:at] + bytes([written[at] ^ 1 << bit]) + written[at + 1 :]
        (tmp_path / "file.json").write_bytes(flipped)
        with pytest.raises(StrataError, match=rf"^{tmp_path}/file.json: "):
            load(tmp_path)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "Invalid JSON: EOF while parsing a value"),
        (b"\xff\xfe{\x00}\x00", "Invalid JSON"),
        (b'{"first": "\xe4"}', "Invalid JSON: invalid unicode code point"),
        (b'{"first": "\\ud800"}', "Invalid JSON"),
        (b"[" * 100_000, "Invalid JSON: recursion limit exceeded"),
        (b'{"first": {' * 3, "Invalid JSON"),
        (b"[1, 2]", "Input should be an object"),
        (b'{"first": "root:x:0:0"}', "unable to parse string as an integer at `first`"),
        (
            b'{"first": 1, "root:x:0:0 and\\n\\u001b[31m more": 2}',
            "Extra inputs are not permitted at `root:x:0:0 and??",
        ),
        (b'{"first": 1, "more": {"%s": "x"}}' % (b"k" * 1000), "at `more.kkkkk"),
        (b'{"first": 1' + b"0" * 5000 + b"}", "Invalid JSON: number out of range"),
    ],
)
def test_what_is_wrong_is_one_line(tmp_path: Path, content: bytes, says: str) -> None:
    (tmp_path / "file.json").write_bytes(content)
    with pytest.raises(StrataError) as error:
        load(tmp_path)
    assert str(error.value).startswith(f"{tmp_path}/file.json: not a file of numbers of this version (")
    assert says in str(error.value)
    assert str(error.value).isprintable()
    assert len(str(error.value)) < len(str(tmp_path)) + 300


def place(folder: Path, damage: str) -> Path:
    """A file or a folder in place of a file."""
    if damage == "a folder":
        folder.mkdir(parents=True)
    else:
        folder.parent.mkdir(parents=True, exist_ok=True)
        content = json.dumps({"format": SECRET, "\x1b[2J": 1})
        folder.write_text(content if damage == "other content" else content[:-1])
    return folder


READERS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "the manifest": (MANIFEST, load_manifest),
    "the statistics": (STATISTICS, load_statistics),
    "a run's configuration": (CONFIG, load_config),
    "the plan": (
        "plan.json",
        lambda place: load_json(KeptDivision, Folder.at(place), "plan.json", what="a division", fix="x"),
    ),
    "a receipt": (
        ".work/stage/unit/key/receipt.json",
        lambda place: results(Folder.at(place), "stage", "unit", "key").get_or_make(None, Receipt, Receipt),
    ),
}


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("damage", ["cut short", "other content", "a folder"])
def test_every_reader_fails_in_one_line_that_shows_no_content(name: str, damage: str, tmp_path: Path) -> None:
    path, read = READERS[name]
    place(tmp_path / path, damage)
    with pytest.raises(StrataError) as error:
        read(tmp_path)
    assert str(tmp_path) in str(error.value)
    assert str(error.value).isprintable()
    assert SECRET not in str(error.value)
