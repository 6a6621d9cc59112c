"""Turns a command line into a call of a function: its types parse the options, its docstring is the help.

A command line that cannot be understood is one line on stderr and status 2, like every other mistake of a user.
"""

import functools
import inspect
import io
import os
import re
import shutil
import signal
import sys
import textwrap
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from difflib import get_close_matches

import tyro
from tyro import _errors as tyro_events  # private; tried with tyro 1.0.17, which pyproject.toml pins

from pipeline.errors import StrataError, one_line_errors

RULE = re.compile(r"-{5,}")
TITLE = re.compile(r"^(Invalid choice|Missing argument|Value error|Parsing error) ")
REFUSED = re.compile(
    r"Error parsing (?:config\.)?(\w+): \d+ validation errors? for \w+ (\w+)\S* (.+?) "
    r"\[type=.*?input_value=(.*?), input_"
)
OPTION = re.compile(r"--[a-z][\w.-]*")
WIDTH = 120  # characters; in a wider terminal tyro would put options side by side
# What tyro's help is spared: rules, and that an option that may be left out is None without it.
PLAINER = {
    re.compile(r"^ -+ *\n", re.MULTILINE): "",
    re.compile(r"^  -+ *$", re.MULTILINE): "",
    re.compile(r"\{None\}\|(\S+)"): r"\1" + len("{None}|") * " ",  # what follows keeps its place
    re.compile(r"\s*\(default:\s+None\)"): "",
    re.compile(r"\(default:\s+\)"): "(default: none)",
    re.compile(r" +$", re.MULTILINE): "",
}
INDENTED = re.compile(r"^( {6,})\S.*(?:\n\1\S.*)+", re.MULTILINE)


def run_script(main: Callable[..., None], example: str) -> None:
    """Calls `main` with what the command line of this script says; `example` is a set of options that works."""
    run_command(main, f".venv/bin/python {os.path.relpath(sys.argv[0])}", sys.argv[1:], example)


def run_command(main: Callable[..., None], program: str, words: Sequence[str], example: str) -> None:
    """Calls `main` with what `words` say; `program` is what a user types before them.

    Of the ranks that torchrun starts with one command line, only the first prints help and mistakes.
    """
    with one_line_errors(quiet=not is_first_rank()):
        call = _parse(main, program, words, example)
        call()


def is_first_rank() -> bool:
    """True for the process that speaks to the user; also without torchrun, where there is only one."""
    return os.environ.get("RANK", "0") == "0"


def _parse(main: Callable[..., None], program: str, words: Sequence[str], example: str) -> Callable[[], None]:
    """`main` with its arguments. Raises StrataError if they cannot be understood, and SystemExit after the help."""

    @functools.wraps(main)
    def later(*arguments: object, **options: object) -> Callable[[], None]:
        return functools.partial(main, *arguments, **options)

    def refuse(event: tyro_events.ParseErrorEvent) -> None:
        match event:
            case tyro_events.UnrecognizedArgs(tokens=[first, *_]):
                raise _unknown(first, _options(later), program)
            case tyro_events.MissingArgs(unrecognized_tokens=[first, *_]):
                raise _unknown(first, _options(later), program)
            case tyro_events.MissingArgs(missing_arguments=missing):
                names = ", ".join(argument.arg.display_name() for argument in missing)
                raise StrataError("missing", where=names, fix=f"for example: {program} {example}")

    _refuse_twice(words)
    width = min(shutil.get_terminal_size().columns, WIDTH)
    if not {"-h", "--help"}.isdisjoint(words):
        os.environ["COLUMNS"] = str(width)  # where tyro looks; the process ends with the help
    said = io.StringIO()
    try:
        with redirect_stdout(said), redirect_stderr(said), tyro_events.on_parse_error(refuse):
            call: Callable[[], None] = tyro.cli(later, prog=program, description="", args=words)
    except SystemExit as end:
        if end.code not in (0, None):
            raise StrataError(_one_line(said.getvalue()), where=program, fix="see --help") from None
        if is_first_rank():
            signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `--help | head` ends in silence
            print(_help(main, program, example, said.getvalue(), width))
        raise
    return call


def _refuse_twice(words: Sequence[str]) -> None:
    """Raises StrataError if an option is given twice: tyro would silently take the last."""
    seen = set()
    for word in words:
        if option := OPTION.match(word):
            name = option[0].replace("_", "-").replace("--no-", "--")
            if name in seen:
                raise StrataError("given twice", where=name, fix="give it once")
            seen.add(name)


def _options(main: Callable[..., object]) -> list[str]:
    """All options of `main`."""
    said = io.StringIO()
    with redirect_stdout(said):
        try:
            tyro.cli(main, args=["--help"])
        except SystemExit:
            return sorted({option.rstrip(".") for option in OPTION.findall(said.getvalue())})
    raise AssertionError("tyro leaves after --help")


def _unknown(token: str, options: Sequence[str], program: str) -> StrataError:
    word = token.split()[0].split("=")[0]
    what = "there is no such option" if word.startswith("-") else "belongs to no option"
    near = get_close_matches(word.replace("_", "-"), options, n=1)
    return StrataError(what, where=word, fix=f"did you mean {near[0]}?" if near else f"see {program} --help")


def _help(main: Callable[..., None], program: str, example: str, by_tyro: str, width: int) -> str:
    """An example, what the docstring says of the command, and tyro's list of options."""
    gap = " " if len(f"{program} {example}") <= width else " \\\n    "
    summary = (inspect.getdoc(main) or "").partition("\n\nArgs:")[0]
    paragraphs = [_filled(paragraph, width) for paragraph in summary.split("\n\n")]
    _, _, options = by_tyro.partition("\n\n")  # without its line on the usage
    for pattern, replacement in PLAINER.items():
        options = pattern.sub(replacement, options)
    # tyro keeps the line breaks of a docstring.
    options = INDENTED.sub(lambda lines: _filled(" ".join(lines[0].split()), width, lines[1]), options)
    return "\n\n".join([f"{program}{gap}{example}", *paragraphs, options.strip("\n")])


def _filled(text: str, width: int, indent: str = "") -> str:
    return textwrap.fill(text, width, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False)


def _one_line(message: str) -> str:
    """The message of tyro without its title, and without what it says about --help."""
    text = TITLE.sub("", " ".join(RULE.sub(" ", message).split()))
    text = text.split(" For full helptext")[0].split(" Argument helptext")[0]
    refused = REFUSED.search(text)
    if refused:
        group, option, rule, found = refused.groups()
        return f"--{group}.{option.replace('_', '-')}: found {found}: {rule[0].lower()}{rule[1:]}"
    return text
