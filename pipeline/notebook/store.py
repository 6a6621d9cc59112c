"""A sample store as frames, for a notebook: samples, days, labels, and the values behind encoded features."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import date
from difflib import get_close_matches
from itertools import pairwise
from pathlib import Path
from typing import get_args

import polars as pl

from pipeline.columns import SAMPLE_ID, sample_columns
from pipeline.errors import StrataError
from pipeline.manifest import Manifest, SampleFile, SplitName, check_file, load_manifest
from pipeline.spec.features import BucketTable, DenseFeature, QuantileTable, VocabTable

HASHES = 2**64


@dataclass(frozen=True)
class Store:
    """A sample store. `manifest` says what lies in it, and what was learned from it."""

    path: Path
    manifest: Manifest
    _checked: set[str] = field(default_factory=set, repr=False, compare=False)
    """Sample files whose checksum was found right."""

    def days(self) -> pl.DataFrame:
        """The rows of each day: split, day, rows."""
        rows = [{"split": f.split, "day": date.fromisoformat(f.date), "rows": f.rows} for f in self.manifest.files]
        return pl.DataFrame(rows).group_by("split", "day").agg(pl.col("rows").sum()).sort("day")

    def labels(self) -> pl.DataFrame:
        """The labels of each objective and split: rows, mean, min, max. The mean of a binary label is its rate."""
        splits = [(name, split, of) for name, found in self.manifest.labels.items() for split, of in found.items()]
        rows = [{"objective": name, "split": split, **of.model_dump()} for name, split, of in splits]
        return pl.DataFrame(rows, infer_schema_length=None)

    def scan(
        self,
        split: SplitName | None = None,
        *,
        days: Sequence[date | str] = (),
        columns: Sequence[str] = (),
        fraction: float = 1.0,
    ) -> pl.LazyFrame:
        """Samples as a model reads them, with the columns split and day. Polars reads them when they are collected.

        Args:
            split: One split; by default all.
            days: Days as dates or YYYY-MM-DD; by default all.
            columns: Columns of the store; by default all.
            fraction: Share of the samples, always the same ones: a hash of the sample's id chooses them.

        Raises StrataError if the store has no such split, day or column, or a file is damaged: all files that are
        asked for are checked, once per store that was opened.
        """
        if not 0 < fraction <= 1:
            raise StrataError(f"found {fraction}", where="fraction", fix="give a share above 0, at most 1")
        known = sample_columns(self.manifest.spec)
        wanted = {str(day) for day in days}
        _check("split", [split] if split else [], get_args(SplitName))
        _check("columns", columns, known)
        files = [file for file in self.manifest.files if split in (None, file.split)]
        _check("days", wanted, sorted({file.date for file in files}))
        of_day: dict[tuple[str, str], list[Path]] = {}
        for file in files:
            if not wanted or file.date in wanted:
                self._check_once(file)
                of_day.setdefault((file.split, file.date), []).append(self.path / file.path)
        if not of_day:
            raise StrataError(f"has no rows of the {split} split", where=self.path, fix="choose another split")
        samples = pl.concat(
            pl.scan_parquet(paths).with_columns(split=pl.lit(name), day=pl.lit(date.fromisoformat(day)))
            for (name, day), paths in of_day.items()
        )
        if fraction < 1:
            samples = samples.filter(pl.col(SAMPLE_ID).hash() < int(fraction * HASHES))
        return samples.select(*(columns or known), "split", "day")

    def _check_once(self, file: SampleFile) -> None:
        if file.path not in self._checked:
            check_file(self.path / file.path, file.sha256)
            self._checked.add(file.path)

    def decode(self, feature: str, numbers: pl.Series) -> pl.Series:
        """What the numbers of a feature's column stand for: the values of the log, or intervals of a number.

        An index without a value, such as 0, becomes null. A missing dense number was stored as 0, and stays what 0
        stands for. Raises StrataError if there is no such feature, or if its table is hashed.
        """
        spec, learned = self.manifest.spec, self.manifest.learned
        _check("feature", [feature], list(spec.features))
        declared = spec.features[feature]
        if isinstance(declared, DenseFeature):
            if "standardise" in declared.normalise:
                numbers = numbers * learned.normalisers[feature].std + learned.normalisers[feature].mean
            return (numbers.abs().exp() - 1) * numbers.sign() if "log1p" in declared.normalise else numbers
        match spec.tables[declared.table]:
            case VocabTable():
                vocabulary = learned.vocabularies[declared.table]
                check_file(self.path / vocabulary.path, vocabulary.sha256)
                values = pl.read_parquet(self.path / vocabulary.path).sort("index")["value"]
            case QuantileTable():
                values = _intervals(learned.boundaries[declared.table])
            case BucketTable(boundaries=boundaries):
                values = _intervals(boundaries)
            case _:
                fix = "decode a feature of another table"
                raise StrataError("has no vocabulary, its ids are hashed", where=f"table {declared.table}", fix=fix)
        indices = range(1, len(values) + 1)
        if numbers.dtype == pl.List:
            decoded = pl.col(feature).list.eval(pl.element().replace_strict(indices, values, default=None))
        else:
            decoded = pl.col(feature).replace_strict(indices, values, default=None)
        return numbers.alias(feature).to_frame().select(decoded).to_series()


def open_store(path: Path | str) -> Store:
    """Raises StrataError if the folder is no sample store, or files of it are missing."""
    return Store(Path(path), load_manifest(Path(path)))


def _intervals(boundaries: Sequence[float]) -> pl.Series:
    """What to call the intervals between boundaries, the first of which has index 1."""
    inner = [f"{low:g} to {high:g}" for low, high in pairwise(boundaries)]
    outer = [f"below {boundaries[0]:g}", f"from {boundaries[-1]:g}"] if boundaries else ["any number"]
    return pl.Series([outer[0], *inner, *outer[1:]])


def _check(what: str, names: Collection[str], known: Sequence[str]) -> None:
    """Raises StrataError if a name is not known."""
    for name in names:
        if name not in known:
            near = get_close_matches(name, known, n=1)
            fix = f"did you mean `{near[0]}`?" if near else f"there are {', '.join(known)}"
            raise StrataError(f"there is no `{name}`", where=what, fix=fix)
