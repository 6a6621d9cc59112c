"""Learns vocabularies, quantiles and normalisers on the training split, and turns feature values into numbers."""

from dataclasses import dataclass

import numpy as np
import polars as pl
import pyarrow as pa

from pipeline.manifest import Normaliser
from pipeline.samples.hashing import hash_index
from pipeline.samples.history import list_series
from pipeline.samples.labels import learned_rows
from pipeline.spec import (
    AnyTable,
    HashTable,
    HistoryFeature,
    IdFeature,
    QuantileTable,
    Spec,
    VocabTable,
    feature_column,
    label_column,
)


@dataclass(frozen=True)
class Encoders:
    """What encoding needs beyond the spec; all of it learned on the training split."""

    vocabularies: dict[str, pl.DataFrame]
    """Per vocab table: value, index (from 1, the most frequent value first) and count."""
    boundaries: dict[str, list[float]]
    """Per quantile table: the inner boundaries; a value belongs to the bucket of the boundaries at or below it."""
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


def fit_encoders(train: pl.DataFrame, spec: Spec) -> Encoders:
    """Learns from the training rows, which have the columns of `append_features`."""
    vocabularies = {n: _fit_vocabulary(train, spec, n, t) for n, t in spec.tables.items() if isinstance(t, VocabTable)}
    boundaries = {n: _fit_quantiles(train, spec, n, t) for n, t in spec.tables.items() if isinstance(t, QuantileTable)}
    normalisers = {}
    for name, feature in spec.dense_features.items():
        if "standardise" in feature.normalise:
            values = train[feature_column(name)].drop_nulls().to_numpy()
            mean, std = (values.mean(), values.std()) if len(values) else (0.0, 0.0)
            normalisers[name] = Normaliser(mean=mean, std=std if std > 0 else 1.0)
    return Encoders(vocabularies, boundaries, normalisers)


def _fit_vocabulary(train: pl.DataFrame, spec: Spec, name: str, table: VocabTable) -> pl.DataFrame:
    """Counts ids where they were shown: a history that repeats the ids of another feature is not counted again."""
    users = {f: feature for f, feature in spec.sparse_features.items() if feature.table == name}
    shown = {feature.source or f for f, feature in users.items() if not isinstance(feature, HistoryFeature)}
    values = [
        train[feature_column(f)] if isinstance(feature, IdFeature) else train[feature_column(f)].explode()
        for f, feature in users.items()
        if not (isinstance(feature, HistoryFeature) and feature.of in shown)
    ]
    counts = pl.concat([part.alias("value") for part in values]).drop_nulls().value_counts(name="count")
    kept = counts.filter(pl.col("count") >= table.min_count).sort(["count", "value"], descending=[True, False])
    return kept.with_row_index("index", offset=1).select("value", pl.col("index").cast(pl.Int32), "count")


def _fit_quantiles(train: pl.DataFrame, spec: Spec, name: str, table: QuantileTable) -> list[float]:
    feature = next(f for f, feature in spec.sparse_features.items() if feature.table == name)
    values = train[feature_column(feature)].cast(pl.Float64).drop_nulls().drop_nans()
    if values.is_empty():
        return []
    inner = np.linspace(0, 1, table.buckets + 1)[1:-1]
    return list(np.unique(np.quantile(values.to_numpy(), inner)))


def encode(samples: pl.DataFrame, spec: Spec, encoders: Encoders) -> pl.DataFrame:
    """Every feature column as the model reads it: int32, list of int32, or float32 without nulls."""
    columns = []
    for name, feature in spec.sparse_features.items():
        raw, table = samples[feature_column(name)], spec.tables[feature.table]
        if isinstance(feature, IdFeature):
            encoded = _index(raw, feature.table, table, encoders)
        else:
            values, offsets = _flatten(raw)
            encoded = list_series(_index(values, feature.table, table, encoders), offsets)
        columns.append(encoded.alias(feature_column(name)))
    for name in spec.dense_features:
        norm = encoders.normalisers.get(name, Normaliser(mean=0.0, std=1.0))
        values = (samples[feature_column(name)] - norm.mean) / norm.std
        columns.append(values.fill_null(0.0).cast(pl.Float32).alias(feature_column(name)))
    return samples.with_columns(columns)


def _index(values: pl.Series, name: str, table: AnyTable, encoders: Encoders) -> pl.Series:
    """The row of each value in its embedding table; row 0 for a missing value, and for one without a row."""
    match table:
        case VocabTable():
            vocabulary = encoders.vocabularies[name].select("value", "index")
            found = values.alias("value").to_frame().join(vocabulary, on="value", how="left", maintain_order="left")
            return found["index"].fill_null(0)
        case HashTable():
            return hash_index(values, table.rows)
        case QuantileTable():
            numbers = values.cast(pl.Float64).fill_null(np.nan).to_numpy()
            bucket = 1 + np.searchsorted(np.array(encoders.boundaries[name]), numbers, side="right")
            return pl.Series(np.where(np.isnan(numbers), 0, bucket).astype(np.int32))


def _flatten(lists: pl.Series) -> tuple[pl.Series, np.ndarray]:
    """The values of a list column and its n + 1 offsets; a null is an empty list."""
    lengths = lists.list.len().fill_null(0).to_numpy()
    arrow = lists.to_arrow()
    assert isinstance(arrow, pa.LargeListArray)
    return pl.Series(lists.name, arrow.flatten()), np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])


def median_labels(train: pl.DataFrame, spec: Spec, encoders: Encoders) -> dict[str, list[float]]:
    """Per objective with `baseline_by`: the median training label for each index of that (encoded) feature.

    An index without a training row gets the median over all rows.
    """
    baselines = {}
    for name, objective in spec.objectives.items():
        if objective.kind == "regression" and objective.baseline_by:
            feature = spec.sparse_features[objective.baseline_by]
            learned = train.filter(learned_rows(spec, name))
            index, label = feature_column(objective.baseline_by), label_column(name)
            medians = learned.drop_nulls(label).group_by(index).agg(pl.col(label).median()).sort(index)
            every = np.full(encoders.rows(feature.table, spec.tables[feature.table]), learned[label].median())
            every[medians[index].to_numpy()] = medians[label].to_numpy()
            baselines[name] = every.tolist()
    return baselines
