"""Checks every expression of a spec before any data is read: does it evaluate, and does it see its own future?

The expressions are run on frames without rows, whose columns have the declared types; what each may see is
decided here, in one place:

- derived columns, feature sources and counter keys: impression, profile and derived columns, never an outcome;
- feature sources also: trailing counters;
- labels, sample spaces, scenes, sample weights, the filter and down-sampling: all of these, and outcomes;
- measures of counters, values and conditions of histories: columns of the impression and of the event itself, because
  both count only events of the past (completed days, or strictly before the impression).
"""

from pathlib import Path

import polars as pl

from pipeline.columns import IMPRESSION_TIME, LOCAL_DAY
from pipeline.spec.features import (
    BucketTable,
    DenseFeature,
    HistoryFeature,
    IdFeature,
    IdListFeature,
    QuantileTable,
    VocabTable,
)
from pipeline.spec.spec import Spec
from pipeline.sql.checker import Checker
from pipeline.sql.types import BUILT_IN, Schema, schema


def outcome_columns(spec: Spec) -> Schema:
    """What a sample learns only after its impression: the outcome columns, or each event and its values."""
    impression = schema(spec.logs.impression)
    outcomes: Schema = {name: impression[name] for name in spec.logs.impression.outcomes}
    for name, event in spec.logs.events.items():
        outcomes |= {name: pl.Boolean()} | {value: schema(event)[value] for value in event.values}
    return outcomes


def check_lineage(spec: Spec, source: Path) -> None:
    """Tries every expression of a spec; `source` is the spec's file, for errors.

    Raises StrataError naming the key for an expression that does not parse, names a column that does not exist, has
    the wrong type or is no function of one row; for a feature that sees an outcome; for a column that is declared
    twice; and for features that share a table but not a type.
    """
    check = Checker(source)
    outcomes = outcome_columns(spec)
    known = _raw_columns(spec, outcomes, check)
    if spec.logs.day:
        # The day is found before the profiles are joined.
        shown = {name: known[name] for name in spec.logs.impression.columns if name not in outcomes}
        shown |= {name: BUILT_IN[name] for name in (IMPRESSION_TIME, LOCAL_DAY)}
        type_ = check.type_of("logs.day", spec.logs.day, shown, outcomes)
        if not isinstance(type_, pl.Date | pl.Datetime):
            check.refuse("logs.day", f"`{spec.logs.day}` is {type_}", "it must be a date")
    for name, expression in spec.columns.items():
        check.new_column(f"columns.{name}", name, known | outcomes)
        known[name] = check.type_of(f"columns.{name}", expression, known | BUILT_IN, outcomes)
    counters = _check_counters(spec, known, outcomes, check)
    _check_features(spec, known, counters, outcomes, check)
    everything = known | BUILT_IN | outcomes | counters
    for name, objective in spec.objectives.items():
        check.number(f"objectives.{name}.label", objective.label, everything)
        if objective.where:
            check.condition(f"objectives.{name}.where", objective.where, everything)
    for name, scene in spec.scenes.items():
        check.condition(f"scenes.{name}.where", scene.where, everything)
    if spec.filter:
        check.condition("filter", spec.filter, everything)
    for at, rule in enumerate(spec.downsample):
        check.condition(f"downsample.{at}.where", rule.where, everything)
    if spec.sample_weight:
        check.number("sample_weight", spec.sample_weight, everything)


def _raw_columns(spec: Spec, outcomes: Schema, check: Checker) -> Schema:
    """Impression and profile columns; the checks of every raw table are tried on its columns."""
    for name, table in spec.logs.tables().items():
        for condition in table.checks:
            check.condition(f"logs.{name}.checks", condition, schema(table))
    known = {name: type_ for name, type_ in schema(spec.logs.impression).items() if name not in outcomes}
    for column in spec.logs.impression.columns:
        check.new_column(f"logs.impression.columns.{column}", column, ())
    taken = {*spec.logs.impression.columns}
    for name, event in spec.logs.events.items():
        place = f"logs.events.{name}"
        check.new_column(place, name, taken)
        taken.add(name)
        for value, how in event.values.items():
            check.new_column(f"{place}.values.{value}", value, taken)
            taken.add(value)
            type_ = schema(event)[value]
            if how == "sum" and not (type_.is_numeric() or isinstance(type_, pl.Boolean)):
                check.refuse(f"{place}.values.{value}", f"`{value}` is {type_}", "it must be a number")
    for name, profile in spec.logs.profiles.items():
        for column in profile.values:
            check.new_column(f"logs.profiles.{name}.columns.{column}", column, known | outcomes)
            known[column] = schema(profile)[column]
    return known


def _check_counters(spec: Spec, known: Schema, outcomes: Schema, check: Checker) -> Schema:
    if not spec.counters:
        return {}
    for by, key in spec.counters.by.items():
        expression = f'"{key}"' if key in known else key  # names in raw logs may need quotes
        check.type_of(f"counters.by.{by}", expression, known, outcomes)
        if key not in known:
            check.refuse(f"counters.by.{by}", f"`{key}` is no column", "give it a name under `columns`")
    for name, measure in spec.counters.measures.items():
        columns = event_columns(spec, measure.event, known, outcomes)
        if measure.where:
            check.condition(f"counters.measures.{name}.where", measure.where, columns)
        if measure.mean:
            check.number(f"counters.measures.{name}.mean", measure.mean, columns)
    taken = {*known, *outcomes}
    for column in spec.counters.columns():
        check.new_column("counters", column, taken)
        taken.add(column)
    return dict.fromkeys(spec.counters.columns(), pl.Float64())


def event_columns(spec: Spec, event: str, known: Schema, outcomes: Schema) -> Schema:
    """What is known of one past event. In event logs an impression has no outcomes: those are events themselves."""
    if event == "impression":
        return known | BUILT_IN | (outcomes if spec.logs.impression.outcomes else {})
    return known | BUILT_IN | {value: outcomes[value] for value in spec.logs.events[event].values}


def _check_features(
    spec: Spec,
    known: Schema,
    counters: Schema,
    outcomes: Schema,
    check: Checker,
) -> None:
    visible = known | BUILT_IN | counters
    types: dict[str, tuple[str, pl.DataType]] = {}
    for name, feature in spec.features.items():
        place = f"features.{name}"
        if isinstance(feature, HistoryFeature):
            columns = event_columns(spec, feature.event, known, outcomes)
            type_ = check.type_of(f"{place}.of", feature.of, columns)
            if feature.where:
                check.condition(f"{place}.where", feature.where, columns)
        else:
            key = f"{place}.source" if feature.source else place
            type_ = check.type_of(key, feature.source or name, visible, outcomes)
        if isinstance(feature, IdListFeature) and not isinstance(type_, pl.String):
            check.refuse(place, f"is {type_}", "an id_list is split from a string column")
        table = None if isinstance(feature, DenseFeature) else spec.tables[feature.table]
        if isinstance(feature, DenseFeature) or (
            isinstance(feature, IdFeature) and isinstance(table, QuantileTable | BucketTable)
        ):
            check.number(place, feature.source or name, visible)
        elif isinstance(table, VocabTable):
            first, first_type = types.setdefault(feature.table, (name, type_))
            if first_type != type_:
                check.refuse(
                    place,
                    f"is {type_}, but {first} is {first_type}, and both use the table {feature.table}",
                    "features that share a table need the same type",
                )
