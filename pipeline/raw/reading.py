"""Reads raw tables: finds their files, types their columns, and sets aside the rows that break the schema.

One folder may mix Parquet, CSV and JSON lines; the last two may be gzipped. Text formats are read as text and cast
here. So a value of the wrong type gives a rejected row with a reason, whatever the format.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import polars as pl

from pipeline.errors import StrataError
from pipeline.spec.logs import Logs, RawTable
from pipeline.sql.expressions import parse
from pipeline.sql.types import TYPES
from pipeline.storage import FileInfo, Folder

SUFFIXES = (".parquet", ".csv", ".csv.gz", ".jsonl", ".jsonl.gz")
# Columns beside those of the log, whose names never start with a blank. RAW begins the name of a column as it lies in
# the file; the column with its declared type has the name itself.
RAW, LINE, BROKEN = " raw ", " whole line", " breaks a rule"
CHUNK_ROWS = 500_000  # rows of a raw file in memory at a time
YEAR_2100_MS = 4_102_444_800_000
Rules = list[tuple[pl.Expr, str]]
BOOLEANS = {"true": True, "1": True, "false": False, "0": False}


@dataclass(frozen=True)
class RawFile:
    """A file of a raw table: the folder of `--raw`, and what the file was like when it was listed."""

    folder: Folder
    info: FileInfo

    def __str__(self) -> str:
        return str(self.folder / self.info.name)


@dataclass(frozen=True)
class RawChunk:
    """Some rows of a raw file, in their order.

    `rows` has the declared columns with their types; `rejected` has the columns `table`, `file`, `reason` and `record`
    (the row as JSON).
    """

    rows: pl.DataFrame
    rejected: pl.DataFrame


REJECTED = {"table": pl.String(), "file": pl.String(), "reason": pl.String(), "record": pl.String()}


class BadFile(StrataError):
    """A raw file that cannot be used: damaged, without a declared column, gone, or changed while it was read."""


def checked_tables(logs: Logs) -> dict[str, RawTable]:
    """The raw tables with one more check: a time lies before 2100. A stray time would be a test split of its own."""
    times = {name: table.time for name, table in logs.timed().items()}
    return {
        name: table.model_copy(update={"checks": (*table.checks, f'"{times[name]}" between 0 and {YEAR_2100_MS}')})
        if name in times
        else table
        for name, table in logs.tables().items()
    }


def required_columns(logs: Logs) -> dict[str, set[str]]:
    """By table the columns without which a row is rejected: ids, users, times and keys."""
    impression = logs.impression
    required = {"impression": {*impression.id, impression.user, impression.video, impression.time}}
    required |= {name: {*impression.id, impression.user, event.time} for name, event in logs.events.items()}
    required |= {name: {*filter(None, (p.key, p.valid_from))} for name, p in logs.profiles.items()}
    return required


def find_files(name: str, table: RawTable, folder: Folder) -> list[RawFile]:
    """The files of a raw table in the order of their names: `files` is a folder, a file or a glob below `folder`."""
    if not folder.exists():
        raise StrataError("no such folder", where=folder, fix="pass --raw the folder that holds the raw logs")
    place = folder / table.files
    if table.files.startswith("/"):
        raise StrataError(
            f"`files` of the table `{name}` is absolute", where=table.files, fix="give it relative to --raw"
        )
    found = [file for file in folder.files() if _matches(file.name, table.files) and file.name.endswith(SUFFIXES)]
    if not found:
        raise StrataError(
            f"no files of the table `{name}` ({', '.join(SUFFIXES)})",
            where=place,
            fix=f"put them there, or correct `files` of `{name}` in the spec",
        )
    return [RawFile(folder, file) for file in found]


def _matches(name: str, files: str) -> bool:
    """True for the file itself, for one below the folder, and for one that fits the glob part by part."""
    files = files.rstrip("/")
    parts, wanted = name.split("/"), files.split("/")
    fits = len(parts) == len(wanted) and all(map(fnmatchcase, parts, wanted))
    return fits or name.startswith(f"{files}/")


def read_chunks(name: str, table: RawTable, file: RawFile, required: set[str]) -> Iterator[RawChunk]:
    """All rows of a raw file, at most CHUNK_ROWS at a time; one that breaks a rule of the table is rejected.

    So is a row without a value in one of the `required` columns. Raises BadFile.
    """
    if file.folder.stat(file.info.name) != file.info:
        raise _changed(file)
    try:
        with file.folder.on_this_machine(file.info.name) as path:
            raw = _scan_parquet(table, path) if path.suffix == ".parquet" else _scan_text(table, path)
            found = raw.collect_schema()
            typed = [_cast(found[RAW + column], column, TYPES[table.columns[column]]) for column in table.columns]
            rules = _rules(table, required)
            broken = pl.any_horizontal(broken for broken, _ in rules).fill_null(False)
            checked = raw.with_columns(typed).with_columns(broken.alias(BROKEN))
            for frame in checked.collect_batches(chunk_size=CHUNK_ROWS, maintain_order=True, engine="streaming"):
                yield _sorted_out(frame, rules, name, table, file.info.name)
    except BadFile as error:
        # The error names the file where it was found, not its copy on this machine.
        raise BadFile(error.what, where=file, fix=error.fix) from None
    except (pl.exceptions.PolarsError, OSError, UnicodeDecodeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise BadFile(f"cannot be read ({reason})", where=file, fix="replace or remove the file") from None
    if file.folder.stat(file.info.name) != file.info:
        raise _changed(file)


def _changed(file: RawFile) -> BadFile:
    now = file.folder.stat(file.info.name)
    return BadFile(
        "changed while it was used" if now else "disappeared while it was used",
        where=file,
        fix="write logs elsewhere and move whole files here; then run the same command again",
    )


def _sorted_out(frame: pl.DataFrame, rules: Rules, name: str, table: RawTable, file: str) -> RawChunk:
    """The good rows, and the rejected rows with their reason."""
    if not frame[BROKEN].any():
        return RawChunk(frame.select(table.columns.keys()), pl.DataFrame(schema=REJECTED))
    bad = frame.filter(BROKEN)
    record = pl.struct(pl.col(RAW + column).alias(column) for column in table.columns).struct.json_encode()
    return RawChunk(
        frame.filter(~pl.col(BROKEN)).select(table.columns.keys()),
        bad.select(
            table=pl.lit(name),
            file=pl.lit(file),
            reason=pl.coalesce(pl.when(broken).then(pl.lit(reason)) for broken, reason in rules),
            record=pl.col(LINE) if LINE in bad.columns else record,
        ),
    )


def _scan_parquet(table: RawTable, path: Path) -> pl.LazyFrame:
    frame = pl.scan_parquet(path, hive_partitioning=False, glob=False)
    found = frame.collect_schema()
    _check_columns(table, found.names(), path)
    columns = []
    for column, type_ in table.columns.items():
        value, in_file = pl.col(column), found[column]
        if in_file.is_nested() or (in_file.is_temporal() and type_ != "string"):
            raise BadFile(f"the column `{column}` is {in_file}", where=path, fix=f"write it as {type_}")
        if in_file.is_float() and TYPES[type_].is_integer():
            value = value.fill_nan(None)  # as pandas writes a missing integer
        columns.append(value.alias(RAW + column))
    return frame.select(columns)


def _scan_text(table: RawTable, path: Path) -> pl.LazyFrame:
    """The declared columns as text; of JSON lines also the whole line, for the record of a rejected row."""
    if path.name.endswith((".csv", ".csv.gz")):
        frame = pl.scan_csv(path, infer_schema=False, truncate_ragged_lines=True, glob=False)
        _check_columns(table, frame.collect_schema().names(), path)
        return frame.select(pl.col(column).alias(RAW + column) for column in table.columns)
    line = pl.col(LINE)
    lines = pl.scan_lines(path, name=LINE, glob=False).filter(line.str.strip_chars() != "")
    values = {column: line.str.json_path_match(f'$["{column}"]') for column in table.columns}
    # A line may leave out a key whose value is null, a whole file may not: that is a misspelt column.
    found = _where_any(lines, {column: line.str.contains(f'"{column}"', literal=True) for column in values})
    if len(found) < len(values):  # a line may write a key with escapes, such as \u00e9 for é
        found += _where_any(lines, {c: value.is_not_null() for c, value in values.items() if c not in found})
    if found:
        _check_columns(table, found, path)
    return lines.with_columns(value.alias(RAW + column) for column, value in values.items())


def _where_any(lines: pl.LazyFrame, conditions: dict[str, pl.Expr]) -> list[str]:
    """The names of the conditions that are true for some line."""
    any_line = lines.select(condition.any().alias(name) for name, condition in conditions.items())
    held = any_line.collect(engine="streaming")  # a file may be larger than memory
    return [name for name in held.columns if held[name].item()]


def _check_columns(table: RawTable, found: list[str], path: Path) -> None:
    missing = [column for column in table.columns if column not in found]
    if missing:
        raise BadFile(
            f"the column `{missing[0]}` is missing; the file has {', '.join(found)}",
            where=path,
            fix="correct the file, or `columns` in the spec",
        )


def _cast(found: pl.DataType, column: str, wanted: pl.DataType) -> pl.Expr:
    """The column in its declared type; null where the value in the file is not of that type."""
    value = pl.col(RAW + column)
    if isinstance(wanted, pl.Boolean) and not isinstance(found, pl.Boolean):
        text = value.cast(pl.String).str.to_lowercase()
        value = text.replace_strict(BOOLEANS, default=None, return_dtype=pl.Boolean)
    if wanted.is_integer() and found.is_float():
        value = pl.when(value == value.floor()).then(value)
    return value.cast(wanted, strict=False).alias(column)


def _rules(table: RawTable, required: set[str]) -> Rules:
    """What breaks each rule of the table, and the reason to reject the row. A missing value passes a check."""
    rules = [
        (pl.all_horizontal(pl.col(RAW + column).is_null() for column in table.columns), "holds none of the columns")
    ]
    for column, type_ in table.columns.items():
        rules.append((pl.col(RAW + column).is_not_null() & pl.col(column).is_null(), f"{column} is no {type_}"))
    rules += [(pl.col(column).is_null(), f"{column} is missing") for column in table.columns if column in required]
    return rules + [(~parse(check), f"fails the check {check}") for check in table.checks]
