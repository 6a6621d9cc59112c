"""Hostile SQL in a spec: it is refused in one line and in time, and reads no file and no other row."""

import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from pipeline.errors import StrataError
from pipeline.sql.checker import MOST_SHOWN, Checker
from pipeline.sql.expressions import parse
from pipeline.sql.functions import FUNCTIONS

ROOT = Path(__file__).parents[2]
ROWS = pl.DataFrame(
    {
        "a": [1, 2, None, 1, 3],
        "b": [3, 1, 2, 1, None],
        "x": [0.5, 0.25, 1.0, None, 0.5],
        "s": ["x,y", "b", None, "x,y", "1"],
        "d": ["2026-01-04", "2026-01-05", None, "2024-02-29", "2026-01-04"],
        "p": [True, False, None, True, True],
        "t": pl.Series([0, 3_600_000, None, 0, 7]).cast(pl.Datetime("ms")),
        "list": [[1, 2], [2, 2], None, [3], [1, 2]],
        "select": [1, 2, 3, 4, 5],
    }
)


def refusal(expression: str) -> str:
    with pytest.raises(StrataError) as error:
        Checker(Path("spec.yaml")).type_of("columns.x", expression, dict(ROWS.schema))
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 2 * MOST_SHOWN + 200
    return str(error.value).removeprefix("spec.yaml: columns.x: ")


@pytest.mark.parametrize(
    "expression",
    [
        "(SELECT secret FROM read_csv('{file}'))",
        "(ſelect secret from read_csv('{file}'))",
        "a in (select secret from read_csv('{file}'))",
        "a in (values (1))",
        "exists (select 1)",
        "(with q as (select 1) select * from q)",
        "(from read_csv('{file}'))",
        "(table read_csv('{file}'))",
        "read_csv('{file}')",
        "read_parquet('{file}')",
        "E'\\' || (select secret from read_csv(\"{file}\")) || '",
        "a -- b",
        "a /* b */",
        "a; b",
        "`a`",
        "$$a$$",
        "s || 'x",
    ],
)
def test_a_query_a_comment_or_an_open_quote_is_refused(tmp_path: Path, expression: str) -> None:
    file = tmp_path / "secret.csv"
    file.write_text("password\nhunter2\n")
    message = refusal(expression.format(file=file))
    assert "does not evaluate" not in message  # Polars has not seen it
    assert not any(secret in message for secret in ("password", "hunter2"))


@pytest.mark.parametrize("function", ["now()", "current_timestamp", "CURRENT_DATE", "localtime", "random()", "uuid()"])
def test_the_clock_and_chance_are_refused_by_name(function: str) -> None:
    for expression in (f"{function} is null", f"coalesce(t, {function})"):
        name = function.removesuffix("()")
        assert f" uses `{name}`, which is no function of one row; " in refusal(expression)


AGGREGATES = """
approx_quantile array_agg avg corr count covar covar_pop covar_samp cume_dist dense_rank first first_value
generate_series group_concat grouping lag last last_value lead listagg max median min nth_value ntile percent_rank
quantile_cont quantile_disc range rank row_number stddev stddev_samp stdev stdev_samp string_agg sum total unnest var
var_samp variance columns
"""


@pytest.mark.parametrize("name", AGGREGATES.split())
@pytest.mark.parametrize("call", ["{}(a)", "{} (distinct a)", "1 + {}(a) over (order by b)", "{}(a) filter (where p)"])
def test_functions_that_look_at_other_rows_are_refused_by_name(name: str, call: str) -> None:
    assert f" uses `{name}`, which is no function of one row; " in refusal(call.format(name))


@pytest.mark.parametrize("expression", ["abs(a) over (partition by b)", "greatest(a, b) filter (where p)", '"sum"(a)'])
def test_no_function_looks_at_other_rows(expression: str) -> None:
    assert ", which is no function of one row; " in refusal(expression)


@pytest.mark.parametrize("name", ['"^a.*$"', '"^a$"', '"*"', 'coalesce("^a.*$", 1)', '"^[ab]$" + 1'])
def test_a_pattern_of_names_is_refused(name: str) -> None:
    assert " stands for several columns; " in refusal(name)


@pytest.mark.parametrize("expression", ["select", '"select" + 1', "s = 'select -- ; now()'"])
def test_in_quotes_every_word_is_a_name_or_a_text(expression: str) -> None:
    assert ROWS.select(parse(expression)).height == ROWS.height


# Calls of all functions, by the arguments that they take.
CALLS = {
    "{}(x)": """abs acos acosd asin asind atan atand cbrt ceil ceiling cos cosd cot cotd degrees erf erfc exp floor ln
        log10 log1p log2 radians round sign sin sind sqrt tan tand trunc truncate coalesce""",
    "{}(a, b)": """atan2 atan2d div log mod pow power bit_and bit_or bit_xor bitand bitor bitxor xor coalesce greatest
        ifnull least nullif""",
    "{}(a)": "bit_count bit_not bitcount bitnot",
    "{}()": "pi",
    "{}(p, a, b)": "if",
    "{}(a as double)": "cast try_cast",
    "{}(t)": "day dayofmonth dayofweek dayofyear hour minute month quarter second week year",
    "{}(d || ' 01:30', '%Y-%m-%d %H:%M')": "strptime",
    "{}(t, '%Y')": "strftime",
    "{}('dow', t)": "date_part",
    "{}(dow from t)": "extract",
    "{}(s)": """bit_length char_length character_length initcap length lower ltrim normalize octet_length reverse rtrim
        trim upper""",
    "{}(s, 'x')": "concat ends_with starts_with strpos regexp_like string_to_array",
    "{}('-', s, d)": "concat_ws",
    "{}(s, 2)": "left right substr substring",
    "{}(s, b)": "left right",
    "{}('y' in s)": "position",
    "{}(s, 'x', 'z')": "regexp_replace replace",
    "{}(s, ',', 1)": "split_part",
    "{}(list)": """array_length array_lower array_mean array_reverse array_sum array_unique array_upper""",
    "{}(list, 1)": "array_contains array_get",
    "{}(list, '-')": "array_to_string",
}
EXAMPLES = [call.format(name) for call, names in CALLS.items() for name in names.split()]


def test_there_is_an_example_of_every_function() -> None:
    assert {name for names in CALLS.values() for name in names.split()} == FUNCTIONS


@pytest.mark.parametrize("example", EXAMPLES)
def test_the_value_of_a_row_depends_on_that_row_alone(example: str) -> None:
    value = parse(example).alias("value")
    together = ROWS.with_columns(value)["value"]
    alone = [ROWS[at].with_columns(value)["value"] for at in range(len(ROWS))]
    assert pl.concat(alone).equals(together)
    assert ROWS.reverse().with_columns(value)["value"].reverse().equals(together)
    assert pl.concat([ROWS, ROWS.head(2)]).with_columns(value)["value"].head(len(ROWS)).equals(together)


LARGE = {
    "long": "s = '" + "x" * 10_000 + "'",
    "many operators": "a" + "+a" * 3_000,
    "many conditions": "a=1" + " or a=1" * 1_200,
    "parentheses": "(" * 3_000 + "a" + ")" * 3_000,
    "intervals": "interval " * 1_000 + "1",
    "signs": "- " * 4_000 + "a",
    "copied operands": "left(" * 20 + "s" + ",a)" * 20,
    "copied operands without parentheses": "a" + " between 1 and 2" * 60,
}


@pytest.mark.parametrize("expression", LARGE.values(), ids=LARGE)
def test_an_expression_that_would_stop_polars_is_refused(expression: str) -> None:
    """Polars would take minutes or overflow its stack: this test would not end, or end the process."""
    refusal(expression)


@pytest.mark.parametrize("guess", ["date(s)", "time(s)", "timestamp(s)", "datetime(s)"])
def test_a_time_in_a_format_that_the_first_row_decides_is_refused(guess: str) -> None:
    assert "no function of one row" in refusal(guess)


def test_a_long_list_of_values_is_no_large_expression() -> None:
    assert ROWS.select(parse(f"a in (1{', 2' * 3_000})")).height == len(ROWS)


@pytest.mark.parametrize("name", ["intervals", "copied operands"])
def test_a_large_expression_ends_the_command_with_one_line(tmp_path: Path, name: str) -> None:
    spec = tmp_path / "spec.yaml"
    shipped = (ROOT / "feature_specs" / "short_video.yaml").read_text()
    spec.write_text(shipped.replace("position: {kind: dense}", f'position: {{kind: dense, source: "{LARGE[name]}"}}'))
    command = [sys.executable, ROOT / "scripts" / "build_samples.py", "--spec", spec, "--explain"]
    command += ["--raw", tmp_path / "raw", "--out", tmp_path / "out"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "features.position.source: `" in done.stderr
