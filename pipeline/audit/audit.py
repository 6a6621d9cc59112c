"""The audit: compares random samples of a finished store with what the raw log says."""

import random
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import polars as pl

from pipeline.audit.expected import expected_columns
from pipeline.audit.plain_log import PlainLog
from pipeline.audit.recompute import recompute, sample_key
from pipeline.columns import DAY, SAMPLE_ID, TIME, USER, feature_column
from pipeline.errors import StrataError
from pipeline.manifest import Manifest, check_file, load_manifest
from pipeline.storage import Folder

ROUNDING = 1e-5  # stored numbers are float32, and expressions may multiply their rounding
SPLIT, DATE, FILTER = "split", "date", "filter"  # compared besides the columns of the store
_ROW = "the row"  # no column of a store has a blank in its name
SHOWN = 3  # differences in an error


@dataclass(frozen=True)
class Difference:
    """A value of the store that differs from what the raw log says."""

    sample_id: Any
    column: str
    stored: Any
    expected: Any

    def __str__(self) -> str:
        return f"{self.column} of sample {self.sample_id} is {self.stored}, but should be {self.expected}"


@dataclass(frozen=True)
class Audit:
    """How many samples and values an audit compared, and the differences that it found."""

    samples: int
    values: int
    differences: list[Difference]

    def require_clean(self, store: Path) -> None:
        """Raises StrataError if there is a difference; it names the first ones and their number."""
        if self.differences:
            first = "; ".join(map(str, self.differences[:SHOWN]))
            columns = len({difference.column for difference in self.differences})
            raise StrataError(
                f"{len(self.differences)} of {self.values} values ({columns} columns) differ from the log: {first}",
                where=store,
                fix="build the samples again, from the log as it is now",
            )


def audit(store: Path, raw: Path | str, samples: int, seed: int = 0) -> Audit:
    """Recomputes `samples` random samples of a store from the log in the folder `raw`, slowly and plainly.

    Returns the differences. Raises StrataError if the store is damaged or the log cannot be read.
    """
    manifest = load_manifest(store)
    spec, folder = manifest.spec, Folder.at(store)
    for vocabulary in manifest.learned.vocabularies.values():
        check_file(store / vocabulary.path, vocabulary.sha256)
    stored = _draw(folder, manifest, samples, random.Random(seed))
    split_of = {tuple(key): split for *key, split in stored.select(SAMPLE_ID, USER, TIME, SPLIT).iter_rows()}
    log = PlainLog(spec, Folder.at(raw), {bad.file for bad in manifest.quarantine})
    found, past = recompute(log, stored)
    splits = [split_of[sample_key(row, spec)] for row in found.rows]
    expected = {
        sample_key(row, spec): columns | {DATE: row[DAY].isoformat(), FILTER: kept}
        for row, kept, columns in zip(
            found.rows, found.holds(spec.filter), expected_columns(found, past, splits, manifest, folder), strict=True
        )
    }
    scales = {
        feature_column(name): max(1, abs(norm.mean) / norm.std) for name, norm in manifest.learned.normalisers.items()
    }
    values, differences = 0, []
    for row in stored.iter_rows(named=True):
        columns = expected.get((row[SAMPLE_ID], row[USER], row[TIME]), {SAMPLE_ID: None})
        values += len(columns)
        for column, value in columns.items():
            if not _same(row[column], value, scales.get(column, 0)):
                differences.append(Difference(row[SAMPLE_ID], column, row[column], value))
    return Audit(stored.height, values, differences)


def _draw(store: Folder, manifest: Manifest, samples: int, rng: random.Random) -> pl.DataFrame:
    """Random rows of the store, with the split and date that they are filed under, and true for the filter."""
    ends = list(accumulate(file.rows for file in manifest.files))
    numbers = sorted(rng.sample(range(ends[-1]), min(samples, ends[-1])))
    parts = []
    for file, end in zip(manifest.files, ends, strict=True):
        begin = end - file.rows
        here = [number - begin for number in numbers if begin <= number < end]
        if not here:
            continue
        with store.on_this_machine(file.path) as path:
            check_file(path, file.sha256)
            rows = pl.scan_parquet(path, hive_partitioning=False, glob=False).with_row_index(_ROW)
            found = rows.filter(pl.col(_ROW).is_in(here)).drop(_ROW).collect()
        filed_under = {SPLIT: pl.lit(file.split), DATE: pl.lit(file.date), FILTER: pl.lit(True)}
        parts.append(found.with_columns(**filed_under))
    return pl.concat(parts)


def _same(stored: Any, expected: Any, scale: float) -> bool:
    """Whether two values are equal. Numbers may differ by rounding: they were computed from numbers up to `scale`."""
    if isinstance(stored, float) and isinstance(expected, int | float):
        return abs(stored - expected) <= ROUNDING * max(abs(expected), scale)
    return bool(stored == expected)
