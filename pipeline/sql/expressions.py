"""The SQL expressions of a spec: functions of one row."""

import re
from collections.abc import Iterable

import polars as pl

from pipeline.sql.functions import FUNCTIONS, KEYWORDS, REFUSED, TYPES

LITERALS = {"true", "false", "null"}
# Polars checks an expression of this size in half a second. Its time grows by the square, and its stack may overflow.
MOST_CHARACTERS = 10_000
MOST_WORDS = 500  # words and operators; a list of values may be longer
MOST_STEPS = 1_000  # of the evaluation: Polars copies an operand of `nullif`, `between`, ... each time it uses it
PART = re.compile(
    r"""(?P<text>'[^']*'|"[^"]*")|(?P<decimal>(?<![\w.])(?:\d+\.\d*|\.\d+)(?:[eE][+-]?\d+)?)"""
    r"""|(?P<number>\d+(?:[eE][+-]?\d+)?(?!\w))|(?P<word>[^\W\d]\w*)|(?P<free>\s+|,)"""
    r"""|(?P<operator>(?!--|/\*)[-+*/%=<>!|&~^()\[\].:])|(?P<other>--|/\*|.)"""
)


def parse(expression: str) -> pl.Expr:
    """An SQL expression over the columns of a frame.

    A lone name is a column, even where SQL has a function of that name (`user`). A number with a decimal point is a
    float: Polars would make it a decimal of six places, and round quotients of whole numbers to those.

    Raises a PolarsError for bad SQL. Raises a ValueError for what is no function of one row, and for SQL that would
    take Polars too long. The text is read before Polars sees it, because Polars reads the files of a query that stands
    in an expression.
    """
    if expression.isidentifier() and expression.lower() not in LITERALS:
        return pl.col(expression)
    parsed = pl.sql_expr(_checked(expression))
    _check_steps(parsed)
    if parsed.meta.has_multiple_outputs():  # the name "^is_.*$" stands for all columns that match, "*" for all
        raise ValueError("stands for several columns")
    return parsed


def columns_used(expressions: Iterable[str]) -> set[str]:
    """The columns that SQL expressions use."""
    return {column for expression in expressions for column in parse(expression).meta.root_names()}


def _checked(expression: str) -> str:
    """The expression with its decimal numbers as floats."""
    if len(expression) > MOST_CHARACTERS:
        raise ValueError(f"is longer than {MOST_CHARACTERS:,} characters")
    parts: list[str] = []
    words, before, last = 0, "", None  # `before` is the word or quoted text that a parenthesis may follow
    for found in PART.finditer(expression):
        kind, part = found.lastgroup, found[0]
        if kind == "other":
            raise ValueError(f"has `{part}` outside of quotes")
        if kind == "text" and last == "word":  # E'\'' is text with a quote in it
            raise ValueError(f"has no space between `{before}` and the quote")
        if kind == "word" and _lower(part) in REFUSED:
            raise ValueError(f"uses `{part}`, which is no function of one row")
        if part == "(" and before:
            _check_call(before, expression[found.end() :])
        words += kind in ("word", "operator")
        if not part.isspace():
            before = part if kind in ("word", "text") else ""
        parts.append(f"cast({part} as double)" if kind == "decimal" else part)
        last = kind
    if words > MOST_WORDS:
        raise ValueError(f"has more than {MOST_WORDS} words and operators")
    return "".join(parts)


def _check_call(name: str, rest: str) -> None:
    """Refuses a parenthesis after the name of an unknown function; `rest` follows the parenthesis."""
    name = _lower(name)
    if name not in FUNCTIONS | KEYWORDS | TYPES:
        raise ValueError(f"uses `{name}`, which is no function of one row")
    if name != "pi" and rest.lstrip().startswith(")"):
        raise ValueError(f"gives nothing to `{name}`")  # Polars panics


def _lower(word: str) -> str:
    """The word as Polars compares it: its upper case makes an `s` of the letter ſ."""
    return word.upper().lower()


def _check_steps(parsed: pl.Expr) -> None:
    steps, left = 0, [parsed]
    while left:
        steps += 1
        if steps > MOST_STEPS:
            raise ValueError(f"takes more than {MOST_STEPS:,} steps")
        left += left.pop().meta.pop()
