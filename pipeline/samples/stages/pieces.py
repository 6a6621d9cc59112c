"""Where the dealt rows of a partition and a day lie."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date

import polars as pl
import pyarrow as pa

from pipeline.samples.kept.results import Done, Results
from pipeline.samples.stages.deal import Dealt, DealTask
from pipeline.spec.logs import RawTable
from pipeline.sql.types import schema


@dataclass(frozen=True)
class Piece:
    """Record batches of one dealt file."""

    results: Results
    batches: tuple[int, ...]

    @property
    def key(self) -> tuple[str, tuple[int, ...]]:
        return self.results.key, self.batches


Pieces = tuple[Piece, ...]
Cell = tuple[int, date | None]  # a partition and a day


def pieces_by_cell(dealt: Iterable[Done[DealTask, Dealt]]) -> dict[str, dict[Cell, Pieces]]:
    """By table and cell its pieces, in the order of the files' names."""
    found: dict[str, dict[Cell, list[Piece]]] = defaultdict(lambda: defaultdict(list))
    for done in sorted(dealt, key=lambda done: done.task.file.info.name):
        batches: dict[Cell, list[int]] = defaultdict(list)
        for group in done.receipt.groups:
            batches[group.partition, group.day].append(group.batch)
        for cell, numbers in batches.items():
            found[done.task.name][cell].append(Piece(done.task.results, tuple(numbers)))
    return {table: {cell: tuple(p) for cell, p in cells.items()} for table, cells in found.items()}


def read_pieces(pieces: Pieces, table: RawTable) -> pl.DataFrame:
    """The rows, in the order of the files' names and of the rows in them."""
    empty = pl.DataFrame(schema=schema(table))
    batches = [batch for piece in pieces for batch in piece.results.read_batches("rows", list(piece.batches))]
    if not batches:
        return empty
    # A file that was dealt before the columns were declared in another order has them in the earlier one.
    ordered = [batch.select(list(table.columns)) for batch in batches]
    rows = pl.from_arrow(pa.Table.from_batches(ordered), rechunk=True)
    assert isinstance(rows, pl.DataFrame)
    return rows
