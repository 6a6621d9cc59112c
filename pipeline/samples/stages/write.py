"""Seventh stage: encodes drafts by what was learned, and writes the Parquet files of the store."""

import hashlib
import io
from dataclasses import dataclass
from datetime import date
from functools import cached_property

import numpy as np
import polars as pl

from pipeline.columns import DAY, SAMPLE_ID, WEIGHT, feature_column, sample_columns
from pipeline.manifest import SampleFile, SplitName
from pipeline.samples.frames.dictionary import DictionaryEncoded
from pipeline.samples.frames.encoding import LABEL_COUNTS, encode, encode_past, label_counts
from pipeline.samples.frames.hashing import mixed_hash
from pipeline.samples.frames.labels import KEEP
from pipeline.samples.kept.results import Done, Receipt, Results, key_of, results
from pipeline.samples.stages.draft import Draft, Drafted
from pipeline.samples.stages.learn import LearnedPart, read_encoders
from pipeline.spec.features import HistoryFeature, IdFeature, VocabTable
from pipeline.spec.parts import digest_of_parts
from pipeline.spec.spec import Spec
from pipeline.storage import Folder

# Training shuffles whole row groups: a file has enough of them for rows to mix, and none is so small that it reads
# slowly.
GROUPS_PER_FILE, ROWS_PER_GROUP = 32, (1024, 8192)


class Encoded(Receipt):
    """The files of one unit; by day and feature with a vocabulary the number of values, and of those without a row."""

    files: list[SampleFile]
    ids: dict[date, dict[str, int]]
    outside: dict[date, dict[str, int]]


@dataclass(frozen=True)
class EncodeTask:
    """A draft, what was learned, and the split of every day in it."""

    store: Folder
    spec: Spec
    draft: Done[Draft, Drafted]
    learned: dict[str, tuple[Results, LearnedPart]]
    splits: dict[date, SplitName]

    @cached_property
    def results(self) -> Results:
        learned = {name: part.digest for name, (_, part) in self.learned.items()}
        splits = {str(day): split for day, split in self.splits.items()}
        parts = digest_of_parts("encoded", self.spec)
        key = key_of(parts, self.draft.task.results.key, learned, splits)
        return results(self.store, "encoded", self.draft.task.unit.name, key)


def write_samples(task: EncodeTask) -> Done[EncodeTask, Encoded]:
    """Writes `split=S/date=D/part-<local day>-<partition>-<run>-<key>.parquet`; the key tells versions of a file apart.

    A reader of the finished store therefore never finds a file changed, and the order of names is that of the rows.
    """
    return task.results.get_or_make(
        task, Encoded, lambda: _write_samples(task), lambda made: _all_there(made, task.store)
    )


def _all_there(encoded: Encoded, store: Folder) -> bool:
    found = [store.stat(file.path) for file in encoded.files]
    return all(info and info.size == file.bytes for info, file in zip(found, encoded.files, strict=True))


def _write_samples(task: EncodeTask) -> Encoded:
    spec, unit, draft = task.spec, task.draft.task.unit, task.draft.task.results
    encoders = read_encoders(task.learned)
    histories = [name for name, feature in spec.features.items() if isinstance(feature, HistoryFeature)]
    past = encode_past({name: draft.read(f"past-{name}")["value"] for name in histories}, spec, encoders)
    files, baselines = [], []
    ids: dict[date, dict[str, int]] = {day: {} for day in task.splits}
    outside: dict[date, dict[str, int]] = {day: {} for day in task.splits}
    for run in range(task.draft.receipt.runs):
        samples = DictionaryEncoded.from_table(draft.read(f"run-{run}"), draft.read(f"ids-{run}"))
        for day in samples.rows[DAY].unique().sort():
            split = task.splits[day]
            raw = samples.select(pl.col(DAY) == day)
            encoded = encode(raw, past, spec, encoders)
            for feature in _with_vocabulary(spec):
                shown, unknown = _coverage(raw.rows, encoded, feature, spec)
                ids[day][feature] = ids[day].get(feature, 0) + shown
                outside[day][feature] = outside[day].get(feature, 0) + unknown
            if split == "train":
                baselines.append(label_counts(encoded, spec))
                encoded = downsample(encoded) if spec.downsample else encoded
            part = f"part-{unit.day:%Y%m%d}-{unit.partition:04d}-{run:03d}-{task.results.key[:8]}.parquet"
            path = f"split={split}/date={day}/{part}"
            if encoded.height:
                files.append(_write(task.store, path, split, day, encoded.select(sample_columns(spec))))
    task.results.write("baselines", pl.concat([pl.DataFrame(schema=LABEL_COUNTS), *baselines]))
    return Encoded(files=files, ids=ids, outside=outside)


def downsample(samples: pl.DataFrame) -> pl.DataFrame:
    """Keeps a share of the rows, each with its weight divided by the share.

    The draw is a hash of the sample id, so a later build keeps the same rows.
    """
    drawn = mixed_hash(samples[SAMPLE_ID]) / np.float64(2**64)
    kept = samples.filter(pl.Series(drawn) < samples[KEEP])
    return kept.with_columns((pl.col(WEIGHT) / pl.col(KEEP)).cast(pl.Float32).alias(WEIGHT))


def _with_vocabulary(spec: Spec) -> list[str]:
    return [name for name, f in spec.sparse_features.items() if isinstance(spec.tables[f.table], VocabTable)]


def _coverage(coded: pl.DataFrame, encoded: pl.DataFrame, feature: str, spec: Spec) -> tuple[int, int]:
    """The number of values of a feature, and of those with index 0."""
    column = feature_column(feature)
    if isinstance(spec.features[feature], IdFeature):
        missing = int((coded[column] == 0).sum())
        return coded.height - missing, int((encoded[column] == 0).sum()) - missing
    values = encoded[column].explode(empty_as_null=False)
    return len(values), int((values == 0).sum())


def _write(store: Folder, path: str, split: SplitName, day: date, samples: pl.DataFrame) -> SampleFile:
    buffer = io.BytesIO()
    smallest, largest = ROWS_PER_GROUP
    group = min(largest, max(smallest, samples.height // GROUPS_PER_FILE))
    # A file is written once and decoded in every epoch: lz4 takes a third more room than zstd, and two thirds of its
    # time.
    samples.write_parquet(buffer, row_group_size=group, compression="lz4")
    content = buffer.getvalue()
    size = store.write(path, content)
    digest = hashlib.sha256(content).hexdigest()
    return SampleFile(path=path, split=split, date=str(day), rows=samples.height, bytes=size, sha256=digest)
