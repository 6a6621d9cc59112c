"""The functions that an SQL expression of a spec may use: the value of a row depends on that row alone."""

NUMBERS = """
abs acos acosd asin asind atan atan2 atan2d atand cbrt ceil ceiling cos cosd cot cotd degrees div erf erfc exp floor ln
log log10 log1p log2 mod pi pow power radians round sign sin sind sqrt tan tand trunc truncate
bit_and bit_count bit_not bit_or bit_xor bitand bitcount bitnot bitor bitxor xor
"""
CHOICES = "cast coalesce greatest if ifnull least nullif try_cast"
TIMES = """
date_part day dayofmonth dayofweek dayofyear extract hour minute month quarter second strftime strptime week year
"""
TEXTS = """
bit_length char_length character_length concat concat_ws ends_with initcap left length lower ltrim normalize
octet_length position regexp_like regexp_replace replace reverse right rtrim split_part starts_with strpos substr
substring trim upper
"""
LISTS = """
array_contains array_get array_length array_lower array_mean array_reverse array_sum array_to_string array_unique
array_upper string_to_array
"""
# Kept out: aggregates, windows and orders look at other rows. The clock differs from run to run. `columns` and `unnest`
# give several values. With `generate_series`, `lpad` and `rpad` one row may fill the memory.
# `date`, `datetime`, `time` and `timestamp` guess a format from the first row; `strptime` is told one. Polars 2.1.0 has
# `date_trunc` for constants only.
FUNCTIONS = frozenset(f"{NUMBERS} {CHOICES} {TIMES} {TEXTS} {LISTS}".split())

# Other words that may stand before a parenthesis.
KEYWORDS = frozenset({"and", "any", "between", "case", "else", "from", "in", "is", "like", "not", "or", "then", "when"})
TYPES = frozenset({"char", "decimal", "numeric", "varchar"})

# Words without a parenthesis: a query begins with the first, the others are the clock.
REFUSED = frozenset({"select", "current_date", "current_time", "current_timestamp", "localtime", "localtimestamp"})
