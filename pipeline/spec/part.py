"""What all parts of a spec are made of: names, types, and a base class that refuses unknown keys."""

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

MOST_NAMES = 1000  # of one kind: columns of a table, features, counters
NAME_LENGTH = 100  # names become columns and parts of file names


def _raw_column(name: str) -> str:
    starts = name[:1].isalnum() or name[:1] == "_"
    if not (starts and name.isprintable() and name[-1] != " " and not {'"', "\\"} & {*name}):
        raise ValueError(
            f"Strata cannot use a column of the name {name!r}; "
            'a name starts with a letter, a digit or _, and has no ", no backslash, no control character and no blank '
            "at its end: rename the column in the log, or in a view of it"
        )
    if len(name) > NAME_LENGTH:
        raise ValueError(
            f"the name of a column has {len(name)} characters; "
            f"use at most {NAME_LENGTH}: rename the column in the log, or in a view of it"
        )
    return name


Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]*$", max_length=NAME_LENGTH)]
"""A name that the spec gives: of a feature, an objective, a scene, a table."""
RawColumn = Annotated[str, AfterValidator(_raw_column)]
"""The name of a column of a raw log. It starts with a letter of any alphabet, a digit or `_`.

It may hold blanks and signs, such as `User ID`, `it's` or `watch.time (s)`. It holds no `"` and no backslash: SQL and
JSON write it between `"`. It ends in no blank. A column that Strata adds beside those of a log starts with a blank.
"""
ColumnType = Literal["int8", "int16", "int32", "int64", "float32", "float64", "string", "bool"]
Sql = Annotated[str, StringConstraints(min_length=1)]
# Strict: a number in quotes, or `true` for 1, is a slip.
PositiveInt = Annotated[int, Field(strict=True, ge=1, lt=2**31)]
Days = Annotated[int, Field(strict=True, ge=1, le=3660)]  # ten years
Rows = Annotated[int, Field(strict=True, ge=2, lt=2**31)]  # indices are stored as int32
Weight = Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False)]
Boundary = Annotated[float, Field(strict=True, allow_inf_nan=False)]


class Part(BaseModel):
    """A part of a spec, a manifest or statistics: frozen, and an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)
