"""The types of columns: those that a spec declares, and those of the columns that Strata adds."""

import polars as pl

from pipeline.columns import DAY, IMPRESSION_TIME, LOCAL_DAY
from pipeline.spec.logs import RawTable
from pipeline.spec.part import ColumnType

Schema = dict[str, pl.DataType]

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
BUILT_IN: Schema = {IMPRESSION_TIME: pl.Datetime("ms"), DAY: pl.Date(), LOCAL_DAY: pl.Date()}


def schema(table: RawTable) -> Schema:
    """The Polars types of a table's declared columns."""
    return {name: TYPES[type_] for name, type_ in table.columns.items()}
