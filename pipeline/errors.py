"""How Strata fails: one error that speaks to the user, turned into one line and status 2 in one place."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager


class StrataError(Exception):
    """A mistake in what the user gave us: says what is wrong, where, and what to do about it.

    Broken invariants of our own are `assert`s and keep their traceback; this class is for the rest.
    """

    def __init__(self, what: str, *, where: object, fix: str) -> None:
        """Joins the three parts into one line: `where: what; fix`."""
        super().__init__(" ".join(f"{where}: {what}; {fix}".split()))


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Every command runs inside it: a `StrataError` becomes one line on stderr and exit status 2."""
    try:
        yield
    except StrataError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
