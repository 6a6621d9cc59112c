"""Folders of files, on this machine or in an object store: listed, read, and written whole or not at all.

A place is a path, or an address such as `s3://bucket/logs` that Arrow opens itself; others (`memory://`, `abfs://`)
go through fsspec, if that is installed.
"""

import errno
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.fs as pafs

from pipeline.errors import StrataError

ASIDE = ".aside-"  # begins the name of a file that is being written; a killed process leaves some behind
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True)
class FileInfo:
    """A file below a folder: its name relative to it, bytes, and what changes when it is written again.

    That is the time (ns since the epoch), or what fsspec tells versions apart by: Arrow drops the times of its files.
    """

    name: str
    size: int
    version: int | str


@dataclass(frozen=True)
class Folder:
    """A folder, which need not exist yet. Names of files are relative to it, with slashes."""

    filesystem: pafs.FileSystem
    path: str

    @classmethod
    def at(cls, place: str | Path) -> "Folder":
        """Raises StrataError if nothing installed can open the address."""
        if "://" not in str(place):
            return cls(pafs.LocalFileSystem(), str(Path(place).absolute()))
        try:
            return cls(*pafs.FileSystem.from_uri(str(place)))
        except (pa.ArrowInvalid, OSError, ValueError) as error:
            return cls(*_by_fsspec(str(place), error))

    def __truediv__(self, name: str) -> "Folder":
        return Folder(self.filesystem, f"{self.path}/{name}")

    def __str__(self) -> str:
        return self.path if self.is_local else f"{self.filesystem.type_name}://{self.path}"

    @property
    def is_local(self) -> bool:
        return isinstance(self.filesystem, pafs.LocalFileSystem)

    def exists(self, name: str = "") -> bool:
        """Raises StrataError if an object store does not answer."""
        return bool(self._info(self._path(name)).type != pafs.FileType.NotFound)

    def files(self, through_links: bool = True) -> list[FileInfo]:
        """All files below the folder, in the order of their names; none if it does not exist.

        Without `through_links`, folders that are symbolic links are left out, and files that are stand for themselves:
        what is to be deleted is listed so. Raises StrataError if it cannot be listed.
        """
        if self.is_local and not through_links:
            listed = list(self._own_files())
        else:
            found = self._info(pafs.FileSelector(self.path, recursive=True, allow_not_found=True))
            listed = [self._listed(os.path.relpath(info.path, self.path), info) for info in found if info.is_file]
        return sorted((file for file in listed if ASIDE not in file.name), key=lambda file: file.name)

    def _own_files(self) -> Iterator[FileInfo]:
        """On this machine: follows no symbolic link."""
        for folder, _, names in os.walk(self.path):
            for path in (f"{folder}/{name}" for name in names):
                info = os.lstat(path)
                yield FileInfo(os.path.relpath(path, self.path), info.st_size, info.st_mtime_ns)

    def stat(self, name: str) -> FileInfo | None:
        """The file as it is now, or None if there is none."""
        info = self._info(self._path(name))
        return self._listed(name, info) if info.is_file else None

    def _info(self, of: Any) -> Any:
        try:
            return self.filesystem.get_file_info(of)
        except OSError as error:
            raise StrataError(
                f"cannot be listed ({error})", where=self, fix="correct the address or the access"
            ) from None

    def _listed(self, name: str, info: pafs.FileInfo) -> FileInfo:
        if isinstance(self.filesystem, pafs.PyFileSystem):
            return FileInfo(name, info.size, self.filesystem.handler.fs.ukey(info.path))
        return FileInfo(name, info.size, info.mtime_ns or 0)

    def read(self, name: str) -> bytes:
        with self.filesystem.open_input_file(self._path(name)) as file:
            content: bytes = file.read()
        return content

    @contextmanager
    def open(self, name: str) -> Iterator[Any]:
        """The file for random access; on this machine it is mapped into memory."""
        path = self._path(name)
        with pa.memory_map(path) if self.is_local else self.filesystem.open_input_file(path) as file:
            yield file

    @contextmanager
    def on_this_machine(self, name: str) -> Iterator[Path]:
        """A path of the file for a reader that needs one: the file itself, or a copy for the time of the block."""
        if self.is_local:
            yield Path(self._path(name))
            return
        with tempfile.TemporaryDirectory(prefix="strata-") as folder:
            copy = Path(folder) / os.path.basename(name)
            pafs.copy_files(
                self._path(name),
                str(copy),
                source_filesystem=self.filesystem,
                destination_filesystem=pafs.LocalFileSystem(),
            )
            yield copy

    def write(self, name: str, put: Callable[[IO[bytes]], object] | bytes, flush: bool = True) -> int:
        """Writes a file so that a reader finds the whole of it or nothing, and returns its size in bytes.

        `put` fills an open file. On this machine the file is written aside, flushed to the disk, and renamed over one
        already there; an object store shows an object only once it is whole. Without `flush` it survives the death of
        this process, but perhaps not that of the machine.
        Raises StrataError if the disk is full or the folder cannot be written.
        """
        fill = put if callable(put) else lambda file: file.write(put)
        path = self._path(name)
        try:
            if not self.is_local:
                return self._send(path, fill)
            folder = os.path.dirname(path)
            os.makedirs(folder, exist_ok=True)
            aside = f"{folder}/{ASIDE}{os.getpid()}-{os.path.basename(path)}"
            try:
                with open(aside, "wb") as file:
                    fill(file)
                    file.flush()
                    if flush:
                        os.fsync(file.fileno())
                    size = file.tell()
                os.replace(aside, path)
            except BaseException:
                Path(aside).unlink(missing_ok=True)
                raise
            if flush:
                flush_folder(folder)  # the rename itself must survive a power cut
            return size
        except OSError as error:
            reason = "the disk is full" if _is_full(error) else f"cannot be written ({error.strerror or error})"
            fix = "free some space and run the same command again"
            raise StrataError(reason, where=path, fix=fix) from error

    def _send(self, path: str, fill: Callable[[IO[bytes]], object]) -> int:
        """Sends a file once it is whole: a stream to an object store stores what it was given even when that fails."""
        with tempfile.TemporaryDirectory(prefix="strata-") as folder:
            whole = Path(folder) / "whole"
            with whole.open("wb") as file:
                fill(file)
            pafs.copy_files(
                str(whole), path, source_filesystem=pafs.LocalFileSystem(), destination_filesystem=self.filesystem
            )
            return whole.stat().st_size

    def delete(self, names: list[str]) -> None:
        """Deletes files, and on this machine the folders that this leaves empty.

        A symbolic link is deleted itself; what lies behind a folder that is one stays.
        """
        if self.is_local:
            root, folders = os.path.realpath(self.path), {os.path.dirname(name) for name in names}
            linked = {f for f in folders if f and os.path.realpath(self._path(f)) != os.path.join(root, f)}
            names = [name for name in names if os.path.dirname(name) not in linked]
        for name in names:
            self.filesystem.delete_file(self._path(name))
        if self.is_local:
            for folder in sorted({os.path.dirname(self._path(name)) for name in names}, key=len, reverse=True):
                while folder != self.path and os.path.isdir(folder) and not os.listdir(folder):
                    os.rmdir(folder)
                    folder = os.path.dirname(folder)

    def sweep(self) -> None:
        """Deletes what killed processes were writing; nobody else may be writing there. Follows no symbolic link."""
        for file in self._own_files() if self.is_local else ():
            if os.path.basename(file.name).startswith(ASIDE):
                Path(self._path(file.name)).unlink(missing_ok=True)

    def _path(self, name: str) -> str:
        return f"{self.path}/{name}" if name else self.path


def _is_full(error: OSError) -> bool:
    """Polars names the number of an error in the text alone."""
    return error.errno in FULL or any(f"(os error {number})" in str(error) for number in FULL)


def _by_fsspec(place: str, error: Exception) -> tuple[pafs.FileSystem, str]:
    try:
        import fsspec
    except ImportError:
        raise StrataError(
            f"cannot be opened ({error})", where=place, fix="correct the address, or install fsspec"
        ) from None
    try:
        filesystem, path = fsspec.core.url_to_fs(place)
    except (ImportError, ValueError) as problem:
        raise StrataError(
            f"cannot be opened ({problem})", where=place, fix="correct the address, or install what it names"
        ) from None
    return pafs.PyFileSystem(pafs.FSSpecHandler(filesystem)), path


def flush_folder(folder: str) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
