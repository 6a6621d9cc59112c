"""Feature values as they are before encoding: one column per feature, from sources, lists and histories."""

from collections.abc import Mapping

import numpy as np
import polars as pl

from pipeline.columns import EVENT_TIME, feature_column
from pipeline.samples.frames.history import VALUE, Spans
from pipeline.spec.features import DenseFeature, HistoryFeature, IdFeature, IdListFeature
from pipeline.spec.spec import Spec
from pipeline.sql.expressions import parse


def append_features(samples: pl.LazyFrame, spans: Mapping[str, Spans], spec: Spec) -> pl.LazyFrame:
    """Adds `feature_<name>` for every feature: an id, or a number after log1p (float64 if it is standardised later).

    An id_list stays the text that it is split from. A history is the length of its span of past values, with its
    start in `start_column(name)`. Lists would cost the most, so they are made only when samples are written.
    """
    columns: list[pl.Expr | pl.Series] = []
    for name, feature in spec.features.items():
        if isinstance(feature, HistoryFeature):
            columns.append(pl.Series(start_column(name), spans[name].start.astype(np.int32)))
            columns.append(pl.Series(feature_column(name), spans[name].length.astype(np.int32)))
        else:
            columns.append(value_of(name, feature).alias(feature_column(name)))
    return samples.with_columns(columns)


def start_column(history: str) -> str:
    return f" start of {history}"


def past_values(events: pl.DataFrame, feature: HistoryFeature, user: str) -> pl.DataFrame:
    """`user`, `event_time_ms` and `value` of the events that a history is about."""
    past = events.lazy()
    if feature.where:
        past = past.filter(parse(feature.where))
    return past.select(pl.col(user).alias("user"), EVENT_TIME, parse(feature.of).alias(VALUE)).collect()


def value_of(name: str, feature: IdFeature | IdListFeature | DenseFeature) -> pl.Expr:
    """A feature's value, by its source expression."""
    value = parse(feature.source or name)
    if not isinstance(feature, DenseFeature):
        return value
    number = value.cast(pl.Float64)
    finite = pl.when(number.is_finite()).then(number)
    # log1p as an odd function, so that a negative number has a value as well.
    number = finite.abs().log1p() * finite.sign() if "log1p" in feature.normalise else finite
    return number if "standardise" in feature.normalise else number.cast(pl.Float32)


def split_list(texts: pl.Series, feature: IdListFeature) -> pl.Series:
    """The elements of each text without spaces and empty ones; an empty list for a null."""
    items = texts.fill_null("").str.split(feature.separator).list.eval(pl.element().str.strip_chars())
    return items.list.eval(pl.element().filter(pl.element() != "")).list.head(feature.max_length)
