"""The manifest of a sample store: what lies in it, what was learned from it, and what was left out of it.

It is written last: a folder without it is no sample store. Building writes it; batches, training and evaluation
read it, and need nothing else to understand the Parquet files beside it.
"""

import hashlib
from pathlib import Path
from typing import Literal, Self

from pydantic import ValidationError

from pipeline.errors import StrataError
from pipeline.spec.part import Part
from pipeline.spec.spec import Spec

MANIFEST = "manifest.json"
SplitName = Literal["train", "valid", "test"]


class SampleFile(Part):
    """One Parquet file of samples; `path` is relative to the store."""

    path: str
    split: SplitName
    date: str
    rows: int
    bytes: int
    sha256: str


class RawCounts(Part):
    """What became of the rows of a raw table: read = kept + duplicates + the sum of rejected."""

    read: int
    kept: int
    duplicates: int
    rejected: dict[str, int]


class EventCounts(Part):
    """What became of the rows of an event that were kept: they found their impression, or why not."""

    attributed: int
    without_impression: int
    outside_window: int


class BadRawFile(Part):
    """A raw file in quarantine: none of its rows was used."""

    table: str
    file: str
    reason: str


class LabelStatistics(Part):
    """Labels of an objective over the rows of a split that learn it; `mean` is the rate of a binary one."""

    rows: int
    mean: float | None
    min: float | None
    max: float | None


class Normaliser(Part):
    """Mean and standard deviation of a dense feature on the training split, after log1p if it has one."""

    mean: float
    std: float


class Vocabulary(Part):
    """A Parquet file in the store with the columns value, index and count."""

    path: str
    sha256: str


class Learned(Part):
    """What the training split taught: it belongs to the samples, not to the spec.

    `table_rows` sizes the embedding tables; `vocabularies` are by vocab table; `boundaries` cut a number into
    quantiles; `baselines` has, per objective with `baseline_by`, the median training label by index of that feature.
    """

    table_rows: dict[str, int]
    vocabularies: dict[str, Vocabulary]
    boundaries: dict[str, list[float]]
    normalisers: dict[str, Normaliser]
    baselines: dict[str, list[float]]


class Manifest(Part):
    """The content of manifest.json."""

    format: Literal[1] = 1
    spec: Spec
    fingerprint: str
    raw_folder: str
    created: str
    files: list[SampleFile]
    learned: Learned
    labels: dict[str, dict[SplitName, LabelStatistics]]
    raw: dict[str, RawCounts]
    events: dict[str, EventCounts]
    without_profile: dict[str, int]
    """Impressions for which a profile table has no row."""
    filtered: int
    """Impressions that the spec's filter left out."""
    quarantine: list[BadRawFile]

    def encoding(self) -> str:
        """Tells apart stores whose numbers mean different things to a model: by the spec and all that was learned."""
        return hashlib.sha256((self.fingerprint + self.learned.model_dump_json()).encode()).hexdigest()

    def content(self, split: SplitName) -> str:
        """Tells apart splits of other files, or of files with other rows."""
        files = [(file.path, file.rows, file.sha256) for file in self.files if file.split == split]
        return hashlib.sha256(repr(sorted(files)).encode()).hexdigest()

    def trained_on(self, first: str, last: str = "") -> Self:
        """The same without the training files of days before `first` or after `last`, YYYY-MM-DD; "" is no bound."""
        files = [
            file
            for file in self.files
            if file.split != "train" or (first <= file.date and (not last or file.date <= last))
        ]
        return self.model_copy(update={"files": files})

    def rows(self, split: SplitName) -> int:
        return sum(file.rows for file in self.files if file.split == split)

    def days(self, split: SplitName) -> list[str]:
        return sorted({file.date for file in self.files if file.split == split})

    def period(self, split: SplitName) -> str:
        """The first and last day of a split, as a report names them."""
        days = self.days(split)
        return days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"


def load_manifest(store: Path) -> Manifest:
    """The manifest of a sample store whose files are all there, with the sizes they were written with.

    Raises StrataError otherwise.
    """
    path = store / MANIFEST
    if not path.is_file():
        raise StrataError(f"no sample store (it has no {MANIFEST})", where=store, fix="run scripts/build_samples.py")
    try:
        manifest = Manifest.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        raise StrataError(
            f"not a manifest of this version ({first['msg']} at {'.'.join(map(str, first['loc']))})",
            where=path,
            fix="build the samples again",
        ) from None
    for file in manifest.files:
        found = store / file.path
        size = found.stat().st_size if found.is_file() else None
        if size != file.bytes:
            what = "missing" if size is None else f"{size} bytes long, but was written with {file.bytes}"
            raise StrataError(what, where=found, fix="the store is damaged: build the samples again")
    return manifest
