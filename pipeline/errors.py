"""The error that Strata raises for a user's mistake, and the one place that turns it into a line and status 2."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from pydantic import ValidationError


class StrataError(Exception):
    """A mistake in what the user gave: what is wrong, where, and how to fix it.

    A broken invariant of Strata is no such mistake. It is an `assert`, and keeps its traceback.
    """

    def __init__(self, what: str, *, where: object, fix: str) -> None:
        """The message is one line: `where: what; fix`."""
        super().__init__(" ".join(f"{where}: {what}; {fix}".split()))
        self.what, self.where, self.fix = what, where, fix

    def __reduce__(self) -> tuple[Callable[..., "StrataError"], tuple[()]]:
        """How a worker process sends the error to its parent. By default pickle calls the class with the line alone."""
        return partial(type(self), self.what, where=str(self.where), fix=self.fix), ()


class LocalError(StrataError):
    """A mistake that only this process sees, such as a damaged file that no other rank reads. Every rank prints it."""


def invalid_file(error: ValidationError, what: str, *, where: object, fix: str) -> StrataError:
    """A file of JSON that is not `what` it should be, such as "a manifest": names the first wrong key."""
    problem = error.errors(include_url=False, include_context=False, include_input=False)[0]
    reason = printable(problem["msg"].removeprefix("Value error, "), 120)
    key = printable(".".join(str(part) for part in problem["loc"]), 80)
    return StrataError(f"not {what} of this version ({reason}{f' at `{key}`' if key else ''})", where=where, fix=fix)


def printable(text: str, most: int) -> str:
    """The first `most` characters, of which none does anything to a terminal."""
    text = "".join(character if character.isprintable() else "?" for character in text)
    return text if len(text) <= most else f"{text[:most]}..."


@contextmanager
def one_line_errors(quiet: bool = False) -> Iterator[None]:
    """Every command runs in this block. A mistake ends the process with one line on stderr and status 2.

    With `quiet`, another process that fails in the same way prints the line.
    """
    try:
        yield
    except (StrataError, ValidationError) as error:
        if not quiet or isinstance(error, LocalError):
            print(f"error: {_option_error(error) if isinstance(error, ValidationError) else error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        if not quiet:
            print("interrupted; nothing half-written is left", file=sys.stderr)
        sys.exit(130)


def _option_error(error: ValidationError) -> str:
    """The line for an option whose value has the right type and is refused by a configuration class."""
    problem = error.errors()[0]
    option = ".".join(str(part) for part in problem["loc"]).replace("_", "-")
    return f"--{option}: found {problem['input']!r}; {problem['msg'][0].lower() + problem['msg'][1:]}"
