"""Counters, embedding tables and features: how a column reaches the model."""

from typing import Annotated, Literal

from pydantic import Field

from pipeline.spec.part import Boundary, Days, Name, Part, PositiveInt, Rows, Sql


class Measure(Part):
    """What a trailing counter adds up: rows of an event, or the mean of an expression over them."""

    event: str = "impression"
    where: Sql | None = None
    mean: Sql | None = None


class Counters(Part):
    """Trailing counters over completed days: a column `<by>_<measure>_<days>d` for each combination."""

    days: Annotated[tuple[Days, ...], Field(min_length=1)]
    by: Annotated[dict[Name, str], Field(min_length=1)]
    measures: Annotated[dict[Name, Measure], Field(min_length=1)]

    def column(self, by: str, measure: str, days: int) -> str:
        return f"{by}_{measure}_{days}d"

    def columns(self) -> list[str]:
        return [self.column(by, measure, d) for by in self.by for measure in self.measures for d in self.days]


class Table(Part):
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
    boundaries: Annotated[tuple[Boundary, ...], Field(min_length=1)]


AnyTable = Annotated[VocabTable | HashTable | QuantileTable | BucketTable, Field(discriminator="encode")]


class IdFeature(Part):
    """One categorical value. `source` is an SQL expression; by default the column of the feature's name."""

    kind: Literal["id"]
    table: str
    source: Sql | None = None


class IdListFeature(Part):
    """Several categorical values in one string, such as tags, of which the first `max_length` are kept."""

    kind: Literal["id_list"]
    table: str
    source: Sql | None = None
    separator: str = ","
    max_length: PositiveInt = 16


class HistoryFeature(Part):
    """The values of the expression `of` in the user's `last` events of a kind, strictly before the impression."""

    kind: Literal["history"]
    table: str
    of: Sql
    event: str = "impression"
    where: Sql | None = None
    last: PositiveInt


class DenseFeature(Part):
    """A number. A missing one becomes 0 after normalising, which is the mean if `standardise` is asked for."""

    kind: Literal["dense"]
    source: Sql | None = None
    normalise: tuple[Literal["log1p", "standardise"], ...] = ("standardise",)


SparseFeature = IdFeature | IdListFeature | HistoryFeature
AnyFeature = Annotated[SparseFeature | DenseFeature, Field(discriminator="kind")]
