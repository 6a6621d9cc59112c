from pathlib import Path

import pytest

from pipeline.atomic import new_folder, replace_file
from pipeline.errors import StrataError


def test_a_file_is_replaced_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    file = tmp_path / "metrics.json"
    for content in (b"old", b"new"):
        replace_file(file, content)
        assert file.read_bytes() == content
    assert list(tmp_path.iterdir()) == [file]
    assert file.stat().st_mode & 0o777 == 0o644


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    file = tmp_path / "metrics.json"
    file.write_bytes(b"old")
    with pytest.raises(TypeError):
        replace_file(file, "not bytes")  # type: ignore[arg-type]
    assert file.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [file]


def test_a_rename_that_fails_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "report.html").mkdir()
    with pytest.raises(StrataError, match="cannot be written"):
        replace_file(tmp_path / "report.html", b"page")
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_a_new_folder_empties_none_behind_a_symbolic_link(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("of someone else")
    (tmp_path / ".report.partial").symlink_to(outside)
    with new_folder(tmp_path / "report") as folder:
        (folder / "page").touch()
    assert not (tmp_path / ".report.partial").is_symlink()
    assert [path.name for path in (tmp_path / "report").iterdir()] == ["page"]
    (tmp_path / "link").symlink_to(outside)
    with pytest.raises(StrataError, match="link: is a symbolic link"), new_folder(tmp_path / "link"):
        pass
    assert (outside / "file").read_text() == "of someone else"
