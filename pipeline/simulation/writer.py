"""Writes rows as Parquet, CSV or JSON lines, and spoils the malformed rows in the ways of the format."""

import gzip
from collections import Counter
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from pipeline.simulation.config import SimulationConfig
from pipeline.simulation.declared import TRUTH, columns_of
from pipeline.simulation.mess import Delivery
from pipeline.spec.spec import Spec

# Each defect replaces a pattern once in the text of a row, whose first field is its id. The defects are text where a
# number belongs, a line cut off, and a missing field.
CSV_DEFECTS = ((r"^[^,]+", "unknown"), (r",.*$", ""), (r"^[^,]+", ""))
JSON_DEFECTS = ((r":[^,]+", ':"unknown"'), (r",.*$", ""), (r'"[^,]+,', ""))
# Parquet has types: there a defect is a missing id, or a negative one of these numbers.
NEVER_NEGATIVE = ("position", "dwell_ms", "play_ms")


class LogWriter:
    """Writes `<table>/<date>-<number>.<format>` below a folder, for the tables and columns that a spec declares.

    Files have the date on which their rows arrive, and are numbered from 000. `counts` counts the rows of each table.
    """

    def __init__(self, folder: Path, spec: Spec, config: SimulationConfig) -> None:
        self.folder, self.config = folder, config
        self.folder_of = {table: declared.files for table, declared in spec.logs.tables().items()}
        self.columns = {table: columns_of(spec, table) for table in self.folder_of}
        self.counts: dict[str, Counter[str]] = {table: Counter() for table in self.folder_of}
        self.files: Counter[tuple[str, str]] = Counter()

    def write_events(self, table: str, date: str, next_date: str, delivery: Delivery) -> None:
        """Writes the rows of one day; late rows go to the files of the next day.

        A day without rows gets an empty file: a reader takes a missing file for a mistake.
        """
        if table not in self.counts:
            return
        self.counts[table].update(delivery.counts())
        rows, late = delivery.rows.select(self.columns[table]), delivery.late
        self._write(table, date, rows.filter(~late), delivery.defect[~late])
        if late.any():
            self._write(table, next_date, rows.filter(late), delivery.defect[late])

    def write_profiles(self, table: str, date: str, rows: pl.DataFrame) -> None:
        """Writes the profiles that become known on a day."""
        if table in self.counts and len(rows):
            self.counts[table].update({"rows": len(rows), "duplicated": 0, "malformed": 0, "late": 0})
            self._write(table, date, rows.select(self.columns[table]), np.full(len(rows), -1))

    def write_truth(self, date: str, truth: pl.DataFrame) -> None:
        truth.write_parquet(self._next_file(TRUTH, date, ".parquet"))

    def _write(self, table: str, date: str, rows: pl.DataFrame, defect: NDArray[np.int64]) -> None:
        suffix = f".{self.config.format}"
        if self.config.format == "parquet":
            path = self._next_file(self.folder_of[table], date, suffix)
            _spoil_values(rows, defect).write_parquet(path, compression="gzip" if self.config.gzip else "zstd")
            return
        if self.config.format == "csv":
            header = ",".join(rows.columns) + "\n"
            text = header + _spoil_lines(rows.write_csv(include_header=False), defect, CSV_DEFECTS)
        else:
            text = _spoil_lines(rows.write_ndjson(), defect, JSON_DEFECTS)
        content = text.encode()
        if self.config.gzip:
            suffix, content = (
                suffix + ".gz",
                gzip.compress(content, compresslevel=1, mtime=0),
            )  # a time would change the bytes
        self._next_file(self.folder_of[table], date, suffix).write_bytes(content)

    def _next_file(self, folder: str, date: str, suffix: str) -> Path:
        number = self.files[folder, date]
        self.files[folder, date] += 1
        (self.folder / folder).mkdir(exist_ok=True)
        return self.folder / folder / f"{date}-{number:03d}{suffix}"


def _spoil_values(rows: pl.DataFrame, defect: NDArray[np.int64]) -> pl.DataFrame:
    """Makes the id null, or makes a number negative that never is."""
    spoilt, odd = pl.Series(defect >= 0), pl.Series(defect % 2 == 1)
    for number in (name for name in NEVER_NEGATIVE if name in rows.columns):
        rows = rows.with_columns(pl.when(spoilt & odd).then(-1 - pl.col(number)).otherwise(number).alias(number))
        spoilt &= ~odd
    return rows.with_columns(pl.when(~spoilt).then(rows.columns[0]))


def _spoil_lines(text: str, defect: NDArray[np.int64], patterns: tuple[tuple[str, str], ...]) -> str:
    if (defect < 0).all():
        return text
    lines = pl.DataFrame({"line": text.splitlines(), "defect": np.where(defect < 0, -1, defect % len(patterns))})
    spoilt = pl.col("line")
    for number, (pattern, replacement) in enumerate(patterns):
        replaced = pl.col("line").str.replace(pattern, replacement)
        spoilt = pl.when(pl.col("defect") == number).then(replaced).otherwise(spoilt)
    return "\n".join(lines.select(spoilt).to_series()) + "\n"
