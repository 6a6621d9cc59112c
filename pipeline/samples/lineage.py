"""Checks every expression of a spec before any data is read: does it evaluate, and does it see its own future?

The expressions are run on frames without rows, whose columns have the declared types; what each may see is
decided here, in one place:

- derived columns, feature sources and counter keys: impression, profile and derived columns, never an outcome;
- feature sources also: trailing counters;
- labels, sample spaces, scenes and sample weights: all of these, and outcomes;
- measures of counters, values and conditions of histories: columns of the impression and of the event itself, because
  both count only events of the past (completed days, or strictly before the impression).
"""

from collections.abc import Container
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import polars as pl

from pipeline.errors import StrataError
from pipeline.raw.expressions import parse
from pipeline.raw.reading import schema
from pipeline.spec import DenseFeature, HistoryFeature, IdListFeature, Spec, VocabTable

IMPRESSION_TIME, DAY, LOCAL_DAY = "impression_time", "day", "local_day"
BUILT_IN = {IMPRESSION_TIME: pl.Datetime("ms"), DAY: pl.Date(), LOCAL_DAY: pl.Date()}


@dataclass(frozen=True)
class Columns:
    """Which columns exist at each stage, with their types."""

    known: dict[str, pl.DataType]
    """Known at the impression: impression, profile and derived columns."""
    outcomes: dict[str, pl.DataType]
    """Known only later: outcome columns of interaction logs, attributed events and their values."""
    counters: dict[str, pl.DataType]
    """Trailing counters."""


def outcome_columns(spec: Spec) -> dict[str, pl.DataType]:
    """What a sample learns only after its impression: the outcome columns, or each event and its values."""
    impression = schema(spec.logs.impression)
    outcomes: dict[str, pl.DataType] = {name: impression[name] for name in spec.logs.impression.outcomes}
    for name, event in spec.logs.events.items():
        outcomes |= {name: pl.Boolean()} | {value: schema(event)[value] for value in event.values}
    return outcomes


def check_lineage(spec: Spec, source: Path) -> Columns:
    """The columns of each stage; `source` is the spec's file, for errors.

    Raises StrataError naming the key for an expression that does not parse, names a column that does not exist
    or has the wrong type; for a feature that sees an outcome; for a column that is declared twice; and for
    features that share a table but not a type.
    """
    check = _Checker(source)
    outcomes = outcome_columns(spec)
    known = _raw_columns(spec, outcomes, check)
    if spec.logs.day:
        check.type_of("logs.day", spec.logs.day, known | BUILT_IN, forbidden=outcomes)
    for name, expression in spec.columns.items():
        check.new_column(f"columns.{name}", name, known | outcomes)
        known[name] = check.type_of(f"columns.{name}", expression, known | BUILT_IN, forbidden=outcomes)
    counters = _check_counters(spec, known, outcomes, check)
    _check_features(spec, known, counters, outcomes, check)
    everything = known | BUILT_IN | outcomes | counters
    for name, objective in spec.objectives.items():
        check.type_of(f"objectives.{name}.label", objective.label, everything)
        if objective.where:
            check.condition(f"objectives.{name}.where", objective.where, everything)
    for name, scene in spec.scenes.items():
        check.condition(f"scenes.{name}.where", scene.where, everything)
    if spec.sample_weight:
        check.type_of("sample_weight", spec.sample_weight, everything)
    return Columns(known, outcomes, counters)


def _raw_columns(spec: Spec, outcomes: dict[str, pl.DataType], check: "_Checker") -> dict[str, pl.DataType]:
    """Impression and profile columns; the checks of every raw table are tried on its columns."""
    for name, table in spec.logs.tables().items():
        for condition in table.checks:
            check.condition(f"logs.{name}.checks", condition, schema(table))
    known = {name: type_ for name, type_ in schema(spec.logs.impression).items() if name not in outcomes}
    for name in spec.logs.events:
        check.new_column(f"logs.events.{name}", name, known)
        for value in spec.logs.events[name].values:
            others = {v for e, event in spec.logs.events.items() for v in event.values if e != name}
            check.new_column(f"logs.events.{name}.values.{value}", value, others | known.keys())
    for name, profile in spec.logs.profiles.items():
        for column, type_ in schema(profile).items():
            if column != profile.key:
                check.new_column(f"logs.profiles.{name}.columns.{column}", column, known | outcomes)
                known[column] = type_
    return known


def _check_counters(
    spec: Spec, known: dict[str, pl.DataType], outcomes: dict[str, pl.DataType], check: "_Checker"
) -> dict[str, pl.DataType]:
    if not spec.counters:
        return {}
    for by, key in spec.counters.by.items():
        check.type_of(f"counters.by.{by}", key, known, forbidden=outcomes)
    for name, measure in spec.counters.measures.items():
        columns = event_columns(spec, measure.event, known, outcomes)
        if measure.where:
            check.condition(f"counters.measures.{name}.where", measure.where, columns)
        if measure.mean:
            check.number(f"counters.measures.{name}.mean", measure.mean, columns)
    for column in spec.counters.columns():
        check.new_column("counters", column, known | outcomes)
    return dict.fromkeys(spec.counters.columns(), pl.Float64())


def event_columns(
    spec: Spec, event: str, known: dict[str, pl.DataType], outcomes: dict[str, pl.DataType]
) -> dict[str, pl.DataType]:
    """What is known of one past event. In event logs an impression has no outcomes: those are events themselves."""
    if event == "impression":
        return known | BUILT_IN | (outcomes if spec.logs.impression.outcomes else {})
    return known | BUILT_IN | {value: outcomes[value] for value in spec.logs.events[event].values}


def _check_features(
    spec: Spec,
    known: dict[str, pl.DataType],
    counters: dict[str, pl.DataType],
    outcomes: dict[str, pl.DataType],
    check: "_Checker",
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
            type_ = check.type_of(key, feature.source or name, visible, forbidden=outcomes)
        if isinstance(feature, IdListFeature) and not isinstance(type_, pl.String):
            check.refuse(place, f"is {type_}", "an id_list is split from a string column")
        if isinstance(feature, DenseFeature):
            if not (type_.is_numeric() or isinstance(type_, pl.Boolean)):
                check.refuse(place, f"is {type_}", "a dense feature is a number")
        elif isinstance(spec.tables[feature.table], VocabTable):
            first, first_type = types.setdefault(feature.table, (name, type_))
            if first_type != type_:
                check.refuse(place, f"is {type_}, but {first} is {first_type}, and both use the table {feature.table}",
                             "features that share a table need the same type")  # fmt: skip


class _Checker:
    """Evaluates expressions on frames without rows; every refusal names the spec's file and the key."""

    def __init__(self, source: Path) -> None:
        self.source = source

    def refuse(self, key: str, found: str, right: str) -> NoReturn:
        raise StrataError(f"{key}: {found}", where=self.source, fix=right)

    def new_column(self, key: str, name: str, taken: Container[str]) -> None:
        if name in taken or name in BUILT_IN:
            self.refuse(key, f"there is another column `{name}`", "give one of the two another name")

    def type_of(
        self,
        key: str,
        expression: str,
        columns: dict[str, pl.DataType],
        forbidden: dict[str, pl.DataType] | None = None,
    ) -> pl.DataType:
        """The type that an SQL expression has over these columns."""
        try:
            parsed = parse(expression)
            for name in parsed.meta.root_names():
                if name in (forbidden or {}):
                    self.refuse(key, f"`{name}` is an outcome, known only after the impression",
                                "features may use outcomes only through counters and histories")  # fmt: skip
                if name not in columns:
                    self.refuse(key, f"there is no column `{name}`", f"it can use {', '.join(columns)}")
            return pl.DataFrame(schema=columns).select(parsed.alias("value")).schema["value"]
        except pl.exceptions.PolarsError as error:
            self.refuse(key, f"`{expression}` does not evaluate ({str(error).splitlines()[0]})", "correct the SQL")

    def condition(self, key: str, expression: str, columns: dict[str, pl.DataType]) -> None:
        type_ = self.type_of(key, expression, columns)
        if not isinstance(type_, pl.Boolean):
            self.refuse(key, f"`{expression}` is {type_}", "a condition must be true or false")

    def number(self, key: str, expression: str, columns: dict[str, pl.DataType]) -> None:
        type_ = self.type_of(key, expression, columns)
        if not type_.is_numeric():
            self.refuse(key, f"`{expression}` is {type_}", "a mean needs a number")
