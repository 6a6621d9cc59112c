"""The audit: random samples of a finished store against the raw log, and features that give a label away."""

import random
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import polars as pl

from pipeline.audit.expected import expected_columns
from pipeline.audit.plain_log import PlainLog
from pipeline.audit.recompute import key_of, recompute
from pipeline.audit.separation import Separation, separating_features
from pipeline.columns import DAY, SAMPLE_ID, TIME, USER, feature_column
from pipeline.errors import StrataError
from pipeline.manifest import Manifest, check_file, load_manifest
from pipeline.storage import Folder

ROUNDING = 1e-5  # stored numbers are float32, and expressions may multiply their rounding
SPLIT, DATE, FILTER = "split", "date", "filter"  # beside the columns of the store
SHOWN = 3  # differences that an error spells out


@dataclass(frozen=True)
class Difference:
    """A value of the store that is not what the raw log says."""

    sample_id: Any
    column: str
    stored: Any
    expected: Any

    def __str__(self) -> str:
        return f"{self.column} of sample {self.sample_id} is {self.stored}, but should be {self.expected}"


@dataclass(frozen=True)
class Audit:
    """What an audit compared and found. `separations` are features that alone tell a binary label."""

    samples: int
    values: int
    differences: list[Difference]
    separations: list[Separation]

    def require_clean(self, store: Path) -> None:
        """Raises StrataError that names the first findings and their number, if there are any."""
        if self.differences:
            first = "; ".join(map(str, self.differences[:SHOWN]))
            columns = len({difference.column for difference in self.differences})
            raise StrataError(
                f"{len(self.differences)} of {self.values} values ({columns} columns) differ from the log: {first}",
                where=store,
                fix="build the samples again, from the log as it is now",
            )
        if self.separations:
            first = "; ".join(map(str, self.separations[:SHOWN]))
            raise StrataError(
                f"features may repeat an outcome: {first}",
                where=store,
                fix="take out those that are not known at the impression",
            )


def audit(store: Path, raw: Path | str, samples: int, seed: int = 0) -> Audit:
    """Recomputes `samples` random samples of a store from the log in the folder `raw`, slowly and plainly.

    Raises StrataError if the store is damaged or the log cannot be read; what differs is returned.
    """
    manifest = load_manifest(store)
    spec, folder = manifest.spec, Folder.at(store)
    for vocabulary in manifest.learned.vocabularies.values():
        check_file(store / vocabulary.path, vocabulary.sha256)
    chosen = _choose(folder, manifest, samples, random.Random(seed))
    split_of = {tuple(key): split for *key, split in chosen.select(SAMPLE_ID, USER, TIME, SPLIT).iter_rows()}
    log = PlainLog(spec, Folder.at(raw), {bad.file for bad in manifest.quarantine})
    found, past = recompute(log, chosen)
    splits = [split_of[key_of(row, spec)] for row in found.rows]
    expected = {
        key_of(row, spec): columns | {DATE: row[DAY].isoformat(), FILTER: kept}
        for row, kept, columns in zip(
            found.rows, found.holds(spec.filter), expected_columns(found, past, splits, manifest, folder), strict=True
        )
    }
    scales = {
        feature_column(name): max(1, abs(norm.mean) / norm.std) for name, norm in manifest.learned.normalisers.items()
    }
    values, differences = 0, []
    for row in chosen.iter_rows(named=True):
        columns = expected.get((row[SAMPLE_ID], row[USER], row[TIME]), {SAMPLE_ID: None})
        values += len(columns)
        for column, value in columns.items():
            if not _same(row[column], value, scales.get(column, 0)):
                differences.append(Difference(row[SAMPLE_ID], column, row[column], value))
    return Audit(chosen.height, values, differences, separating_features(chosen, spec))


def _choose(store: Folder, manifest: Manifest, samples: int, rng: random.Random) -> pl.DataFrame:
    """Random rows of the store, with the `split` and `date` under which they lie; all of them met the filter."""
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
            rows = pl.scan_parquet(path, hive_partitioning=False, glob=False).with_row_index("the row")
            found = rows.filter(pl.col("the row").is_in(here)).drop("the row").collect()
        lies_in = {SPLIT: pl.lit(file.split), DATE: pl.lit(file.date), FILTER: pl.lit(True)}
        parts.append(found.with_columns(**lies_in))
    return pl.concat(parts)


def _same(stored: Any, expected: Any, scale: float) -> bool:
    """Numbers may differ by the rounding of what they were computed from, which was as large as `scale`."""
    if isinstance(stored, float) and isinstance(expected, int | float):
        return abs(stored - expected) <= ROUNDING * max(abs(expected), scale)
    return bool(stored == expected)
