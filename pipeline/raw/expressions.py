"""The SQL expressions of a spec."""

import polars as pl

LITERALS = {"true", "false", "null"}


def parse(expression: str) -> pl.Expr:
    """An SQL expression over the columns of a frame.

    A lone name is a column, even where SQL has a function of that name (`user`). Raises a PolarsError for bad SQL.
    """
    if expression.isidentifier() and expression.lower() not in LITERALS:
        return pl.col(expression)
    return pl.sql_expr(expression)
