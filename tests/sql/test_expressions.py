"""SQL expressions: lone names, decimal numbers, and which of them look at one row alone."""

import math

import polars as pl
import pytest

from pipeline.sql.expressions import ExpressionError, parse

ROWS = pl.DataFrame(
    {
        "a": [1, 86_400_001, 7],
        "b": [0, 3, 2],
        "x": [0.5, 1.5, None],
        "s": ["1.5", "b", "2026"],
        "user": [4, 5, 6],
        "tab1": [1, 2, 3],
        "is_a": [True, False, None],
        "is_b": [True, True, True],
        "t": pl.Series([0, 3_600_000, 0]).cast(pl.Datetime("ms")),
    }
)


def value(expression: str) -> list[object]:
    return ROWS.select(parse(expression).alias("value"))["value"].to_list()


def test_a_lone_name_is_a_column() -> None:
    assert value("user") == [4, 5, 6]  # a function of SQL
    assert value("true") == [True]


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("a / 86400000.0", [1 / 86_400_000, 86_400_001 / 86_400_000, 7 / 86_400_000]),
        ("1.0 / b", [math.inf, 1 / 3, 0.5]),
        ("a * 1.5e3", [1500, 129_600_001_500, 10_500]),
        ("a*.5 + 1.", [1.5, 43_200_001.5, 4.5]),
        ("-0.1 * b", [0, -0.1 * 3, -0.1 * 2]),
        ("0.1 + 0.2", [0.1 + 0.2]),
        ("1e-7", [1e-7]),
        ("x in (0.5, 2.5)", [True, False, None]),
        ("x between 1.0 and 2.0", [False, True, None]),
        ("s = '1.5'", [True, False, False]),
        ("'it''s 1.5'", ["it's 1.5"]),
        ("x + tab1", [1.5, 3.5, None]),
    ],
)
def test_numbers_with_a_decimal_point_are_floats(expression: str, expected: list[object]) -> None:
    assert value(expression) == expected


def test_a_quoted_name_keeps_its_digits() -> None:
    frame = pl.DataFrame({"v 1.5": [2]})
    assert frame.select(parse('"v 1.5" * 1.5')).item() == 3


def test_digits_after_a_name_are_no_number() -> None:
    with pytest.raises(pl.exceptions.PolarsError, match=r"'\.5'"):  # as it was written, without a cast
        parse("tab1.5")


@pytest.mark.parametrize(
    "expression",
    [
        "a",
        "1",
        "'x'",
        "true",
        "null",
        "1 + 1",
        "a + b * 2.5",
        "a % 2",
        "a in (1, 2)",
        "s not in ('a', 'b')",
        "a between 1 and 2",
        "case when a in (1, 7) then 'x' when b > 1 then 'y' else s end",
        "is_a and not is_b",
        "extract(hour from t)",
        "extract(dow from t)",
        "strptime(s, '%Y')",
        "strptime(cast(a as string), '%Y%m%d')",
        "concat(s, '-', a)",
        "s || 'x'",
        "least(a, b)",
        "greatest(a, b, 1)",
        "coalesce(x, 0)",
        "nullif(a, 1)",
        "abs(a)",
        "ln(x)",
        "power(x, 0.5)",
        "s like 'b%'",
        "upper(substr(s, 1, 2))",
        "t - interval '1 day'",
        "x is null",
        "array_length(string_to_array(s, ','))",
    ],
)
def test_ordinary_sql_looks_at_one_row(expression: str) -> None:
    assert ROWS.clear().select(parse(expression).alias("value")).width == 1


@pytest.mark.parametrize(
    "expression",
    [
        "sum(a)",
        "a - avg(a)",
        "count(*)",
        "count(distinct a)",
        "sum(1)",
        "median(x)",
        "first(a)",
        "array_agg(a)",
        "case when max(a) > 1 then a end",
        "greatest(a, max(b))",
        "a in (1, max(b))",
        "sum(case when a in (1, 2) then 1 else 0 end)",
        "max(s in ('a', 'b'))",
        "sum(a % 2)",
        "sum(a) over (partition by b)",
        "sum(a) over (order by b)",
        "rank() over (order by a)",
        "rank() over (order by s in ('a', 'b'))",
        "row_number() over (order by a)",
        "lag(a) over (order by b)",
        "lead(a % 2) over (order by b)",
        "first_value(a) over (order by b)",
        "unnest(string_to_array(s, ','))",
        '"^is_.*$"',
        '"^is_a$"',
        'coalesce("^is_.*$", false)',
        "columns('is_.*')",
        "not columns('is_a')",
    ],
)
def test_what_looks_at_other_rows_or_at_a_pattern_of_columns(expression: str) -> None:
    with pytest.raises(ExpressionError, match=r"is no function of one row|stands for several columns"):
        parse(expression)
