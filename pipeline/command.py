"""Runs a script's `main` from the command line; whatever the user got wrong there is one line, like other mistakes."""

import functools
import io
import re
import sys
from collections.abc import Callable
from contextlib import redirect_stderr

import tyro

from pipeline.errors import StrataError, one_line_errors

BOX = re.compile(r"[╭╮╰╯│─]+")
TITLE = re.compile(r"^(Required options|Invalid choice|Value error|Parsing error) ")
REFUSED = re.compile(
    r"Error parsing (?:config\.)?(\w+): \d+ validation errors? for \w+ (\w+)\S* (.+?) "
    r"\[type=.*?input_value=(.*?), input_"
)


def command(main: Callable[..., None], *, quiet: bool = False) -> None:
    """Parses the command line by the parameters of `main`, and calls it; `--help` shows its docstring.

    `quiet` leaves messages to another process that is given the same command line.
    """
    with one_line_errors(quiet):
        call = _parse(main, quiet)
        call()


def _parse(main: Callable[..., None], quiet: bool) -> Callable[[], None]:
    """`main` with its arguments. Raises StrataError if they cannot be understood."""

    @functools.wraps(main)
    def later(*arguments: object, **options: object) -> Callable[[], None]:
        return functools.partial(main, *arguments, **options)

    said = io.StringIO()
    try:
        with redirect_stderr(said):
            call: Callable[[], None] = tyro.cli(later, console_outputs=not quiet)
    except SystemExit as end:
        if end.code in (0, None):  # --help
            raise
        raise StrataError(_one_line(said.getvalue()), where=sys.argv[0], fix="see --help") from None
    return call


def _one_line(box: str) -> str:
    """The message in tyro's box, without what it says about --help."""
    text = TITLE.sub("", " ".join(BOX.sub(" ", box).split()))
    text = text.split(" For full helptext")[0].split(" Argument helptext")[0]
    refused = REFUSED.search(text)
    if refused:
        group, option, rule, found = refused.groups()
        return f"--{group}.{option.replace('_', '-')}: found {found}: {rule[0].lower()}{rule[1:]}"
    return text
