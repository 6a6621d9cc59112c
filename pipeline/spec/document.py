"""Reads the YAML document of a spec. No file makes this slow or takes much memory. It gives plain values only.

A spec needs no more of YAML than mappings, lists and scalars. Everything else is refused with its line: tags, anchors,
aliases, merge keys and directives, and a document that is larger or deeper than any spec.
"""

import re
import stat
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.constructor import DuplicateKeyError, SafeConstructor
from ruamel.yaml.error import MarkedYAMLError, StringMark, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    NodeEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)
from ruamel.yaml.parser import Parser
from ruamel.yaml.scanner import Scanner

from pipeline.errors import StrataError, printable

# Limits of a document. They are far above what a spec needs, and a document at all of them is read within a second.
MOST_BYTES, MOST_VALUES, MOST_LEVELS, MOST_CHARACTERS = 100_000, 5_000, 20, 10_000
# Control characters and halves of a surrogate pair. Text may have tabs and line breaks.
UNUSABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")
SHOWN = 120  # characters of an error of the YAML parser


def read_document(path: Path) -> Any:
    """The content of a file with one document of YAML 1.2: mappings, lists and scalars, None for an empty file.

    Raises StrataError with the line where something is refused.
    """
    text = _read_text(path)
    yaml = YAML(typ="safe", pure=True)
    yaml.Scanner, yaml.Parser, yaml.Constructor = _Scanner, _Parser, _Constructor
    try:
        return yaml.load(text)
    except _Refused as error:
        raise StrataError(error.problem, where=_place(path, error), fix=error.fix) from None
    except DuplicateKeyError as error:
        found = printable(str(error.problem), SHOWN)
        raise StrataError(found, where=_place(path, error), fix="a key may be given once") from None
    except MarkedYAMLError as error:
        found = printable(str(error.problem), SHOWN)
        raise StrataError(f"not valid YAML: {found}", where=_place(path, error), fix="correct the syntax") from None
    except YAMLError as error:
        found = printable(" ".join(str(error).split()), SHOWN)
        raise StrataError(f"not valid YAML: {found}", where=path, fix="correct the syntax") from None


def _read_text(path: Path) -> str:
    """The text of a regular file of at most MOST_BYTES. Others are not opened: a pipe or a device may never end."""
    try:
        regular = stat.S_ISREG(path.stat().st_mode)
        if regular:
            with path.open("rb") as file:
                content = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise _unreadable(path, str(error.strerror)) from None
    if not regular:
        raise _unreadable(path, "not a regular file")
    if len(content) > MOST_BYTES:
        raise StrataError(f"larger than {MOST_BYTES} bytes", where=path, fix="pass --spec a spec, which is far smaller")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise StrataError("not UTF-8 text", where=f"{path}, line {line}", fix="save it as UTF-8") from None
    if unusable := UNUSABLE.search(text):
        line = text.count("\n", 0, unusable.start()) + 1
        raise StrataError(_control_character(unusable), where=f"{path}, line {line}", fix="delete it")
    return text


def _unreadable(path: Path, reason: str) -> StrataError:
    fix = "pass --spec a YAML file, such as those in feature_specs/"
    return StrataError(f"the spec cannot be read ({reason})", where=path, fix=fix)


def _control_character(found: re.Match[str]) -> str:
    return f"holds the control character U+{ord(found[0]):04X}"


def _place(path: Path, error: MarkedYAMLError) -> str:
    return f"{path}, line {error.problem_mark.line + 1}" if error.problem_mark else str(path)


class _Refused(MarkedYAMLError):
    """What is valid YAML and has no place in a spec."""

    def __init__(self, found: str, fix: str, mark: StringMark) -> None:
        super().__init__(problem=found, problem_mark=mark)
        self.problem, self.fix = found, fix


def _too_deep(mark: StringMark) -> _Refused:
    return _Refused(f"nested more than {MOST_LEVELS} levels deep", "a spec needs fewer than ten", mark)


class _Scanner(Scanner):
    """Stops at brackets that are too deep: the scanner reads far ahead of the parser."""

    def fetch_flow_collection_start(self, TokenClass: Any, to_push: str) -> None:
        if self.flow_level >= MOST_LEVELS:
            raise _too_deep(self.reader.get_mark())
        super().fetch_flow_collection_start(TokenClass, to_push)


class _Parser(Parser):
    """Refuses an event before anything is made of it, so that the composer never recurses too deep."""

    def __init__(self, loader: Any) -> None:
        super().__init__(loader)
        self.values, self.level = 0, 0

    def get_event(self) -> Any:
        event = super().get_event()
        self._check(event)
        return event

    def _check(self, event: Event) -> None:
        mark = event.start_mark
        match event:
            case MappingStartEvent() | SequenceStartEvent():
                self.level += 1
                if self.level > MOST_LEVELS:
                    raise _too_deep(mark)
            case MappingEndEvent() | SequenceEndEvent():
                self.level -= 1
            case ScalarEvent():
                _check_scalar(event)
            case DocumentStartEvent() if event.version or event.tags:
                raise _Refused("a directive", "delete it: a spec is YAML 1.2", mark)
        if isinstance(event, NodeEvent):
            self.values += 1
            if self.values > MOST_VALUES:
                raise _Refused(f"more than {MOST_VALUES} keys and values", "declare only what the spec uses", mark)
            if isinstance(event, AliasEvent) or event.anchor:
                raise _Refused("an anchor or alias", "write the value where it is used", mark)
            if tag := getattr(event, "tag", None):
                raise _Refused(f"the tag {printable(str(tag), 40)}", "delete it: a spec has plain values", mark)


def _check_scalar(event: ScalarEvent) -> None:
    mark = event.start_mark
    if len(event.value) > MOST_CHARACTERS:
        raise _Refused(f"a value of {len(event.value)} characters", f"use at most {MOST_CHARACTERS}", mark)
    if unusable := UNUSABLE.search(event.value):
        raise _Refused(_control_character(unusable), "delete it", mark)
    if event.value == "<<" and event.implicit[0]:
        raise _Refused("the merge key `<<`", "write out what it stands for", mark)


class _Constructor(SafeConstructor):
    """Gives a line to a value that cannot be: a date such as 2022-13-01, a number that no column can hold."""

    def construct_object(self, node: Any, deep: bool = False) -> Any:
        try:
            value = super().construct_object(node, deep)
        except (ValueError, OverflowError) as error:
            # Of an integer with thousands of digits, Python says more about itself than about the spec.
            found = "a number beyond 64 bits" if "digits" in str(error) else printable(str(error), SHOWN)
            raise _Refused(found, "correct the value", node.start_mark) from None
        if isinstance(value, int) and not -(2**63) <= value < 2**63:
            raise _Refused("a number beyond 64 bits", "use a smaller one", node.start_mark)
        return value
