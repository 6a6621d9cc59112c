"""What the tasks of a build leave behind, kept from run to run so that nothing is done twice.

A task's results lie in `.work/<stage>/<unit>/<key>/`, the key being a digest of all that they were made from: the rows
that went in, and the part of the spec that matters. The receipt is written last, so a folder that has one is whole,
and a task whose folder has one is done. Resuming after a crash, adding a day, taking in late events and changing the
spec are the same thing: some keys have no receipt yet.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate
from typing import IO, Any, Generic, Literal, Self, TypeVar
from zlib import crc32

import polars as pl
import pyarrow as pa
from pydantic import BaseModel, ConfigDict

from pipeline.errors import StrataError
from pipeline.json_files import load_json, sealed
from pipeline.storage import Folder

REPAIR = "delete this folder and run the same command again"
WORK = ".work"
RECEIPT = "receipt.json"
FORMAT = 6  # raise it when code changes what a task makes: all keys change with it


class Receipt(BaseModel):
    """What a finished task says of its results."""

    model_config = ConfigDict(extra="forbid", frozen=True)


AnyReceipt = TypeVar("AnyReceipt", bound=Receipt)
Task = TypeVar("Task")


def key_of(*made_from: object) -> str:
    """A digest of everything that a task's results depend on; it must be JSON, or print what tells it apart."""
    text = json.dumps([FORMAT, *made_from], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:24]


@dataclass(frozen=True)
class Done(Generic[Task, AnyReceipt]):
    """A finished task with its receipt; `made` says that this run did it, and not an earlier one."""

    task: Task
    receipt: AnyReceipt
    made: bool


class DamagedResult(StrataError):
    """A kept result is not what was written; `where` is its folder."""


class Stored(BaseModel, Generic[AnyReceipt]):
    """The content of receipt.json. A file is one part, or a part for every record batch, each with bytes and CRC-32.

    CRC-32 because it is for damage, not for forgery, and takes less than half the time of SHA-256.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    receipt: AnyReceipt
    files: dict[str, list[tuple[int, int]]]


@dataclass(frozen=True)
class Results:
    """The folder of one task's results. `make` must write with the object whose `get_or_make` called it."""

    folder: Folder
    _written: dict[str, list[tuple[int, int]]] = field(default_factory=dict, compare=False, repr=False)

    def __reduce__(self) -> tuple[type[Self], tuple[Folder]]:
        """What was written stays with the process that wrote it: others find it in the receipt."""
        return type(self), (self.folder,)

    def get_or_make(
        self,
        task: Task,
        kind: type[AnyReceipt],
        make: Callable[[], AnyReceipt],
        is_complete: Callable[[AnyReceipt], bool] = lambda _: True,
    ) -> Done[Task, AnyReceipt]:
        """What an earlier build left, if it is complete. Else `make` fills the folder; the receipt is written last.

        Raises DamagedResult if the receipt is damaged.
        """
        if self.folder.exists(RECEIPT):
            receipt = self._stored(kind).receipt
            if is_complete(receipt):
                return Done(task, receipt, made=False)
        receipt = make()
        stored = Stored(receipt=receipt, files=self._written)
        self.folder.write(RECEIPT, sealed(stored.model_dump_json().encode()), flush=False)
        return Done(task, receipt, made=True)

    @property
    def key(self) -> str:
        return self.folder.path.rsplit("/", 1)[-1]

    def write(self, name: str, frame: pl.DataFrame, compress: bool = True) -> None:
        compression: Literal["lz4", "uncompressed"] = "lz4" if compress or not self.folder.is_local else "uncompressed"

        def put(file: IO[bytes]) -> None:
            frame.write_ipc(file, compression=compression)
            file.flush()
            with pa.memory_map(file.name) as written:
                self._written[f"{name}.arrow"] = [_part(written.read_buffer())]

        self.folder.write(f"{name}.arrow", put, flush=False)

    def read(self, name: str, columns: list[str] | None = None) -> pl.DataFrame:
        """Raises DamagedResult if the file is not what was written."""
        with self._damage(), self.folder.on_this_machine(f"{name}.arrow") as path:
            with pa.memory_map(str(path)) as file:
                self._check(f"{name}.arrow", 0, file.read_buffer())
            return pl.read_ipc(path, columns=columns)

    def write_batches(self, name: str, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> None:
        """One record batch after the other, each a stream of its own, so that it is read and checked alone.

        They are raw rows, which take little space: on this machine, compressing them would cost more than it saves.
        """
        parts = self._written[f"{name}.arrow"] = []
        options = pa.ipc.IpcWriteOptions(compression=None if self.folder.is_local else "lz4")

        def put(file: IO[bytes]) -> None:
            for batch in batches:
                sink = pa.BufferOutputStream()
                with pa.ipc.new_stream(sink, schema, options=options) as writer:
                    writer.write_batch(batch)
                content = sink.getvalue()
                parts.append(_part(content))
                file.write(content)

        self.folder.write(f"{name}.arrow", put, flush=False)

    def read_batches(self, name: str, numbers: list[int]) -> list[pa.RecordBatch]:
        """Raises DamagedResult if one of the batches is not what was written."""
        with self._damage():
            return [pa.ipc.open_stream(part).read_next_batch() for part in self._parts(f"{name}.arrow", numbers)]

    def check(self) -> None:
        """Reads all of it. Raises DamagedResult if anything is not what was written."""
        with self._damage():
            for file, parts in self._files.items():
                for _ in self._parts(file, range(len(parts))):
                    pass

    @cached_property
    def _files(self) -> dict[str, list[tuple[int, int]]]:
        return self._stored(Any).files

    def _stored(self, kind: Any) -> Stored[Any]:
        try:
            return load_json(Stored[kind], self.folder, RECEIPT, what="a receipt", fix=REPAIR)
        except StrataError as error:
            raise self._damaged(f"{RECEIPT}: {error.what}") from None

    def _parts(self, file: str, numbers: Iterable[int]) -> Iterator[pa.Buffer]:
        """Parts of a file, checked."""
        starts = [0, *accumulate(size for size, _ in self._files.get(file, []))]
        with self.folder.open(file) as opened:
            for number in numbers:
                opened.seek(starts[number])
                content = opened.read_buffer(starts[number + 1] - starts[number])
                self._check(file, number, content)
                yield content

    def _check(self, file: str, number: int, content: pa.Buffer) -> None:
        parts = self._files.get(file, [])
        if number >= len(parts) or _part(content) != parts[number]:
            raise self._damaged(f"{file} is not what was written")

    @contextmanager
    def _damage(self) -> Iterator[None]:
        """Turns what goes wrong with a file into a DamagedResult."""
        try:
            yield
        except (OSError, pa.ArrowException, pl.exceptions.PolarsError) as error:
            raise self._damaged(str(error).splitlines()[0]) from None

    def _damaged(self, reason: str) -> DamagedResult:
        return DamagedResult(f"a kept result is damaged ({reason})", where=self.folder, fix=REPAIR)


def _part(content: pa.Buffer) -> tuple[int, int]:
    return len(content), crc32(content)


def results(store: Folder, stage: str, unit: str, key: str) -> Results:
    return Results(store / f"{WORK}/{stage}/{unit}/{key}")


def content_digest(frame: pl.DataFrame) -> str:
    """Tells apart frames by what they hold."""
    hashed = hashlib.blake2b(digest_size=12)
    for column in frame.iter_columns():
        hashed.update(f"{column.name} {column.dtype} {len(column)}".encode())
        for batch in column.to_frame().to_arrow().combine_chunks().to_batches():
            hashed.update(batch.serialize())
    return hashed.hexdigest()
