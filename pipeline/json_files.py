"""Files of JSON: read into a model, where whatever is wrong becomes one line; written with a digest of themselves."""

import hashlib
import re
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from pipeline.errors import StrataError, invalid_file
from pipeline.storage import Folder

Model = TypeVar("Model", bound=BaseModel)
# How a sealed file begins. No writer of JSON breaks the line here and leaves out the space there: so a file that a
# program has read and written again is not taken for a damaged one, its digest counts for nothing.
SEAL = b'{\n "sha256":"'
OLD_SEAL = re.compile(rb'\{[ \t\r\n]*"sha256":[ \t\r\n]*"[^"]*",')


def sealed(content: bytes) -> bytes:
    """A JSON object with one more key, `sha256`: the digest of all bytes that follow it, by which damage shows."""
    rest = content.removeprefix(b"{")
    return _seal(rest) + rest


def load_json(kind: type[Model], folder: Folder, name: str, *, what: str, fix: str) -> Model:
    """The content of a file, checked against its digest if it has one; `what` says what it should be.

    Raises StrataError, which shows none of the content, if it cannot be read or is something else.
    """
    where = f"{folder}/{name}"
    try:
        content = folder.read(name)
    except OSError as error:
        reason = error.strerror or str(error).splitlines()[0]
        raise StrataError(f"cannot be read ({reason})", where=where, fix=fix) from None
    head = OLD_SEAL.match(content)
    rest = content[head.end() :] if head else b""
    try:
        model = kind.model_validate_json(b"{" + rest if head else content)
    except ValidationError as error:
        raise invalid_file(error, what, where=where, fix=fix) from None
    if content.startswith(SEAL) and content != _seal(rest) + rest:
        raise StrataError("is damaged (its content is not what its `sha256` says)", where=where, fix=fix)
    return model


def _seal(rest: bytes) -> bytes:
    return SEAL + hashlib.sha256(rest).hexdigest().encode() + b'",'
