"""The SQL expressions of a spec."""

import re

import polars as pl

LITERALS = {"true", "false", "null"}
# Quoted text, which is left alone, or a number with a decimal point.
QUOTED_OR_DECIMAL = re.compile(r"""'[^']*'|"[^"]*"|(?<![\w.])(?:\d+\.\d*|\.\d+)(?:[eE][+-]?\d+)?""")


def parse(expression: str) -> pl.Expr:
    """An SQL expression over the columns of a frame. Raises a PolarsError for bad SQL.

    A lone name is a column, even where SQL has a function of that name (`user`). A number with a decimal point is a
    float: Polars would make it a decimal of six places, and round quotients of whole numbers to those.
    """
    if expression.isidentifier() and expression.lower() not in LITERALS:
        return pl.col(expression)
    return pl.sql_expr(QUOTED_OR_DECIMAL.sub(_as_float, expression))


def _as_float(found: re.Match[str]) -> str:
    text = found[0]
    return text if text[0] in "'\"" else f"cast({text} as double)"


def is_row_wise(expression: pl.Expr, schema: dict[str, pl.DataType]) -> bool:
    """False if a row's value may depend on other rows (aggregates, windows, ranks), or if there are several values.

    The optimiser of Polars is the judge: only what is computed row by row is computed after a slice was taken.
    """
    if expression.meta.has_multiple_outputs():  # a pattern such as "^is_.*$" stands for all columns that match
        return False
    plan = pl.LazyFrame(schema=schema).with_columns(expression.alias(" ")).slice(1, 1).explain()
    return plan.lstrip().startswith("WITH_COLUMNS")
