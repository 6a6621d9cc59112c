"""The SQL expressions of a spec: functions of one row."""

import re
from collections.abc import Iterable

import polars as pl

from pipeline.sql.functions import FUNCTIONS, KEYWORDS, REFUSED, TYPES

LITERALS = {"true", "false", "null"}
ONE_ROW = "use functions of one row: counters and histories may look at earlier rows"
SPLIT = "give parts of it names under `columns`"
# Polars 2.1.0 checks an expression of this size within a second. Far beyond it, the stack overflows.
MOST_CHARACTERS = 10_000
MOST_WORDS = 500  # words and operators; a list of values may be longer
MOST_STEPS = 500  # of the evaluation: Polars copies an operand of `nullif`, `between`, ... each time it uses it
PART = re.compile(
    r"""(?P<text>'[^']*'|"[^"]*")|(?P<decimal>(?<![\w.])(?:\d+\.\d*|\.\d+)(?:[eE][+-]?\d+)?)"""
    r"""|(?P<number>\d+(?:[eE][+-]?\d+)?(?!\w))|(?P<word>[^\W\d]\w*)|(?P<free>\s+|,)"""
    r"""|(?P<operator>(?!--|/\*)[-+*/%=<>!|&~^()\[\].:])|(?P<other>--|/\*|.)"""
)


class ExpressionError(ValueError):
    """An expression that no spec may have."""

    def __init__(self, what: str, fix: str = ONE_ROW) -> None:
        """`what` follows the expression in the message."""
        super().__init__(what)
        self.fix = fix


def parse(expression: str) -> pl.Expr:
    """An SQL expression over the columns of a frame.

    A lone name is a column, even where SQL has a function of that name (`user`). A number with a decimal point is a
    float: Polars would make it a decimal of six places, and round quotients of whole numbers to those.

    Raises PolarsError for bad SQL. Raises ExpressionError for what is no function of one row, and for SQL that Polars
    would check too long. Such SQL must not reach Polars: it reads the files of a query, and its stack may overflow.
    """
    if expression.isidentifier() and expression.lower() not in LITERALS:
        return pl.col(expression)
    parsed = pl.sql_expr(_checked(expression))
    _check_steps(parsed)
    if parsed.meta.has_multiple_outputs():  # the name "^is_.*$" stands for all columns that match, "*" for all
        raise ExpressionError("stands for several columns", "name one column")
    return parsed


def columns_used(expressions: Iterable[str]) -> set[str]:
    """The columns that SQL expressions use."""
    return {column for expression in expressions for column in parse(expression).meta.root_names()}


def _checked(expression: str) -> str:
    """The expression with its decimal numbers as floats. Reads words and quotes as Polars does."""
    if len(expression) > MOST_CHARACTERS:
        raise ExpressionError(f"is longer than {MOST_CHARACTERS:,} characters", SPLIT)
    parts: list[str] = []
    words, before, last = 0, "", None  # `before` is the word or quoted text that a parenthesis may follow
    for found in PART.finditer(expression):
        kind, part = found.lastgroup, found[0]
        if kind == "other":
            raise ExpressionError(f"has `{part}` outside of quotes", "correct the SQL")
        if kind == "text" and last == "word":  # E'\'' is text with a quote in it
            raise ExpressionError(f"has no space between `{before}` and the quote", "correct the SQL")
        if kind == "word" and _lower(part) in REFUSED:
            raise ExpressionError(f"uses `{part}`, which is no function of one row")
        if part == "(" and before:
            _check_call(before, expression[found.end() :])
        words += kind in ("word", "operator")
        if not part.isspace():
            before = part if kind in ("word", "text") else ""
        parts.append(f"cast({part} as double)" if kind == "decimal" else part)
        last = kind
    if words > MOST_WORDS:
        raise ExpressionError(f"has more than {MOST_WORDS} words and operators", SPLIT)
    return "".join(parts)


def _check_call(name: str, rest: str) -> None:
    """Refuses a parenthesis after the name of an unknown function; `rest` follows the parenthesis."""
    name = _lower(name)
    if name not in FUNCTIONS | KEYWORDS | TYPES:
        raise ExpressionError(f"uses `{name}`, which is no function of one row")
    if name != "pi" and rest.lstrip().startswith(")"):
        raise ExpressionError(f"gives nothing to `{name}`", "correct the SQL")  # Polars panics


def _lower(word: str) -> str:
    """The word as Polars compares it: its upper case makes an `s` of the letter ſ."""
    return word.upper().lower()


def _check_steps(parsed: pl.Expr) -> None:
    """Counts no further than the limit: the operands of 20 nested functions may be copied a million times."""
    steps, left = 0, [parsed]
    while left:
        steps += 1
        if steps > MOST_STEPS:
            raise ExpressionError(f"takes more than {MOST_STEPS} steps", SPLIT)
        left += left.pop().meta.pop()
