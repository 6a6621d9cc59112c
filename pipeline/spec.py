"""The typed spec: what a file in `feature_specs/` may say, and what of it must agree.

It knows names and types, not expressions: those are SQL over Polars columns and are checked, still before
any data is read, by `pipeline/samples/lineage.py`. Nothing learned from data belongs here.
"""

import hashlib
from datetime import date
from itertools import pairwise
from typing import Annotated, Literal, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]*$")]
ColumnType = Literal["int8", "int16", "int32", "int64", "float32", "float64", "string", "bool"]
Sql = Annotated[str, StringConstraints(min_length=1)]
# Strict: a number in quotes, or `true` for 1, is a slip.
PositiveInt = Annotated[int, Field(strict=True, ge=1)]
Rows = Annotated[int, Field(strict=True, ge=2, lt=2**31)]  # indices are stored as int32
Weight = Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False)]


class _Part(BaseModel):
    """A piece of the spec: frozen, and an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


# ---------------------------------------------------------------------------------------------- raw logs


class RawTable(_Part):
    """Files of one kind: where they lie below `--raw`, their columns, and SQL conditions each row must meet."""

    files: Annotated[str, StringConstraints(min_length=1)]
    columns: Annotated[dict[str, ColumnType], Field(min_length=1)]
    checks: tuple[Sql, ...] = ()


class Impressions(RawTable):
    """One row per video shown to a user; `time` is in ms since the epoch, UTC.

    `outcomes` names the columns of an interaction log that became known only after the impression.
    """

    id: Annotated[tuple[str, ...], Field(min_length=1)]
    user: str
    video: str
    time: str
    outcomes: tuple[str, ...] = ()


class Event(RawTable):
    """Something a user did after an impression, joined to it by the impression's id and user columns.

    The user is among them because rows are dealt to partitions by user. It counts only if it happened at most
    `within_s` seconds after the impression. `values` says how a column is combined where the same event happened more
    than once.
    """

    time: str
    within_s: PositiveInt
    values: dict[str, Literal["sum", "max", "min", "first", "last"]] = {}


class Profile(RawTable):
    """One row per user, video or the like, joined by `key`.

    With `valid_from` (a column in ms since the epoch) a key may have several rows: an impression gets the last one
    whose validity began at or before it, unless `valid_to` says that it had ended by then.
    """

    key: str
    valid_from: str | None = None
    valid_to: str | None = None

    @property
    def values(self) -> list[str]:
        """The columns that an impression gets."""
        return [column for column in self.columns if column not in (self.key, self.valid_from, self.valid_to)]


class Logs(_Part):
    """The raw logs. With `events` they are event logs; with `impression.outcomes`, interaction logs.

    `day` is the SQL expression of the day a row is filed under; by default the local date of its time.
    """

    timezone: str = "UTC"
    day: Sql | None = None
    impression: Impressions
    events: dict[Name, Event] = {}
    profiles: dict[Name, Profile] = {}

    def timed(self) -> dict[str, Impressions | Event]:
        """The raw tables whose rows happened at a time."""
        return {"impression": self.impression, **self.events}

    def tables(self) -> dict[str, RawTable]:
        """Every raw table by the name that errors and counts use for it."""
        return {"impression": self.impression, **self.events, **self.profiles}


# ---------------------------------------------------------------------------------------------- features


class Measure(_Part):
    """What a trailing counter adds up: rows of an event, or the mean of an expression over them."""

    event: str = "impression"
    where: Sql | None = None
    mean: Sql | None = None


class Counters(_Part):
    """Trailing counters over completed days: a column `<by>_<measure>_<days>d` for each combination."""

    days: Annotated[tuple[PositiveInt, ...], Field(min_length=1)]
    by: Annotated[dict[Name, str], Field(min_length=1)]
    measures: Annotated[dict[Name, Measure], Field(min_length=1)]

    def column(self, by: str, measure: str, days: int) -> str:
        return f"{by}_{measure}_{days}d"

    def columns(self) -> list[str]:
        return [self.column(by, measure, d) for by in self.by for measure in self.measures for d in self.days]


class Table(_Part):
    """An embedding table; the features that name it share it."""

    dim: PositiveInt
    pooling: Literal["sum", "mean"] = "mean"


class VocabTable(Table):
    """Ids seen at least `min_count` times in the training split, most frequent first; 0 for all others."""

    encode: Literal["vocab"]
    min_count: PositiveInt = 1


class HashTable(Table):
    """FNV-1a of the id's text, folded into `rows` - 1 rows; row 0 is for a missing id."""

    encode: Literal["hash"]
    rows: Rows


class QuantileTable(Table):
    """A number turned into the index of its quantile on the training split; 0 for a missing number."""

    encode: Literal["quantiles"]
    buckets: Rows


class BucketTable(Table):
    """A number turned into the index of its interval between declared `boundaries`; 0 for a missing number.

    A number equal to a boundary belongs to the interval above it.
    """

    encode: Literal["buckets"]
    boundaries: Annotated[tuple[float, ...], Field(min_length=1)]


AnyTable = Annotated[VocabTable | HashTable | QuantileTable | BucketTable, Field(discriminator="encode")]


class IdFeature(_Part):
    """One categorical value. `source` is an SQL expression; by default the column of the feature's name."""

    kind: Literal["id"]
    table: str
    source: Sql | None = None


class IdListFeature(_Part):
    """Several categorical values in one string, such as tags, of which the first `max_length` are kept."""

    kind: Literal["id_list"]
    table: str
    source: Sql | None = None
    separator: str = ","
    max_length: PositiveInt = 16


class HistoryFeature(_Part):
    """The values of the expression `of` in the user's `last` events of a kind, strictly before the impression."""

    kind: Literal["history"]
    table: str
    of: Sql
    event: str = "impression"
    where: Sql | None = None
    last: PositiveInt


class DenseFeature(_Part):
    """A number. A missing one becomes 0 after normalising, which is the mean if `standardise` is asked for."""

    kind: Literal["dense"]
    source: Sql | None = None
    normalise: tuple[Literal["log1p", "standardise"], ...] = ("standardise",)


SparseFeature = IdFeature | IdListFeature | HistoryFeature
AnyFeature = Annotated[SparseFeature | DenseFeature, Field(discriminator="kind")]


# --------------------------------------------------------------------------------- objectives and scenes


class BinaryObjective(_Part):
    """A yes or no, learned with the logistic loss; `where` is its sample space."""

    kind: Literal["binary"]
    label: Sql
    where: Sql | None = None


class RegressionObjective(_Part):
    """A non-negative number in `unit`, learned after `transform` and predicted in its own unit.

    The report holds it against the median training label of the rows that share the value of `baseline_by`.
    """

    kind: Literal["regression"]
    label: Sql
    where: Sql | None = None
    unit: str = ""
    transform: Literal["none", "log1p"] = "none"
    loss: Literal["mse", "mae", "huber"] = "mse"
    baseline_by: str | None = None


AnyObjective = Annotated[BinaryObjective | RegressionObjective, Field(discriminator="kind")]


class Scene(_Part):
    """A named subset of the rows, with the weight of each objective that is learned on it."""

    where: Sql
    weights: dict[str, Weight]


class Split(_Part):
    """Which days are for training, validation and test, in this order.

    Either by number, the last days of the log; or by the date on which validation and test begin, so that a day added
    to the log later changes nothing about those before it.
    """

    valid_days: PositiveInt = 1
    test_days: PositiveInt = 1
    valid_from: date | None = None
    test_from: date | None = None


class Thinning(_Part):
    """Of the training rows where `where` holds a share `keep` is kept, with a weight divided by `keep`."""

    where: Sql
    keep: Annotated[float, Field(strict=True, gt=0, le=1)]


class Spec(_Part):
    """A whole spec; samples, tables, towers, losses, metrics and report sections are derived from it."""

    name: Name
    logs: Logs
    split: Split = Split()
    columns: dict[Name, Sql] = {}
    counters: Counters | None = None
    tables: dict[Name, AnyTable]
    features: Annotated[dict[Name, AnyFeature], Field(min_length=1)]
    objectives: Annotated[dict[Name, AnyObjective], Field(min_length=1)]
    scenes: Annotated[dict[Name, Scene], Field(min_length=1)]
    filter: Sql | None = None
    """Impressions that do not meet it become no samples; histories and counters still see them."""
    downsample: tuple[Thinning, ...] = ()
    """The first that holds for a row applies."""
    sample_weight: Sql | None = None

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Self:
        _check_logs(self.logs)
        _check_split(self.split)
        _check_features(self)
        _check_scenes(self)
        return self

    def fingerprint(self) -> str:
        """Travels with samples, checkpoints and predictions; a mismatch is refused."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()

    @property
    def sparse_features(self) -> dict[str, SparseFeature]:
        return {name: f for name, f in self.features.items() if not isinstance(f, DenseFeature)}

    @property
    def dense_features(self) -> dict[str, DenseFeature]:
        return {name: f for name, f in self.features.items() if isinstance(f, DenseFeature)}

    @property
    def standardised(self) -> list[str]:
        """The dense features that need a mean and a standard deviation."""
        return [name for name, feature in self.dense_features.items() if "standardise" in feature.normalise]

    @property
    def terms(self) -> list[tuple[str, str, float]]:
        """The (scene, objective, weight) triples of the loss, in the order of the spec."""
        return [(s, o, w) for s, scene in self.scenes.items() for o, w in scene.weights.items()]


# Columns of the sample store and of stored predictions.
SAMPLE_ID, USER, TIME, WEIGHT = "sample_id", "user_id", "time_ms", "sample_weight"


def scene_column(scene: str) -> str:
    return f"scene_{scene}"


def label_column(objective: str) -> str:
    return f"label_{objective}"


def mask_column(objective: str) -> str:
    return f"mask_{objective}"


def prediction_column(objective: str) -> str:
    return f"pred_{objective}"


def truth_column(objective: str) -> str:
    """True probability of a binary objective, where logs are simulated."""
    return f"truth_{objective}"


def baseline_column(objective: str) -> str:
    """Prediction of a simple rule for a regression objective, in its unit."""
    return f"baseline_{objective}"


def feature_column(feature: str) -> str:
    return f"feature_{feature}"


def sample_columns(spec: Spec) -> list[str]:
    """The columns of the sample store, in their order."""
    return [
        *(SAMPLE_ID, USER, TIME, WEIGHT),
        *map(scene_column, spec.scenes),
        *map(label_column, spec.objectives),
        *map(mask_column, spec.objectives),
        *map(feature_column, spec.features),
    ]


# ------------------------------------------------------------------------------------- what must agree


def _require(holds: bool, key: str, found: str, right: str) -> None:
    """Refuses the spec with a message `key: found; right` that `spec_file.py` prefixes with the file."""
    if not holds:
        raise ValueError(f"{key}: {found}; {right}")


def _check_logs(logs: Logs) -> None:
    impression = logs.impression
    _require(
        bool(logs.events) != bool(impression.outcomes),
        "logs",
        "declares both `events` and `impression.outcomes`" if logs.events else "has no outcome of an impression",
        "give `events` for event logs, or `impression.outcomes` for interaction logs",
    )
    for key in (*impression.id, impression.user, impression.video, impression.time, *impression.outcomes):
        _require(key in impression.columns, "logs.impression", f"`{key}` is not declared", "add it to `columns`")
    for key in (*impression.id, impression.user, impression.video, impression.time):
        _require(key not in impression.outcomes, "logs.impression.outcomes", f"`{key}` is known at the impression",
                 "take it out")  # fmt: skip
    _check_time(impression.time, impression, "logs.impression")
    try:
        ZoneInfo(logs.timezone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        _require(False, "logs.timezone", f"there is no time zone `{logs.timezone}`", "use a name such as Asia/Shanghai")
    for name, event in logs.events.items():
        place = f"logs.events.{name}"
        _require(name != "impression", place, "is the name of the impressions", "call the event something else")
        for key in (event.time, *event.values):
            _require(key in event.columns, place, f"`{key}` is not declared", "add it to `columns`")
        _require(event.time not in impression.id, f"{place}.time", f"`{event.time}` is an id of the impression",
                 "give the event a time of its own")  # fmt: skip
        _check_time(event.time, event, place)
        for key in {*impression.id, impression.user}:
            _check_same_type(key, impression, "logs.impression", event, place)
    for name, profile in logs.profiles.items():
        place = f"logs.profiles.{name}"
        _require(name not in ("impression", *logs.events), place, "is also an event", "give the profile another name")
        _require(profile.key in profile.columns, place, f"`{profile.key}` is not declared", "add it to `columns`")
        _require(
            profile.key in impression.columns,
            f"{place}.key",
            f"`{profile.key}` is no column of the impressions",
            f"use one of {', '.join(impression.columns)}",
        )
        _require(profile.key not in impression.outcomes, f"{place}.key", f"`{profile.key}` is an outcome",
                 "a profile is joined by what is known at the impression")  # fmt: skip
        _check_same_type(profile.key, impression, "logs.impression", profile, place)
        _require(bool(profile.valid_from) or not profile.valid_to, f"{place}.valid_to", "has no `valid_from` beside it",
                 "declare when a row becomes valid")  # fmt: skip
        for column in filter(None, (profile.valid_from, profile.valid_to)):
            _require(column in profile.columns, place, f"`{column}` is not declared", "add it to `columns`")
            _check_time(column, profile, place)


def _check_split(split: Split) -> None:
    _require(bool(split.valid_from) == bool(split.test_from), "split", "has only one of valid_from and test_from",
             "give both, or valid_days and test_days")  # fmt: skip
    if split.valid_from and split.test_from:
        _require(split.valid_from < split.test_from, "split.test_from", f"{split.test_from} is not after valid_from",
                 "validation comes before the test")  # fmt: skip


def _check_time(time: str, table: RawTable, place: str) -> None:
    type_ = table.columns[time]
    _require(type_ == "int64", f"{place}.columns.{time}", f"is {type_}", "a time in ms needs int64")


def _check_same_type(key: str, left: RawTable, left_place: str, right: RawTable, right_place: str) -> None:
    _require(key in right.columns, right_place, f"`{key}` is not declared", "it joins the rows: add it to `columns`")
    _require(
        left.columns[key] == right.columns[key],
        f"{right_place}.columns.{key}",
        f"is {right.columns[key]}, but {left_place}.columns.{key} is {left.columns[key]}",
        "the two tables are joined by it: give both the same type",
    )


def _check_features(spec: Spec) -> None:
    events = {"impression", *spec.logs.events}
    _require(bool(spec.sparse_features), "features", "none of them is an id, an id_list or a history", "add one")
    for name, feature in spec.sparse_features.items():
        place = f"features.{name}"
        _require(
            feature.table in spec.tables,
            f"{place}.table",
            f"there is no table `{feature.table}`",
            f"use one of {', '.join(spec.tables)}, or declare it under `tables`",
        )
        if isinstance(feature, HistoryFeature):
            _require(feature.event in events, f"{place}.event", f"there is no event `{feature.event}`",
                     f"use one of {', '.join(sorted(events))}")  # fmt: skip
        if isinstance(spec.tables[feature.table], QuantileTable | BucketTable):
            _require(isinstance(feature, IdFeature), f"{place}.table", f"`{feature.table}` holds ranges of a number",
                     "only a feature of kind id can use it")  # fmt: skip
    for name, table in spec.tables.items():
        if isinstance(table, BucketTable):
            _require(all(a < b for a, b in pairwise(table.boundaries)), f"tables.{name}.boundaries",
                     "do not increase", "put them in order, each once")  # fmt: skip
        users = [f for f, feature in spec.sparse_features.items() if feature.table == name]
        _require(bool(users), f"tables.{name}", "no feature uses it", "delete it or name it in a feature")
        if isinstance(table, QuantileTable):
            _require(len(users) == 1, f"tables.{name}", f"is shared by {', '.join(users)}",
                     "quantiles belong to one number: give each feature its own table")  # fmt: skip
    if spec.counters:
        for name, measure in spec.counters.measures.items():
            _require(measure.event in events, f"counters.measures.{name}.event", f"there is no event `{measure.event}`",
                     f"use one of {', '.join(sorted(events))}")  # fmt: skip


def _check_scenes(spec: Spec) -> None:
    for scene_name, scene in spec.scenes.items():
        for learned in scene.weights:
            _require(learned in spec.objectives, f"scenes.{scene_name}.weights.{learned}", "there is no such objective",
                     f"use one of {', '.join(spec.objectives)}")  # fmt: skip
    for name, objective in spec.objectives.items():
        if isinstance(objective, RegressionObjective) and objective.baseline_by:
            _require(isinstance(spec.features.get(objective.baseline_by), IdFeature),
                     f"objectives.{name}.baseline_by", f"`{objective.baseline_by}` is no feature of kind id",
                     "name one, such as a duration in quantiles")  # fmt: skip
        _require(any(name in scene.weights for scene in spec.scenes.values()), f"objectives.{name}",
                 "no scene learns it", "give it a weight in a scene, or delete it")  # fmt: skip
