"""The raw logs that a spec declares."""

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from pipeline.spec.part import MOST_NAMES, ColumnType, Name, Part, PositiveInt, RawColumn, Sql


class RawTable(Part):
    """Files of one kind: their place below `--raw`, their columns, and SQL conditions that each row must meet."""

    files: Annotated[str, StringConstraints(min_length=1)]
    columns: Annotated[dict[RawColumn, ColumnType], Field(min_length=1, max_length=MOST_NAMES)]
    checks: tuple[Sql, ...] = ()


class Impressions(RawTable):
    """One row per video shown to a user; `time` is in ms since the epoch, UTC.

    `outcomes` names the columns of an interaction log that became known only after the impression.
    """

    id: Annotated[tuple[RawColumn, ...], Field(min_length=1)]
    user: RawColumn
    video: RawColumn
    time: RawColumn
    outcomes: tuple[RawColumn, ...] = ()


class Event(RawTable):
    """Something that a user did after an impression. The columns of the impression's id and user join the two.

    The user is among them because rows are dealt to partitions by user. An event counts only if it happened at most
    `within_s` seconds after the impression. `values` says how a column is combined if the event happened several times.
    """

    time: RawColumn
    within_s: PositiveInt
    values: dict[RawColumn, Literal["sum", "max", "min", "first", "last"]] = Field(default_factory=dict)


class Profile(RawTable):
    """One row per user, video or the like, joined by `key`.

    With `valid_from` (a column in ms since the epoch) a key may have several rows. An impression gets the last row that
    was valid from its time or earlier, unless `valid_to` says that the row's validity had ended by then.
    """

    key: RawColumn
    valid_from: RawColumn | None = None
    valid_to: RawColumn | None = None

    @property
    def values(self) -> list[str]:
        """The columns that an impression gets."""
        return [column for column in self.columns if column not in (self.key, self.valid_from, self.valid_to)]


class Logs(Part):
    """The raw logs. With `events` they are event logs; with `impression.outcomes`, interaction logs.

    `day` is the SQL expression of the day a row is filed under; by default the local date of its time.
    """

    timezone: str = "UTC"
    day: Sql | None = None
    impression: Impressions
    events: dict[Name, Event] = Field(default_factory=dict)
    profiles: dict[Name, Profile] = Field(default_factory=dict)

    def timed(self) -> dict[str, Impressions | Event]:
        """The raw tables whose rows happened at a time."""
        return {"impression": self.impression, **self.events}

    def key_in_spec(self, table: str) -> str:
        """The key in the spec of a raw table."""
        if table == "impression":
            return "logs.impression"
        return f"logs.events.{table}" if table in self.events else f"logs.profiles.{table}"

    def tables(self) -> dict[str, RawTable]:
        """Every raw table by the name that errors and counts use for it."""
        return {"impression": self.impression, **self.events, **self.profiles}
