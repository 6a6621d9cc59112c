"""Reads one raw table: finds its files, types its columns, and sets aside the rows that break the schema.

Parquet, CSV and JSON lines (the latter two also gzipped) may be mixed in one folder. Text formats are read as
text and cast here, so that a value of the wrong type is a rejected row with a reason, whatever the format.
"""

from dataclasses import dataclass
from pathlib import Path

import polars as pl

from pipeline.errors import StrataError
from pipeline.raw.expressions import parse
from pipeline.spec import ColumnType, RawTable

TYPES: dict[ColumnType, pl.DataType] = {
    "int8": pl.Int8(),
    "int16": pl.Int16(),
    "int32": pl.Int32(),
    "int64": pl.Int64(),
    "float32": pl.Float32(),
    "float64": pl.Float64(),
    "string": pl.String(),
    "bool": pl.Boolean(),
}
SUFFIXES = (".parquet", ".csv", ".csv.gz", ".jsonl", ".jsonl.gz")
RAW = "raw "  # prefix of a column as it lies in the file, beside the same column with its type
LINE, REASON = "whole line", "rejected because"  # beside declared columns, of which one may well be called `reason`
BOOLEANS = {"true": True, "1": True, "false": False, "0": False}


@dataclass(frozen=True)
class RawRows:
    """The rows of one raw table, and what became of the others.

    `rows` has the declared columns with their types and no exact duplicates; `rejected` has the columns `table`,
    `file`, `reason` and `record` (the row as JSON). rows.height + rejected.height + duplicates == read.
    """

    rows: pl.DataFrame
    rejected: pl.DataFrame
    read: int
    duplicates: int


def schema(table: RawTable) -> dict[str, pl.DataType]:
    """The Polars types of a table's declared columns."""
    return {name: TYPES[type_] for name, type_ in table.columns.items()}


def read_table(name: str, table: RawTable, folder: Path, *, required: set[str], unique: list[str]) -> RawRows:
    """All rows of a raw table; a row without a value in one of the `required` columns is rejected.

    So is one that repeats the `unique` columns of an earlier row with other content; files count in the order of
    their names. Raises StrataError if there is no file, a file cannot be read, or one lacks a declared column.
    """
    parts = [_read_file(name, table, path, required) for path in find_files(name, table, folder)]
    rows = pl.concat([good for good, _ in parts])
    rejected = pl.concat([bad for _, bad in parts])
    read = rows.height + rejected.height
    distinct = rows.unique(maintain_order=True)
    duplicates = rows.height - distinct.height
    if unique:
        first = pl.struct(unique).is_first_distinct()
        repeats = distinct.filter(~first).select(
            table=pl.lit(name),
            file=pl.lit(None, pl.String),
            reason=pl.lit(f"repeats the {', '.join(unique)} of another row"),
            record=pl.struct(pl.all()).struct.json_encode(),
        )
        distinct, rejected = distinct.filter(first), pl.concat([rejected, repeats])
    return RawRows(distinct, rejected, read, duplicates)


def find_files(name: str, table: RawTable, folder: Path) -> list[Path]:
    """The files of a raw table in the order of their names: `files` is a folder, a file or a glob below `folder`."""
    if not folder.is_dir():
        raise StrataError("no such folder", where=folder, fix="pass --raw the folder that holds the raw logs")
    place = folder / table.files
    if Path(table.files).is_absolute():
        raise StrataError(f"`files` of the table `{name}` is absolute", where=place, fix="give it relative to --raw")
    candidates = place.rglob("*") if place.is_dir() else folder.glob(table.files)
    found = sorted(path for path in candidates if path.is_file() and path.name.endswith(SUFFIXES))
    if not found:
        raise StrataError(
            f"no files of the table `{name}` ({', '.join(SUFFIXES)})",
            where=place,
            fix=f"put them there, or correct `files` of `{name}` in the spec",
        )
    return found


def _read_file(name: str, table: RawTable, path: Path, required: set[str]) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The good rows of a file, typed, and its rejected rows."""
    try:
        raw = _scan_parquet(table, path) if path.suffix == ".parquet" else _scan_text(table, path)
        typed = [_cast(found, column, TYPES[table.columns[column]]) for column, found in _declared(raw, table).items()]
        frame = raw.with_columns(typed).with_columns(_reason(table, required).alias(REASON)).collect()
    except (pl.exceptions.PolarsError, OSError, UnicodeDecodeError) as error:
        raise StrataError(
            f"cannot be read ({str(error).strip().splitlines()[0]})", where=path, fix="replace or remove the file"
        ) from None
    bad = frame.filter(pl.col(REASON).is_not_null())
    record = pl.struct(pl.col(RAW + column).alias(column) for column in table.columns).struct.json_encode()
    return frame.filter(pl.col(REASON).is_null()).select(table.columns.keys()), bad.select(
        table=pl.lit(name),
        file=pl.lit(str(path)),
        reason=pl.col(REASON),
        record=pl.col(LINE) if LINE in bad.columns else record,
    )


def _scan_parquet(table: RawTable, path: Path) -> pl.LazyFrame:
    frame = pl.scan_parquet(path, hive_partitioning=False, glob=False)
    found = frame.collect_schema()
    _check_columns(table, found.names(), path)
    columns = []
    for column, type_ in table.columns.items():
        value, in_file = pl.col(column), found[column]
        if in_file.is_nested() or (in_file.is_temporal() and type_ != "string"):
            raise StrataError(f"the column `{column}` is {in_file}", where=path, fix=f"write it as {type_}")
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
    # A line may leave out a key whose value is null, a whole file may not: that is a misspelt column.
    named = lines.select(line.str.contains(f'"{c}"', literal=True).any().alias(c) for c in table.columns).collect()
    found = [column for column in named.columns if named[column].item()]
    if found:
        _check_columns(table, found, path)
    return lines.with_columns(line.str.json_path_match(f"$['{c}']").alias(RAW + c) for c in table.columns)


def _check_columns(table: RawTable, found: list[str], path: Path) -> None:
    missing = [column for column in table.columns if column not in found]
    if missing:
        raise StrataError(
            f"the column `{missing[0]}` is missing; the file has {', '.join(found)}",
            where=path,
            fix="correct the file, or `columns` in the spec",
        )


def _declared(raw: pl.LazyFrame, table: RawTable) -> dict[str, pl.DataType]:
    """Each declared column with the type that it has in the file."""
    found = raw.collect_schema()
    return {column: found[RAW + column] for column in table.columns}


def _cast(found: pl.DataType, column: str, wanted: pl.DataType) -> pl.Expr:
    """The column in its declared type; null where the value in the file is not of that type."""
    value = pl.col(RAW + column)
    if isinstance(wanted, pl.Boolean) and not isinstance(found, pl.Boolean):
        text = value.cast(pl.String).str.to_lowercase()
        value = text.replace_strict(BOOLEANS, default=None, return_dtype=pl.Boolean)
    if wanted.is_integer() and found.is_float():
        value = pl.when(value == value.floor()).then(value)
    return value.cast(wanted, strict=False).alias(column)


def _reason(table: RawTable, required: set[str]) -> pl.Expr:
    """Why a row is rejected: the first rule that it breaks, or null. A check of a missing value passes."""
    nothing = pl.all_horizontal(pl.col(RAW + column).is_null() for column in table.columns)
    reasons = [pl.when(nothing).then(pl.lit("holds none of the columns"))]
    for column, type_ in table.columns.items():
        wrong = pl.col(RAW + column).is_not_null() & pl.col(column).is_null()
        reasons.append(pl.when(wrong).then(pl.lit(f"{column} is no {type_}")))
    for column in table.columns:
        if column in required:
            reasons.append(pl.when(pl.col(column).is_null()).then(pl.lit(f"{column} is missing")))
    for check in table.checks:
        reasons.append(pl.when(~parse(check)).then(pl.lit(f"fails the check {check}")))
    return pl.coalesce(reasons)
