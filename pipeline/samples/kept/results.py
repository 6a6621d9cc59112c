"""What the tasks of a build leave behind, kept from run to run so that nothing is done twice.

A task's results lie in `.work/<stage>/<unit>/<key>/`, the key being a digest of all that they were made from: the rows
that went in, and the part of the spec that matters. The receipt is written last, so a folder that has one is whole,
and a task whose folder has one is done. Resuming after a crash, adding a day, taking in late events and changing the
spec are the same thing: some keys have no receipt yet.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

import polars as pl
import pyarrow as pa
from pydantic import BaseModel, ConfigDict, ValidationError

from pipeline.errors import StrataError
from pipeline.storage import Folder

WORK = ".work"
RECEIPT = "receipt.json"
FORMAT = 5  # raise it when code changes what a task makes: all keys change with it


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


@dataclass(frozen=True)
class Results:
    """The folder of one task's results."""

    folder: Folder

    def get_or_make(
        self,
        task: Task,
        kind: type[AnyReceipt],
        make: Callable[[], AnyReceipt],
        is_complete: Callable[[AnyReceipt], bool] = lambda _: True,
    ) -> Done[Task, AnyReceipt]:
        """What an earlier run left, if it is `whole`; or else `make` fills the folder, and the receipt is written last.

        Raises StrataError if the receipt is damaged.
        """
        if self.folder.exists(RECEIPT):
            try:
                receipt = kind.model_validate_json(self.folder.read(RECEIPT))
            except ValidationError:
                raise self._damaged("its receipt is not of this version") from None
            if is_complete(receipt):
                return Done(task, receipt, made=False)
        receipt = make()
        self.folder.write(RECEIPT, receipt.model_dump_json().encode(), flush=False)
        return Done(task, receipt, made=True)

    @property
    def key(self) -> str:
        return self.folder.path.rsplit("/", 1)[-1]

    def write(self, name: str, frame: pl.DataFrame, compress: bool = True) -> None:
        compression: Literal["lz4", "uncompressed"] = "lz4" if compress or not self.folder.is_local else "uncompressed"
        self.folder.write(f"{name}.arrow", lambda file: frame.write_ipc(file, compression=compression), flush=False)

    def read(self, name: str, columns: list[str] | None = None) -> pl.DataFrame:
        try:
            with self.folder.on_this_machine(f"{name}.arrow") as path:
                return pl.read_ipc(path, columns=columns)
        except (OSError, pl.exceptions.PolarsError) as error:
            raise self._damaged(str(error).splitlines()[0]) from None

    def write_batches(self, name: str, schema: pa.Schema, batches: Any) -> None:
        """One record batch after the other, each readable without those before it.

        They are raw rows, which take little space: on this machine, compressing them would cost more than it saves.
        """

        def put(file: Any) -> None:
            options = pa.ipc.IpcWriteOptions(compression=None if self.folder.is_local else "lz4")
            with pa.ipc.new_file(file, schema, options=options) as writer:
                for batch in batches:
                    writer.write_batch(batch)

        self.folder.write(f"{name}.arrow", put, flush=False)

    def read_batches(self, name: str, numbers: list[int]) -> list[pa.RecordBatch]:
        try:
            with self.folder.open(f"{name}.arrow") as file:
                reader = pa.ipc.open_file(file)
                return [reader.get_batch(number) for number in numbers]
        except (OSError, pa.ArrowInvalid) as error:
            raise self._damaged(str(error).splitlines()[0]) from None

    def _damaged(self, reason: str) -> StrataError:
        return StrataError(
            f"a kept result is damaged ({reason})",
            where=self.folder,
            fix="delete this folder and run the same command again",
        )


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
