"""Feature values as they are before encoding: one column per feature, from sources, lists and histories."""

import polars as pl

from pipeline.raw.expressions import parse
from pipeline.samples.attribution import EVENT_TIME
from pipeline.samples.history import append_history
from pipeline.spec import DenseFeature, HistoryFeature, IdFeature, IdListFeature, Spec, feature_column


def append_features(samples: pl.DataFrame, events: dict[str, pl.DataFrame], spec: Spec) -> pl.DataFrame:
    """Adds `feature_<name>` for every feature: an id, a list of ids, or a number (float64, after log1p).

    `events` has for each kind of event its rows with `event_time_ms`, the impression's columns and its own values.
    """
    samples = samples.with_columns(
        value_of(name, feature).alias(feature_column(name))
        for name, feature in spec.features.items()
        if not isinstance(feature, HistoryFeature)
    )
    for name, feature in spec.features.items():
        if isinstance(feature, HistoryFeature):
            past = events[feature.event].lazy()
            if feature.where:
                past = past.filter(parse(feature.where))
            past = past.select(user=spec.logs.impression.user, time_ms=EVENT_TIME, value=parse(feature.of))
            samples = append_history(
                samples,
                past.collect(),
                user=spec.logs.impression.user,
                time=spec.logs.impression.time,
                name=feature_column(name),
                last=feature.last,
            )
    return samples


def value_of(name: str, feature: IdFeature | IdListFeature | DenseFeature) -> pl.Expr:
    """A feature's value, by its source expression; the elements of a list without spaces and empty ones."""
    value = parse(feature.source or name)
    match feature:
        case IdFeature():
            return value
        case IdListFeature():
            items = value.str.split(feature.separator).list.eval(pl.element().str.strip_chars())
            return items.list.eval(pl.element().filter(pl.element() != "")).list.head(feature.max_length)
        case DenseFeature():
            number = value.cast(pl.Float64)
            finite = pl.when(number.is_finite()).then(number)
            # log1p continued as an odd function, so that a negative number has a value as well.
            return finite.abs().log1p() * finite.sign() if "log1p" in feature.normalise else finite
