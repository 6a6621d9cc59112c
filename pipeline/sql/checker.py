"""Tries the expressions of a spec on frames without rows, before any data is read."""

import difflib
from collections.abc import Container
from pathlib import Path
from typing import NoReturn

import polars as pl

from pipeline.columns import EVENT_TIME, SAMPLE_ID, WEIGHT
from pipeline.errors import StrataError
from pipeline.sql.expressions import ExpressionError, parse
from pipeline.sql.types import BUILT_IN, Schema

OURS = {*BUILT_IN, SAMPLE_ID, WEIGHT, EVENT_TIME}
OUR_PREFIXES = ("label_", "mask_", "scene_", "feature_")
MOST_SHOWN = 200  # characters of an expression or of a reason in an error


def shortened(text: str) -> str:
    """The beginning of a long text, for an error."""
    return text if len(text) <= MOST_SHOWN else f"{text[: MOST_SHOWN - 3]}..."


class Checker:
    """Evaluates expressions; every refusal names the spec's file and the key."""

    def __init__(self, source: Path) -> None:
        """`source` is the spec's file."""
        self.source = source

    def refuse(self, key: str, found: str, right: str) -> NoReturn:
        raise StrataError(f"{key}: {found}", where=self.source, fix=right)

    def new_column(self, key: str, name: str, taken: Container[str]) -> None:
        """Refuses a column that there is already, or whose name Strata needs."""
        if name in OURS or name.startswith(OUR_PREFIXES):
            self.refuse(key, f"`{name}` is a name that Strata gives", "choose another name")
        if name in taken:
            self.refuse(key, f"there is another column `{name}`", "give one of the two another name")

    def type_of(self, key: str, expression: str, columns: Schema, forbidden: Container[str] = ()) -> pl.DataType:
        """The type that an SQL expression has over these columns."""
        try:
            parsed = parse(expression)
            for name in parsed.meta.root_names():
                if name in forbidden:
                    self.refuse(
                        key,
                        f"`{name}` is an outcome, known only after the impression",
                        "features may use outcomes only through counters and histories",
                    )
                if name not in columns:
                    close = difflib.get_close_matches(name, columns, n=1)
                    hint = f"did you mean `{close[0]}`?" if close else f"there are {', '.join(columns)}"
                    self.refuse(key, f"there is no column `{name}` that it may use", hint)
            return pl.DataFrame(schema=columns).select(parsed.alias("value")).schema["value"]
        except ExpressionError as error:
            self.refuse(key, f"`{shortened(expression)}` {error}", error.fix)
        except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
            reason = shortened(str(error).partition("\n")[0])
            self.refuse(key, f"`{shortened(expression)}` does not evaluate ({reason})", "correct the SQL")

    def condition(self, key: str, expression: str, columns: Schema) -> None:
        type_ = self.type_of(key, expression, columns)
        if not isinstance(type_, pl.Boolean):
            self.refuse(key, f"`{shortened(expression)}` is {type_}", "a condition must be true or false")

    def number(self, key: str, expression: str, columns: Schema, forbidden: Container[str] = ()) -> None:
        """A number, or true and false, which count as 1 and 0."""
        type_ = self.type_of(key, expression, columns, forbidden)
        if not (type_.is_numeric() or isinstance(type_, pl.Boolean)):
            self.refuse(key, f"`{shortened(expression)}` is {type_}", "it must be a number")
