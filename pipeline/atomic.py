"""Files and folders that a reader finds complete or not at all, even if their writer is killed."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.errors import StrataError
from pipeline.storage import Folder


def replace_file(path: Path, content: bytes) -> None:
    """Writes `content` to a temporary file, flushes it to the disk, and renames it to `path`. It may replace a file.

    Raises StrataError if the disk is full or the folder cannot be written.
    """
    Folder.at(path.parent).write(path.name, content)


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A temporary folder for the block to fill. It becomes `path` when the block ends; if that fails, it is deleted.

    A killed process leaves `.<name>.partial` behind. No command reads it, and the next run replaces it.
    Raises StrataError if `path` already holds something, is a symbolic link, or cannot be written.
    """
    if path.is_symlink():
        raise StrataError("is a symbolic link", where=path, fix="choose another --out")
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise StrataError("already exists and is not empty", where=path, fix="choose another --out, or delete it")
    aside = path.absolute().parent / f".{path.absolute().name}.partial"
    try:
        if aside.is_symlink():
            aside.unlink()
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
    except OSError as error:
        raise StrataError(f"cannot be created ({error.strerror})", where=path, fix="choose another --out") from None
    try:
        yield aside
        if path.exists():
            path.rmdir()
        aside.rename(path)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
