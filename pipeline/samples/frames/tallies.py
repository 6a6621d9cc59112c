"""Tallies: what learning and the data report need to know of many samples, in forms that add up.

Counts are whole numbers and sums of labels are decimals, so they are the same however the rows are divided. Sums of
features are floats, whose last digits depend on the order of adding. They are kept by slot of the users' hash
(`stages/deal.py`): rows have one order within a slot, and slots are added in their order.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date

import numpy as np
import polars as pl

from pipeline.columns import DAY, feature_column, label_column, mask_column, scene_column
from pipeline.samples.frames.counters import EXACT
from pipeline.samples.frames.dictionary import DictionaryEncoded
from pipeline.samples.frames.features import split_list, start_column
from pipeline.samples.frames.hashing import mixed_hash
from pipeline.samples.frames.history import Spans, lists_of_spans
from pipeline.samples.frames.labels import learned_rows
from pipeline.spec.features import (
    DenseFeature,
    HashTable,
    HistoryFeature,
    IdFeature,
    IdListFeature,
    QuantileTable,
    SparseFeature,
    VocabTable,
)
from pipeline.spec.spec import Spec

SKETCH = 1024  # smallest hashes kept of a table's ids: enough to estimate their number within 3 %
SIGNIFICANT_BITS = 16
VALUE, COUNT, SLOT = "value", "count", " slot and block"
TALLY = {
    "what": pl.String(),
    "scene": pl.String(),
    "name": pl.String(),
    "at": pl.Int64(),
    "rows": pl.Int64(),
    "sum": EXACT,
    "min": pl.Float64(),
    "max": pl.Float64(),
}
SUMS = {
    DAY: pl.Date(),
    SLOT: pl.Int64(),
    "feature": pl.String(),
    COUNT: pl.Int64(),
    "sum": pl.Float64(),
    "squares": pl.Float64(),
}


@dataclass(frozen=True)
class Tallies:
    """Tallies of some samples. `values` counts, per vocab or quantile table, how often each value was shown, by day."""

    values: dict[str, pl.DataFrame]
    sums: pl.DataFrame
    """Per day, slot and standardised feature: count, sum and sum of squares."""
    tally: pl.DataFrame
    """Per day: `rows` (of a scene), `label`s, `missing` values and `length`s of lists; see TALLY."""
    sketches: dict[str, np.ndarray]
    """Per hash table the smallest hashes of the ids that it was given."""


def tallies(samples: DictionaryEncoded, past: Mapping[str, pl.Series], spec: Spec) -> Tallies:
    """`samples` has the columns of the store, features not encoded yet, `day` and SLOT; `past` is by history."""
    return Tallies(
        values=_values(samples, past, spec),
        sums=_sums(samples.rows, spec),
        tally=_tally(samples, spec),
        sketches=_sketches(samples, spec),
    )


def merge(parts: list[Tallies]) -> Tallies:
    """Adds up tallies of different rows."""
    return Tallies(
        values={name: add_values([part.values[name] for part in parts]) for name in parts[0].values},
        sums=pl.concat([part.sums for part in parts]),
        tally=add_tallies([part.tally for part in parts]),
        sketches={name: smallest([part.sketches[name] for part in parts]) for name in parts[0].sketches},
    )


def add_values(parts: list[pl.DataFrame]) -> pl.DataFrame:
    return pl.concat(parts).group_by(DAY, VALUE).agg(pl.col(COUNT).sum())


def add_tallies(parts: list[pl.DataFrame]) -> pl.DataFrame:
    by = [DAY, "what", "scene", "name", "at"]
    sums = (pl.col("rows").sum(), pl.col("sum").sum(), pl.col("min").min(), pl.col("max").max())
    return pl.concat(parts).group_by(by).agg(sums)


def _values(samples: DictionaryEncoded, past: Mapping[str, pl.Series], spec: Spec) -> dict[str, pl.DataFrame]:
    found: dict[str, list[pl.DataFrame]] = {}
    for name, feature in spec.sparse_features.items():
        table = spec.tables[feature.table]
        if not isinstance(table, VocabTable | QuantileTable):
            continue
        for day, rows in _by_day(samples.rows):
            if isinstance(feature, HistoryFeature):
                if not _shows_something_new(feature, spec):
                    continue
                counts = _count_past(rows, past[name], name)
            else:
                counts = _count_codes(rows[feature_column(name)], samples.values[name])
            if isinstance(feature, IdListFeature):
                counts = counts.with_columns(split_list(counts[VALUE], feature)).explode(VALUE, empty_as_null=False)
            if isinstance(table, QuantileTable):
                counts = counts.with_columns(significant(counts[VALUE].cast(pl.Float64)))
            found.setdefault(feature.table, []).append(
                counts.drop_nulls(VALUE).select(pl.lit(day).alias(DAY), VALUE, COUNT)
            )
    return {name: add_values(parts) for name, parts in found.items()}


def _count_codes(codes: pl.Series, values: pl.Series) -> pl.DataFrame:
    """How often each value is shown."""
    counts = np.bincount(codes.to_numpy(), minlength=len(values) + 1)[1:]
    return pl.DataFrame({VALUE: values, COUNT: pl.Series(counts, dtype=pl.Int64)}).filter(pl.col(COUNT) > 0)


def _count_past(rows: pl.DataFrame, past: pl.Series, name: str) -> pl.DataFrame:
    """How often each past value is in the histories of the rows."""
    spans = Spans(rows[start_column(name)].to_numpy(), rows[feature_column(name)].to_numpy())
    shown = lists_of_spans(past, spans).explode(empty_as_null=False).alias(VALUE)
    return shown.value_counts(name=COUNT).with_columns(pl.col(COUNT).cast(pl.Int64))


def _shows_something_new(history: HistoryFeature, spec: Spec) -> bool:
    """Ids count where they were shown. A history that repeats the ids of another feature is not counted again."""
    others = {name: f for name, f in spec.sparse_features.items() if f.table == history.table}
    return history.of not in {f.source or n for n, f in others.items() if not isinstance(f, HistoryFeature)}


def significant(values: pl.Series) -> pl.Series:
    """Numbers rounded to SIGNIFICANT_BITS: few enough to count each. Null if not finite."""
    mantissa, exponent = np.frexp(values.fill_null(np.nan).to_numpy())
    with np.errstate(invalid="ignore"):
        rounded = np.ldexp(np.rint(mantissa * 2**SIGNIFICANT_BITS), exponent - SIGNIFICANT_BITS)
    return pl.Series(values.name, np.where(np.isfinite(rounded), rounded, np.nan)).fill_nan(None)


def _sums(samples: pl.DataFrame, spec: Spec) -> pl.DataFrame:
    slots, slot = np.unique(samples[SLOT].to_numpy(), return_inverse=True)
    parts = [pl.DataFrame(schema=SUMS)]
    for day, rows in _by_day(samples.select(DAY, *map(feature_column, spec.standardised)).with_row_index("row")):
        of_row = slot[rows["row"].to_numpy()]
        found: dict[str, list[np.ndarray]] = {COUNT: [], "sum": [], "squares": []}
        all_rows = np.bincount(of_row, minlength=len(slots))
        for name in spec.standardised:
            column, at, count = rows[feature_column(name)], of_row, all_rows
            if column.null_count():
                at, column = of_row[column.is_not_null().to_numpy()], column.drop_nulls()
                count = np.bincount(at, minlength=len(slots))
            found[COUNT].append(count)
            values = column.to_numpy()
            # bincount adds one value after the other: sums depend on the order (see the top of this file).
            found["sum"].append(np.bincount(at, weights=values, minlength=len(slots)))
            found["squares"].append(np.bincount(at, weights=values * values, minlength=len(slots)))
        if spec.standardised:
            features = pl.Series("feature", np.repeat(spec.standardised, len(slots)), dtype=pl.String)
            sums = {what: np.concatenate(of_features) for what, of_features in found.items()}
            of_day = pl.DataFrame({SLOT: np.tile(slots, len(spec.standardised)), "feature": features, **sums})
            of_day = of_day.with_columns(pl.lit(day).alias(DAY))
            parts.append(of_day.select(pl.col(column).cast(type_) for column, type_ in SUMS.items()))
    return pl.concat(parts)


def _by_day(samples: pl.DataFrame) -> Iterable[tuple[date, pl.DataFrame]]:
    """The rows of one partition and local day, by the day of filing; nearly always there is one."""
    days = samples[DAY].unique(maintain_order=True).to_list()
    return [(day, samples if len(days) == 1 else samples.filter(pl.col(DAY) == day)) for day in days]


def _tally(samples: DictionaryEncoded, spec: Spec) -> pl.DataFrame:
    parts = [pl.DataFrame(schema={DAY: pl.Date(), **TALLY})]
    for day, rows in _by_day(samples.rows):
        lists = {name: f for name, f in spec.sparse_features.items() if not isinstance(f, IdFeature)}
        lengths = [part for name, f in lists.items() for part in _lengths(rows, name, f, samples.values.get(name))]
        of_day = pl.concat([_counts(rows, spec), *lengths])
        parts.append(of_day.select(pl.lit(day).alias(DAY), *TALLY))
    return pl.concat(parts)


def _counts(rows: pl.DataFrame, spec: Spec) -> pl.DataFrame:
    """Counts rows of scenes, labels where a scene learns them, and missing values, in one pass over a day."""
    counted: list[dict[str, str | None]] = [{"what": "rows", "scene": None, "name": ""}]
    masks = [pl.col(DAY).is_not_null()]
    for scene in spec.scenes:
        counted.append({"what": "rows", "scene": scene, "name": ""})
        masks.append(pl.col(scene_column(scene)))
    for name in spec.objectives:
        counted.append({"what": "label", "scene": None, "name": name})
        masks.append(learned_rows(spec, name))
        for scene, declared in spec.scenes.items():
            if name in declared.weights:
                counted.append({"what": "label", "scene": scene, "name": name})
                masks.append(pl.col(scene_column(scene)) & pl.col(mask_column(name)))
    for name, feature in spec.features.items():
        if not isinstance(feature, IdListFeature):
            value = pl.col(feature_column(name))
            counted.append({"what": "missing", "scene": None, "name": name})
            masks.append(value.is_null() if isinstance(feature, DenseFeature) else value == 0)
    columns = []
    for at, (one, mask) in enumerate(zip(counted, masks, strict=True)):
        columns.append(mask.sum().cast(pl.Int64).alias(f"rows {at}"))
        if one["what"] == "label":
            label = pl.col(label_column(str(one["name"]))).filter(mask).cast(pl.Float64)
            columns.append(label.cast(EXACT, strict=False).sum().alias(f"sum {at}"))
            columns += [label.min().alias(f"min {at}"), label.max().alias(f"max {at}")]
    found = rows.select(columns).row(0, named=True)
    values = ({c: found.get(f"{c} {at}") for c in ("rows", "sum", "min", "max")} for at in range(len(counted)))
    return pl.DataFrame([one | {"at": 0} | of_one for one, of_one in zip(counted, values, strict=True)], schema=TALLY)


def _lengths(rows: pl.DataFrame, name: str, feature: SparseFeature, texts: pl.Series | None) -> list[pl.DataFrame]:
    """Counts the rows of a day by the length of a list or history. A list without elements is a missing value."""
    at = rows[feature_column(name)].to_numpy()
    if isinstance(feature, IdListFeature):
        assert texts is not None
        at = np.append(0, split_list(texts, feature).list.len().to_numpy())[at]
    counts = np.bincount(at)
    found = pl.DataFrame({"at": np.flatnonzero(counts), "rows": counts[counts > 0]})
    parts = [("length", found)]
    if isinstance(feature, IdListFeature):
        parts.append(("missing", found.filter(pl.col("at") == 0)))
    constants = {"scene": None, "name": name, "sum": None, "min": None, "max": None}
    return [
        part.with_columns(pl.lit(what).alias("what"), *(pl.lit(v).alias(c) for c, v in constants.items())).select(
            pl.col(column).cast(type_) for column, type_ in TALLY.items()
        )
        for what, part in parts
    ]


def _sketches(samples: DictionaryEncoded, spec: Spec) -> dict[str, np.ndarray]:
    found = {}
    for name, table in spec.tables.items():
        if isinstance(table, HashTable):
            ids = [
                split_list(values, feature).explode() if isinstance(feature, IdListFeature) else values
                for f, values in samples.values.items()
                if (feature := spec.sparse_features[f]).table == name
            ]
            found[name] = smallest(mixed_hash(values.drop_nulls()) for values in ids)
    return found


def smallest(hashes: Iterable[np.ndarray]) -> np.ndarray:
    """The SKETCH smallest different hashes."""
    kept: np.ndarray = np.unique(np.concatenate([np.array([], np.uint64), *hashes]))[:SKETCH]
    return kept


def distinct_ids(sketch: np.ndarray) -> int:
    """The number of ids from their smallest hashes: k - 1 of them lie below the k-th (Bar-Yossef et al., 2002)."""
    if len(sketch) < SKETCH:
        return len(sketch)
    return round((len(sketch) - 1) / (float(sketch[-1]) / 2**64))
