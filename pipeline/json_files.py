"""Files of JSON: read into a model, where whatever is wrong becomes one line; written with a digest of themselves."""

import hashlib
import re
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from pipeline.errors import StrataError, invalid_file
from pipeline.storage import Folder

Model = TypeVar("Model", bound=BaseModel)
DIGEST = re.compile(rb'\{[ \t\r\n]*"sha256":[ \t\r\n]*"([^"]*)",')


def sealed(content: bytes) -> bytes:
    """A JSON object with a first key `sha256`: the digest of all bytes that follow it, by which damage shows."""
    rest = content.removeprefix(b"{")
    return b'{\n "sha256": "' + hashlib.sha256(rest).hexdigest().encode() + b'",' + rest


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
    if digest := DIGEST.match(content):
        rest = content[digest.end() :]
        if hashlib.sha256(rest).hexdigest().encode() != digest[1]:
            raise StrataError("is damaged (its content is not what its `sha256` says)", where=where, fix=fix)
        content = b"{" + rest
    try:
        return kind.model_validate_json(content)
    except ValidationError as error:
        raise invalid_file(error, what, where=where, fix=fix) from None
