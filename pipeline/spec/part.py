"""What all parts of a spec are made of: names, types, and a base class that refuses unknown keys."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]*$")]
ColumnType = Literal["int8", "int16", "int32", "int64", "float32", "float64", "string", "bool"]
Sql = Annotated[str, StringConstraints(min_length=1)]
# Strict: a number in quotes, or `true` for 1, is a slip.
PositiveInt = Annotated[int, Field(strict=True, ge=1)]
Rows = Annotated[int, Field(strict=True, ge=2, lt=2**31)]  # indices are stored as int32
Weight = Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False)]


class Part(BaseModel):
    """A part of a spec, a manifest or statistics: frozen, and an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)
