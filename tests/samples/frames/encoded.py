"""Samples to encode, and encoders fitted to them."""

from collections.abc import Mapping
from datetime import date
from typing import Any

import polars as pl

from pipeline.samples.frames.dictionary import dictionary_encode
from pipeline.samples.frames.encoding import (
    Encoders,
    encode,
    encode_past,
    fit_normalisers,
    fit_quantiles,
    fit_vocabulary,
)
from pipeline.samples.frames.tallies import COUNT, SLOT, VALUE, tallies
from pipeline.spec.features import QuantileTable, VocabTable
from pipeline.spec.spec import Spec


def spec(tables: dict[str, Any], features: dict[str, Any], **objective: Any) -> Spec:
    types = {"user": "int64", "video": "int64", "ms": "int64", "x": "float64", "tags": "string", "click": "bool"}
    content = {
        "name": "small",
        "logs": {
            "impression": {
                "files": "log",
                "columns": types,
                "id": ["user", "video", "ms"],
                "user": "user",
                "video": "video",
                "time": "ms",
                "outcomes": ["click"],
            }
        },
        "tables": tables,
        "features": features,
        "objectives": {"goal": {"kind": "binary", "label": "click"} | objective},
        "scenes": {"all": {"where": "true", "weights": {"goal": 1}}},
    }
    return Spec.model_validate(content)


def column(name: str, values: list[Any], dtype: Any = None) -> pl.DataFrame:
    return pl.DataFrame({f"feature_{name}": pl.Series(values, dtype=dtype)})


Past = Mapping[str, pl.Series]


NO_PAST: Past = {}


def fit(train: pl.DataFrame, of: Spec, past: Past = NO_PAST) -> Encoders:
    """What these training rows teach."""
    constants = {SLOT: 0, "scene_all": True, "mask_goal": False, "label_goal": None, "day": date(2026, 3, 1)}
    samples = train.with_columns(pl.lit(v).alias(name) for name, v in constants.items() if name not in train.columns)
    found = tallies(dictionary_encode(samples, of), past, of)
    counts = {name: values.select(VALUE, COUNT) for name, values in found.values.items()}
    return Encoders(
        {name: fit_vocabulary(counts[name], t) for name, t in of.tables.items() if isinstance(t, VocabTable)},
        {name: fit_quantiles(counts[name], t) for name, t in of.tables.items() if isinstance(t, QuantileTable)},
        fit_normalisers(found.sums, of),
    )


def encoded(samples: pl.DataFrame, of: Spec, encoders: Encoders, past: Past = NO_PAST) -> pl.DataFrame:
    return encode(dictionary_encode(samples, of), encode_past(past, of, encoders), of, encoders)
