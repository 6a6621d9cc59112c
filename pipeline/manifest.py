"""The manifest of a sample store: what lies in it, what was learned from it, and what was left out of it.

It is written last: a folder without it is no sample store. Building writes it; batches, training and evaluation
read it, and need nothing else to understand the Parquet files beside it.
"""

import hashlib
import os
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator

from pipeline.errors import LocalError, StrataError
from pipeline.json_files import load_json, sealed
from pipeline.spec.part import Name, Part
from pipeline.spec.spec import Spec
from pipeline.storage import Folder

MANIFEST = "manifest.json"
REBUILD = "build the samples again"
SplitName = Literal["train", "valid", "test"]


def _below(path: str) -> str:
    if "\\" in path or not path.isprintable() or any(part in ("", ".", "..") for part in path.split("/")):
        raise ValueError("should be the path of a file below the store")
    return path


StorePath = Annotated[str, AfterValidator(_below)]


class SampleFile(Part):
    """One Parquet file of samples; `path` is relative to the store."""

    path: StorePath
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

    path: StorePath
    sha256: str


class Learned(Part):
    """What the training split taught: it belongs to the samples, not to the spec.

    `table_rows` sizes the embedding tables; `vocabularies` are by vocab table; `boundaries` cut a number into
    quantiles; `baselines` has, per objective with `baseline_by`, the median training label by index of that feature.
    """

    table_rows: dict[Name, int]
    vocabularies: dict[Name, Vocabulary]
    boundaries: dict[Name, list[float]]
    normalisers: dict[Name, Normaliser]
    baselines: dict[Name, list[float]]


class Manifest(Part):
    """The content of manifest.json."""

    format: Literal[2] = 2
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
    trained_before: tuple[str, ...] = ()
    """In the manifest that a run keeps: the days that the run it began from, and those before, were trained on."""

    def as_file(self) -> bytes:
        """The content of manifest.json, with a digest of itself."""
        return sealed(self.model_dump_json(indent=1).encode())

    def paths(self) -> set[str]:
        """The sample files and vocabularies, relative to the store."""
        return {file.path for file in self.files} | {v.path for v in self.learned.vocabularies.values()}

    def digest(self) -> str:
        """Tells apart manifests that say anything else. A key at its default is left out: a new key changes nothing."""
        return hashlib.sha256(self.model_dump_json(exclude_defaults=True).encode()).hexdigest()

    def trained_since(self, first: str) -> Self:
        """The same without the training files of days before `first`, YYYY-MM-DD."""
        files = [file for file in self.files if file.split != "train" or first <= file.date]
        return self.model_copy(update={"files": files})

    def rows(self, split: SplitName) -> int:
        return sum(file.rows for file in self.files if file.split == split)

    def days(self, split: SplitName) -> list[str]:
        return sorted({file.date for file in self.files if file.split == split})

    def period(self, split: SplitName) -> str:
        """The first and last day of a split, as a report names them."""
        days = self.days(split)
        return days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"


def read_manifest(store: Folder) -> Manifest:
    """The manifest of a sample store, whatever has become of its files. Raises StrataError if there is none."""
    if not store.stat(MANIFEST):
        raise StrataError(f"no sample store (it has no {MANIFEST})", where=store, fix="run scripts/build_samples.py")
    return load_json(Manifest, store, MANIFEST, what="a manifest", fix=REBUILD)


def load_manifest(store: Path) -> Manifest:
    """The manifest of a sample store whose files are all in it, with the sizes they were written with.

    Raises StrataError otherwise. What the files hold is checked by those who read them, see `check_file`.
    """
    if (store / "config.json").is_file():  # a run keeps a manifest too
        raise StrataError("is a run and no sample store", where=store, fix="pass the samples that `build` made")
    manifest = read_manifest(Folder.at(store))
    sizes: dict[str, int | None] = dict.fromkeys(manifest.paths()) | {file.path: file.bytes for file in manifest.files}
    root = os.path.realpath(store)
    for path, size in sizes.items():
        found = store / path
        if os.path.realpath(found) != f"{root}/{path}":
            raise StrataError("is reached through a symbolic link", where=found, fix="put the file itself there")
        if not found.is_file():
            raise StrataError("missing", where=found, fix=f"the store is damaged: {REBUILD}")
        if size is not None and size != (length := found.stat().st_size):
            what = f"{length} bytes long, but was written with {size}"
            raise StrataError(what, where=found, fix=f"the store is damaged: {REBUILD}")
    return manifest


def check_file(path: Path, sha256: str) -> None:
    """Raises LocalError if a file is not the one that the manifest names.

    Reads all of it, about 1.5 GB/s from memory: once per run is enough.
    """
    fix = f"it is damaged: restore it from a copy, or delete it and {REBUILD}"
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise LocalError(f"cannot be read ({error.strerror})", where=path, fix=fix) from None
    if digest != sha256:
        raise LocalError("is not what was written (its SHA-256 is not the manifest's)", where=path, fix=fix)
