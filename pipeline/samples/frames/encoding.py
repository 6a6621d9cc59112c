"""Encoding: vocabularies, quantiles and normalisers are fitted to tallies, and turn feature values into numbers."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl

from pipeline.columns import DAY, feature_column, label_column
from pipeline.manifest import Normaliser
from pipeline.samples.frames.dictionary import DictionaryEncoded
from pipeline.samples.frames.features import split_list, start_column
from pipeline.samples.frames.hashing import hash_index
from pipeline.samples.frames.history import Spans, flatten, list_series, lists_of_spans
from pipeline.samples.frames.labels import learned_rows
from pipeline.samples.frames.tallies import COUNT, SLOT, VALUE, significant
from pipeline.spec.features import (
    AnyTable,
    BucketTable,
    HashTable,
    HistoryFeature,
    IdFeature,
    QuantileTable,
    VocabTable,
)
from pipeline.spec.objectives import RegressionObjective
from pipeline.spec.spec import Spec

INDEX, OBJECTIVE = "index", "objective"
LABEL_COUNTS = {OBJECTIVE: pl.String(), INDEX: pl.Int32(), VALUE: pl.Float64(), COUNT: pl.Int64()}
MANY_COUNTS = 500_000  # rows of counts that are worth adding up before there are more


@dataclass(frozen=True)
class Encoders:
    """What encoding needs beyond the spec. All of it is learned on the training split."""

    vocabularies: dict[str, pl.DataFrame]
    """Per vocab table: value, index (from 1, the most frequent value first) and count."""
    boundaries: dict[str, list[float]]
    """Per quantile table: the inner boundaries. A value's bucket is the number of boundaries at or below it, plus 1."""
    normalisers: dict[str, Normaliser]

    def rows(self, name: str, table: AnyTable) -> int:
        """The number of rows that an embedding table needs."""
        match table:
            case VocabTable():
                return self.vocabularies[name].height + 1
            case HashTable():
                return table.rows
            case QuantileTable():
                return table.buckets + 1
            case BucketTable():
                return len(table.boundaries) + 2


def fit_vocabulary(counts: pl.DataFrame, table: VocabTable) -> pl.DataFrame:
    """`counts` has value and count; see Encoders.vocabularies for the result."""
    kept = counts.filter(pl.col(COUNT) >= table.min_count).sort([COUNT, VALUE], descending=[True, False])
    return kept.with_row_index(INDEX, offset=1).select(VALUE, pl.col(INDEX).cast(pl.Int32), COUNT)


def fit_quantiles(counts: pl.DataFrame, table: QuantileTable) -> list[float]:
    """The inner quantiles of values with counts, between two values by linear interpolation."""
    if counts.is_empty():
        return []
    ordered = counts.sort(VALUE)
    values, ends = ordered[VALUE].to_numpy(), np.cumsum(ordered[COUNT].to_numpy())
    place = np.linspace(0, 1, table.buckets + 1)[1:-1] * (ends[-1] - 1)
    below, above = (values[np.searchsorted(ends, rounded(place), side="right")] for rounded in (np.floor, np.ceil))
    return list(np.unique(below + (above - below) * (place - np.floor(place))))


def fit_normalisers(sums: pl.DataFrame, spec: Spec) -> dict[str, Normaliser]:
    """`sums` has per day, slot and feature the count, the sum and the sum of squares of its values."""
    normalisers = {}
    for (name,), parts in sums.sort(DAY, SLOT).partition_by("feature", as_dict=True, maintain_order=True).items():
        rows, total, squares = (math.fsum(parts[column].to_list()) for column in (COUNT, "sum", "squares"))
        mean = total / rows if rows else 0.0
        std = math.sqrt(max(0.0, squares / rows - mean * mean)) if rows else 0.0
        # The squares of a constant leave rounding errors, which are no spread.
        normalisers[str(name)] = Normaliser(mean=mean, std=std if std > 1e-7 * abs(mean) else 1.0)
    return {name: normalisers.get(name, Normaliser(mean=0.0, std=1.0)) for name in spec.standardised}


def encode(samples: DictionaryEncoded, past: Mapping[str, pl.Series], spec: Spec, encoders: Encoders) -> pl.DataFrame:
    """Every feature column as the model reads it: int32, list of int32, or float32 without nulls.

    `past` has the encoded column that the spans of each history lie in.
    """
    columns, rows = [], samples.rows
    for name, feature in spec.sparse_features.items():
        codes, table = rows[feature_column(name)], spec.tables[feature.table]
        if isinstance(feature, HistoryFeature):
            encoded = lists_of_spans(past[name], Spans(rows[start_column(name)].to_numpy(), codes.to_numpy()))
        elif isinstance(feature, IdFeature):
            found = index(samples.values[name], feature.table, table, encoders).to_numpy()
            encoded = pl.Series(np.append(np.int32(0), found)[codes.to_numpy()])
        else:
            items, offsets = flatten(split_list(samples.values[name], feature))
            lists = list_series(index(items, feature.table, table, encoders), np.append(0, offsets))
            encoded = lists.gather(codes)
        columns.append(encoded.alias(feature_column(name)))
    for name in spec.dense_features:
        values = rows[feature_column(name)]
        if name in spec.standardised:
            norm = encoders.normalisers[name]
            values = (values - norm.mean) / norm.std
        columns.append(values.fill_null(0.0).cast(pl.Float32).alias(feature_column(name)))
    return rows.with_columns(columns)


def encode_past(past: Mapping[str, pl.Series], spec: Spec, encoders: Encoders) -> dict[str, pl.Series]:
    """Encodes the past values of each history."""
    tables = {name: spec.sparse_features[name].table for name in past}
    return {name: index(values, tables[name], spec.tables[tables[name]], encoders) for name, values in past.items()}


def index(values: pl.Series, name: str, table: AnyTable, encoders: Encoders) -> pl.Series:
    """The row of each value in its embedding table. Row 0 is for missing values and for those without a row."""
    match table:
        case VocabTable():
            vocabulary = encoders.vocabularies[name].select(VALUE, INDEX)
            found = values.alias(VALUE).to_frame().join(vocabulary, on=VALUE, how="left", maintain_order="left")
            return found[INDEX].fill_null(0)
        case HashTable():
            return hash_index(values, table.rows)
        case QuantileTable():
            return _between(significant(values.cast(pl.Float64)), encoders.boundaries[name])
        case BucketTable():
            return _between(values.cast(pl.Float64), list(table.boundaries))


def _between(numbers: pl.Series, boundaries: list[float]) -> pl.Series:
    given = numbers.fill_null(np.nan).to_numpy()
    bucket = 1 + np.searchsorted(np.array(boundaries), given, side="right")
    return pl.Series(np.where(np.isnan(given), 0, bucket).astype(np.int32))


def label_counts(train: pl.DataFrame, spec: Spec) -> pl.DataFrame:
    """Per objective with `baseline_by`: how often each label occurs for each index of that (encoded) feature."""
    parts = [pl.DataFrame(schema=LABEL_COUNTS)]
    for name, objective in spec.objectives.items():
        if isinstance(objective, RegressionObjective) and objective.baseline_by:
            learned = train.filter(learned_rows(spec, name))
            labels = significant(learned[label_column(name)].cast(pl.Float64))
            of_row = learned.select(pl.col(feature_column(objective.baseline_by)).alias(INDEX), labels.alias(VALUE))
            counts = of_row.group_by(INDEX, VALUE).agg(pl.len().cast(pl.Int64).alias(COUNT))
            parts.append(counts.select(pl.lit(name).alias(OBJECTIVE), INDEX, VALUE, COUNT))
    return pl.concat(parts)


def add_label_counts(parts: Iterable[pl.DataFrame]) -> pl.DataFrame:
    """Adds up the counts of many parts, some at a time: memory is that of the different labels."""
    total, waiting = pl.DataFrame(schema=LABEL_COUNTS), list[pl.DataFrame]()
    for part in parts:
        waiting.append(part)
        if sum(map(len, waiting)) > max(MANY_COUNTS, len(total)):
            total, waiting = _added_up([total, *waiting]), []
    return _added_up([total, *waiting])


def _added_up(parts: list[pl.DataFrame]) -> pl.DataFrame:
    return pl.concat(parts).group_by(OBJECTIVE, INDEX, VALUE).agg(pl.col(COUNT).sum())


def median_labels(counts: pl.DataFrame, spec: Spec, rows: Mapping[str, int]) -> dict[str, list[float]]:
    """Per objective with `baseline_by` the median training label for each index; `rows` is by table.

    An index without a training row gets the median over all rows.
    """
    baselines = {}
    for name, objective in spec.objectives.items():
        if isinstance(objective, RegressionObjective) and objective.baseline_by:
            of_objective = counts.filter(pl.col(OBJECTIVE) == name)
            overall = _median(of_objective.group_by(VALUE).agg(pl.col(COUNT).sum()))
            medians = [overall] * rows[spec.sparse_features[objective.baseline_by].table]
            for (at,), of_index in of_objective.partition_by(INDEX, as_dict=True).items():
                medians[at] = _median(of_index)
            baselines[name] = medians
    return baselines


def _median(counts: pl.DataFrame) -> float:
    return fit_quantiles(counts.group_by(VALUE).agg(pl.col(COUNT).sum()), HALVES)[0]


HALVES = QuantileTable(encode="quantiles", dim=1, buckets=2)
