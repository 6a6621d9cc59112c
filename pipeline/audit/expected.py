"""Turns recomputed samples into the columns of the store: labels, masks, scenes, weights and encoded features."""

import math
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from typing import Any

import polars as pl

from pipeline.audit.plain_rows import PlainRows, Row
from pipeline.audit.recompute import Past
from pipeline.columns import WEIGHT, feature_column, label_column, mask_column, scene_column
from pipeline.manifest import Manifest, Normaliser
from pipeline.spec.features import (
    BucketTable,
    DenseFeature,
    HashTable,
    HistoryFeature,
    IdFeature,
    QuantileTable,
    VocabTable,
)
from pipeline.spec.spec import Spec
from pipeline.storage import Folder


def expected_columns(samples: PlainRows, past: Past, splits: list[str], manifest: Manifest, store: Folder) -> list[Row]:
    """The row that the store should hold of each sample. `splits` names the split of each.

    Vocabularies, quantiles and normalisers are taken from the store.
    """
    spec = manifest.spec
    expected: dict[str, list[Any]] = {scene_column(s): samples.holds(scene.where) for s, scene in spec.scenes.items()}
    for name, objective in spec.objectives.items():
        labels = samples.evaluate(objective.label).cast(pl.Float32).to_list()
        inside = [
            holds and label is not None and math.isfinite(label)
            for holds, label in zip(samples.holds(objective.where), labels, strict=True)
        ]
        expected[mask_column(name)] = inside
        expected[label_column(name)] = [label if i else None for label, i in zip(labels, inside, strict=True)]
    expected[WEIGHT] = _weights(samples, splits, spec)
    encoder = PlainEncoder(manifest, store)
    for name, feature in spec.features.items():
        if isinstance(feature, HistoryFeature):
            lists = [past.history(row, name, feature.last) for row in samples.rows]
            expected[feature_column(name)] = encoder.lists(lists, past.types[name], feature.table)
            continue
        source = samples.evaluate(feature.source or name)
        if isinstance(feature, DenseFeature):
            normaliser = manifest.learned.normalisers.get(name, Normaliser(mean=0, std=1))
            numbers = source.cast(pl.Float64).to_list()
            expected[feature_column(name)] = [_normalised(value, feature, normaliser) for value in numbers]
        elif isinstance(feature, IdFeature):
            expected[feature_column(name)] = encoder.indices(source.to_list(), source.dtype, feature.table)
        else:
            lists = [_elements(text, feature.separator)[: feature.max_length] for text in source]
            expected[feature_column(name)] = encoder.lists(lists, source.dtype, feature.table)
    return [dict(zip(expected, row, strict=True)) for row in zip(*expected.values(), strict=True)]


def _weights(samples: PlainRows, splits: list[str], spec: Spec) -> list[float | None]:
    """The sample weights. In training each is divided by the rate of the first down-sampling rule that holds."""
    weights = samples.numbers(spec.sample_weight) if spec.sample_weight else [1.0] * len(samples.rows)
    rates = [1.0] * len(samples.rows)
    for rule in reversed(spec.downsample):
        holds = samples.holds(rule.where)
        rates = [rule.keep if hold else rate for hold, rate in zip(holds, rates, strict=True)]
    return [
        weight / rate if weight is not None and split == "train" else weight
        for weight, rate, split in zip(weights, rates, splits, strict=True)
    ]


def _elements(text: str | None, separator: str) -> list[str]:
    """The elements of a list in one string, without blanks around them and without empty elements."""
    if text is None:
        return []
    parts = text.split(separator) if separator else list(text)
    return [part.strip() for part in parts if part.strip()]


def _normalised(value: float | None, feature: DenseFeature, normaliser: Normaliser) -> float:
    """A dense feature's value. A missing number is 0; log1p keeps the sign of a negative number."""
    if value is None or not math.isfinite(value):
        return 0.0
    if "log1p" in feature.normalise:
        value = math.copysign(math.log1p(abs(value)), value)
    return (value - normaliser.mean) / normaliser.std


class PlainEncoder:
    """Turns values into rows of their embedding table. Row 0 is for missing values and for values without a row."""

    def __init__(self, manifest: Manifest, store: Folder) -> None:
        self.tables, self.learned, self.store = manifest.spec.tables, manifest.learned, store

    def lists(self, lists: list[list[Any]], type_: pl.DataType, table: str) -> list[list[int]]:
        flat = iter(self.indices([value for values in lists for value in values], type_, table))
        return [[next(flat) for _ in values] for values in lists]

    def indices(self, values: list[Any], type_: pl.DataType, name: str) -> list[int]:
        """The row of each value. `type_` decides how a value is written as text, and the text is hashed."""
        table = self.tables[name]
        match table:
            case VocabTable():
                known = self._known(pl.Series("value", values, dtype=type_), name)
                return [known.get(value, 0) for value in values]
            case HashTable():
                texts = pl.Series(values, dtype=type_).cast(pl.String)
                return [0 if text is None else hashed_row(text, table.rows) for text in texts]
            case QuantileTable():
                numbers = pl.Series(values, dtype=type_).cast(pl.Float64)
                return _intervals([_significant(number) for number in numbers], self.learned.boundaries[name])
            case BucketTable():
                return _intervals(pl.Series(values, dtype=type_).cast(pl.Float64), table.boundaries)

    def _known(self, values: pl.Series, table: str) -> dict[Any, int]:
        """The part of a vocabulary that these values need."""
        with self.store.on_this_machine(self.learned.vocabularies[table].path) as path:
            vocabulary = pl.scan_parquet(path).filter(pl.col("value").is_in(values.drop_nulls().unique().implode()))
            return dict(vocabulary.select("value", "index").collect().iter_rows())


def _intervals(numbers: Iterable[float | None], boundaries: Sequence[float]) -> list[int]:
    """1 + how many boundaries are at or below each number."""
    return [0 if n is None or math.isnan(n) else 1 + bisect_right(boundaries, n) for n in numbers]


def _significant(number: float | None) -> float | None:
    """A number rounded to 16 significant bits: quantiles are taken of such numbers."""
    if number is None or not math.isfinite(number):
        return None
    mantissa, exponent = math.frexp(number)
    return math.ldexp(round(mantissa * 2**16), exponent - 16)


def hashed_row(text: str, rows: int) -> int:
    """64-bit FNV-1a of the text, its upper half folded into the lower, in a table whose row 0 is for missing ids."""
    value = 14695981039346656037
    for byte in text.encode():
        value = (value ^ byte) * 1099511628211 % 2**64
    return 1 + (value ^ value >> 32) % (rows - 1)
