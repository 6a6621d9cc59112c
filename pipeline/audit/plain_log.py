"""What the raw log says about a few impressions: their users, their profiles and their outcomes."""

from collections import defaultdict
from collections.abc import Container, Iterator
from typing import Any
from zoneinfo import ZoneInfo

import polars as pl

from pipeline.audit.plain_rows import PlainRows, Row, local_time, sort_key
from pipeline.columns import DAY, EVENT_TIME, IMPRESSION_TIME, LOCAL_DAY, SAMPLE_ID
from pipeline.raw.reading import checked_tables, find_files, read_chunks, required_columns
from pipeline.spec.logs import Event, Profile
from pipeline.spec.spec import Spec
from pipeline.sql.types import BUILT_IN, schema
from pipeline.storage import Folder


class PlainLog:
    """The raw log of a spec. Memory holds all profiles, but of the rest only the rows that are asked for."""

    def __init__(self, spec: Spec, raw: Folder, quarantine: Container[str] = ()) -> None:
        """`raw` is the folder of the log. The files in `quarantine` are left out."""
        self.spec, self.raw, self.quarantine = spec, raw, quarantine
        self.zone = ZoneInfo(spec.logs.timezone)
        impression = spec.logs.impression
        self.keys = list(dict.fromkeys([*impression.id, impression.user]))
        """The columns that an event shares with its impression."""
        self.profiles = {name: self.rows_of(name) for name in spec.logs.profiles}

    def chunks(self, name: str) -> Iterator[pl.DataFrame]:
        """The sound rows of a raw table, chunk by chunk."""
        table, required = checked_tables(self.spec.logs)[name], required_columns(self.spec.logs)[name]
        yield pl.DataFrame(schema=schema(table))  # all files may be in quarantine
        for file in find_files(name, table, self.raw):
            if str(file) not in self.quarantine:
                for chunk in read_chunks(name, table, file, required):
                    yield chunk.rows

    def rows_of(self, name: str, match: pl.DataFrame | None = None) -> pl.DataFrame:
        """The sound rows of a raw table, without duplicates; with `match`, those that match one of its rows."""
        chunks = self.chunks(name)
        if match is not None:
            chunks = (rows.join(match, on=match.columns, how="semi", maintain_order="left") for rows in chunks)
        return pl.concat(chunks).unique(maintain_order=True)

    def impressions(self, found: pl.DataFrame) -> PlainRows:
        """Impressions with all that was known when they were shown.

        `found` are rows of the log: of an impression's id and user all rows or none, because they may repeat it.
        """
        spec, impression = self.spec, self.spec.logs.impression
        shown = PlainRows(found.to_dicts(), dict(found.schema))
        local = [local_time(row[impression.time], self.zone) for row in shown.rows]
        shown.add(IMPRESSION_TIME, local, BUILT_IN[IMPRESSION_TIME])
        shown.add(LOCAL_DAY, [moment.date() for moment in local], BUILT_IN[LOCAL_DAY])
        day = shown.evaluate(spec.logs.day or LOCAL_DAY).cast(pl.Date)
        shown.add(DAY, day.to_list(), BUILT_IN[DAY])
        self._identify(shown)
        for name, profile in spec.logs.profiles.items():
            self._join(shown, profile, self.profiles[name])
        for name, expression in spec.columns.items():
            values = shown.evaluate(expression)
            shown.add(name, values.to_list(), values.dtype)
        return shown

    def _identify(self, shown: PlainRows) -> None:
        """Adds the sample id. A row that repeats an id of its day gets a number; in event logs it is dropped."""
        ids = self.spec.logs.impression.id
        if len(ids) == 1 and self.spec.logs.events:
            shown.add(SAMPLE_ID, [row[ids[0]] for row in shown.rows], shown.types[ids[0]])
        else:
            texts = [shown.column(name).cast(pl.String).to_list() for name in ids]
            shown.add(SAMPLE_ID, ["-".join(parts) for parts in zip(*texts, strict=True)], pl.String())
        seen: defaultdict[Any, int] = defaultdict(int)
        columns = (self.spec.logs.impression.time, *sorted(self.spec.logs.impression.columns))
        if not self.spec.logs.events:
            shown.rows.sort(key=lambda row: sort_key(*(row[column] for column in columns)))
        kept = []
        for row in shown.rows:
            same = (*(row[key] for key in self.keys), row[LOCAL_DAY])
            if self.spec.logs.events and seen[same]:
                continue
            if seen[same]:
                row[SAMPLE_ID] = f"{row[SAMPLE_ID]}#{seen[same]}"
            seen[same] += 1
            kept.append(row)
        shown.rows[:] = kept

    def _join(self, shown: PlainRows, profile: Profile, table: pl.DataFrame) -> None:
        """Adds the profile's values at the time of each impression."""
        time = self.spec.logs.impression.time
        versions: defaultdict[Any, list[Row]] = defaultdict(list)
        keys = shown.column(profile.key).to_frame()
        for row in table.join(keys, on=profile.key, how="semi", maintain_order="left").iter_rows(named=True):
            versions[row[profile.key]].append(row)
        known = [_version_at(row[time], versions[row[profile.key]], profile) for row in shown.rows]
        for column in profile.values:
            shown.add(column, [row[column] if row else None for row in known], table.schema[column])

    def follow(self, shown: PlainRows, events: dict[str, pl.DataFrame]) -> dict[str, PlainRows]:
        """Adds outcomes to the impressions. Returns the events that followed impressions, by kind of event.

        Each event has the columns of its impression, its own values, and the local day on which it happened.
        """
        time, declared = self.spec.logs.impression.time, self.spec.logs.events
        happened = {"impression": PlainRows([row | {EVENT_TIME: row[time]} for row in shown.rows], dict(shown.types))}
        followed = {name: self._followed(shown, events[name], event) for name, event in declared.items()}
        for name, event in declared.items():
            happened[name] = self._happened(shown, followed[name], event, events[name].schema)
        for name, event in declared.items():
            _add_outcomes(shown, followed[name], name, event, events[name].schema)
        return happened

    def _followed(self, shown: PlainRows, events: pl.DataFrame, event: Event) -> list[list[Row]]:
        """For each impression the events of a kind that followed it soon enough, in order."""
        time = self.spec.logs.impression.time
        impressions: defaultdict[Any, list[int]] = defaultdict(list)
        for number, row in enumerate(shown.rows):
            impressions[tuple(row[key] for key in self.keys)].append(number)
        followed: list[list[Row]] = [[] for _ in shown.rows]
        for row in events.iter_rows(named=True):
            for number in impressions[tuple(row[key] for key in self.keys)]:
                if 0 <= row[event.time] - shown.rows[number][time] <= event.within_s * 1000:
                    followed[number].append(row)
        for rows in followed:
            rows.sort(key=lambda row: sort_key(row[event.time], *(row[value] for value in sorted(event.values))))
        return followed

    def _happened(self, shown: PlainRows, followed: list[list[Row]], event: Event, types: pl.Schema) -> PlainRows:
        rows = []
        for impression, own in zip(shown.rows, followed, strict=True):
            for row in own:
                values = {value: row[value] for value in event.values}
                day = local_time(row[event.time], self.zone).date()
                rows.append(impression | values | {EVENT_TIME: row[event.time], LOCAL_DAY: day})
        return PlainRows(rows, shown.types | {value: types[value] for value in event.values})


def _version_at(time_ms: int, versions: list[Row], profile: Profile) -> Row | None:
    """The row of a profile that was valid at a time; a profile without validity has one row."""
    found: Row | None = None
    for row in versions:
        if profile.valid_from is None:
            return row
        if row[profile.valid_from] <= time_ms and (not found or row[profile.valid_from] > found[profile.valid_from]):
            found = row
    if found and profile.valid_to and found[profile.valid_to] is not None and found[profile.valid_to] <= time_ms:
        return None
    return found


def _add_outcomes(shown: PlainRows, followed: list[list[Row]], name: str, event: Event, types: pl.Schema) -> None:
    """Adds whether an event followed each impression, and its values, combined if it happened several times."""
    shown.add(name, [bool(rows) for rows in followed], pl.Boolean())
    for value, how in event.values.items():
        combined = [_combined([row[value] for row in rows], how) if rows else None for rows in followed]
        empty = pl.DataFrame(schema={value: types[value]})
        shown.add(value, combined, empty.select(getattr(pl.col(value), how)()).schema[value])


def _combined(values: list[Any], how: str) -> Any:
    """One value of several, which are in the order of their events."""
    present = [value for value in values if value is not None]
    match how:
        case "first":
            return values[0]
        case "last":
            return values[-1]
        case "sum":
            return sum(present)
    numbers = [value for value in present if value == value] or present
    if not numbers:
        return None
    return max(numbers) if how == "max" else min(numbers)
