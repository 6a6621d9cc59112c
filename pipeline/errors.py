"""How Strata fails: one error that speaks to the user, turned into one line and status 2 in one place."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from pydantic import ValidationError


class StrataError(Exception):
    """A mistake in what the user gave us: says what is wrong, where, and what to do about it.

    Broken invariants of our own are `assert`s and keep their traceback; this class is for the rest.
    """

    def __init__(self, what: str, *, where: object, fix: str) -> None:
        """Joins the three parts into one line: `where: what; fix`."""
        super().__init__(" ".join(f"{where}: {what}; {fix}".split()))
        self.what, self.where, self.fix = what, where, fix

    def __reduce__(self) -> tuple[Callable[..., "StrataError"], tuple[()]]:
        """Worker processes send errors on: by default an exception is rebuilt from its one line alone."""
        return partial(type(self), self.what, where=str(self.where), fix=self.fix), ()


class LocalError(StrataError):
    """What only this process can know, such as a damaged file that it alone reads: never left to another to say."""


def invalid_file(error: ValidationError, what: str, *, where: object, fix: str) -> StrataError:
    """A file of JSON that is not `what` it should be, such as "a manifest": names the first wrong key."""
    problem = error.errors(include_url=False, include_context=False, include_input=False)[0]
    reason = _printable(problem["msg"].removeprefix("Value error, "), 120)
    key = _printable(".".join(str(part) for part in problem["loc"]), 80)
    return StrataError(f"not {what} of this version ({reason}{f' at `{key}`' if key else ''})", where=where, fix=fix)


def _printable(text: str, most: int) -> str:
    """At most so many characters, of which none does anything to a terminal."""
    text = "".join(character if character.isprintable() else "?" for character in text)
    return text if len(text) <= most else f"{text[:most]}..."


@contextmanager
def one_line_errors(quiet: bool = False) -> Iterator[None]:
    """Every command runs inside it: a mistake becomes one line on stderr and exit status 2.

    `quiet` leaves the line to another process that fails in the same way.
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
    """A value on the command line that has the right type, but that a configuration class refuses."""
    problem = error.errors()[0]
    option = ".".join(str(part) for part in problem["loc"]).replace("_", "-")
    return f"--{option}: found {problem['input']!r}; {problem['msg'][0].lower() + problem['msg'][1:]}"
