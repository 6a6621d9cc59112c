"""Hostile documents and values: one short line each."""

import json
import os
import time
from pathlib import Path

import pytest

from pipeline.errors import StrataError
from pipeline.spec.file import load_spec
from tests.spec.small import SMALL, load, refusal


def spread(number: int) -> str:
    """Each line names the one before it ten times."""
    return "a0: &a0 x\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, number))


def many_columns(number: int) -> str:
    return ", ".join(f"c{n}: int8" for n in range(number))


TOO_DEEP = "nested more than 20 levels deep; a spec needs fewer than ten"


HOSTILE = {
    "deep brackets": ("a: " + "[" * 1000 + "]" * 1000, 1, TOO_DEEP),
    "deep braces": ("a: " + "{b: " * 1000 + "}" * 1000, 1, TOO_DEEP),
    "deep lines": ("".join(" " * n + "a:\n" for n in range(400)), 21, TOO_DEEP),
    "deep dashes": ("- " * 40_000, 1, TOO_DEEP),
    "expanding aliases": (spread(20), 1, "an anchor or alias; write the value where it is used"),
    "an alias of itself": ("a: &a [*a]", 1, "an anchor or alias; write the value where it is used"),
    "an alias of nothing": ("a: *b", 1, "an anchor or alias; write the value where it is used"),
    "a merge key": ("a: {b: 1}\n<<: {c: 1}", 2, "the merge key `<<`; write out what it stands for"),
    "a set": (
        SMALL.replace("id: [user, video, ms]", "id: !!set {user, video, ms}"),
        6,
        "the tag tag:yaml.org,2002:set; ",
    ),
    "another YAML": ("%YAML 1.1\n---\nname: no", 2, "a directive; delete it: a spec is YAML 1.2"),
    "integer of 9,000 digits": (SMALL.replace("dim: 4", "dim: " + "9" * 9000), 12, "a number beyond 64 bits; "),
    "hexadecimal": (SMALL.replace("dim: 4", "dim: 0x" + "f" * 9000), 12, "a number beyond 64 bits; "),
    "integer of 65 bits": (SMALL.replace("dim: 4", f"dim: {2**63}"), 12, "a number beyond 64 bits; use a smaller one"),
    "integer of 90,000 digits": (
        SMALL.replace("dim: 4", "dim: " + "9" * 90_000),
        12,
        "a value of 90000 characters; use at most 10000",
    ),
    "lone surrogate": (
        SMALL.replace("unit: s", r'unit: "\ud800"'),
        18,
        "holds the control character U+D800; delete it",
    ),
    "escaped NUL": (SMALL.replace("unit: s", r'unit: "\0"'), 18, "holds the control character U+0000; delete it"),
    "escape sequence": (
        SMALL.replace("unit: s", r'unit: "\e[31m"'),
        18,
        "holds the control character U+001B; delete it",
    ),
    "thousands of columns": (
        "{" + many_columns(6000) + "}",
        1,
        "more than 5000 keys and values; declare only what the spec uses",
    ),
    "thousands of elements": ("[" + "a, " * 30_000 + "]", 1, "more than 5000 keys and values; "),
    "duplicate key in braces": ("a: {b: 1, c: 2, b: 3}", 1, 'found duplicate key "b"'),
    "long duplicate": ("a: 1\na: " + "x" * 9000, 2, 'found duplicate key "a" with value "xxx'),
    "long tag": ("a: !" + "x" * 9000 + " b", 1, "the tag !xxx"),
    "impossible zone": ("a: 2026-01-01T00:00:00+99:00", 1, "offset must be "),
}


@pytest.mark.parametrize(("text", "line", "message"), HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_document_is_one_short_line_within_a_second(
    tmp_path: Path, text: str, line: int, message: str
) -> None:
    begin = time.process_time()
    with pytest.raises(StrataError) as error:
        load(tmp_path, text)
    assert time.process_time() - begin < 1
    assert str(error.value).startswith(f"{tmp_path / 'spec.yaml'}, line {line}: {message}")
    assert "\n" not in str(error.value)
    assert len(error.value.what) < 200


LONG = "x" * 5000


REFUSED_VALUES = {
    "1e400": ("watch: 1}", "watch: 1e400}", "scenes.feed.weights.watch: found inf; input should be a finite number"),
    "not a number": (
        "watch: 1}",
        "watch: .nan}",
        "scenes.feed.weights.watch: found nan; input should be a finite number",
    ),
    "int64": (
        "dim: 4",
        f"dim: {2**63 - 1}",
        f"tables.video.dim: found {2**63 - 1}; input should be less than 2147483648",
    ),
    "days": (
        "days: [7]",
        "days: [99999999]",
        "counters.days.0: found 99999999; input should be less than or equal to 3660",
    ),
    "infinite boundary": (
        "encode: hash, rows: 10,",
        "encode: buckets, boundaries: [0, .inf],",
        "tables.video.boundaries.1: found inf; input should be a finite number",
    ),
    "boundary in quotes": (
        "encode: hash, rows: 10,",
        "encode: buckets, boundaries: ['1'],",
        "tables.video.boundaries.0: found '1'; input should be a valid number",
    ),
    "long value": (
        "dim: 4",
        f"dim: {LONG}",
        f"tables.video.dim: found '{LONG[:79]}...; input should be a valid integer",
    ),
    "long key": ("unit: s", f"? {LONG}\n    : s", f"objectives.watch.{LONG[:80]}...: unknown key; it can have kind, "),
    "long name": (
        "name: small",
        f"name: {'a' * 101}",
        f"name: found '{'a' * 79}...; string should have at most 100 char",
    ),
    "long name of a feature": (
        "  tenure:",
        f"  {'t' * 101}:",
        f"features.{'t' * 80}...: found '{'t' * 79}...; string should have at most 100 characters",
    ),
    "unknown key in a list": (
        "counters:",
        "downsample: [{where: clicked, kep: 0.5}]\ncounters:",
        "downsample.0.kep: unknown key; did you mean `keep`? (and 1 more)",
    ),
    "2,000 columns": (
        "seconds: float64}",
        f"seconds: float64, {many_columns(2000)}}}",
        "logs.impression.columns: found {'user': 'int64', 'video': ",
    ),
    "thousands of counters": (
        "days: [7]",
        f"days: [{', '.join(map(str, range(1, 1002)))}]",
        "counters: are 1001 columns, more than 1000; leave out some of `days`, `by` and `measures`",
    ),
}


@pytest.mark.parametrize(("old", "new", "message"), REFUSED_VALUES.values(), ids=REFUSED_VALUES)
def test_a_hostile_value_is_one_short_line_that_names_the_key(tmp_path: Path, old: str, new: str, message: str) -> None:
    line = refusal(tmp_path, old, new)
    assert line.startswith(message)
    assert len(line) < 1000


@pytest.mark.parametrize(
    "zone", ["localtime", "posixrules", "Factory", "/etc/localtime", "../../etc/passwd", "Asia", "utc", "right/UTC", ""]
)
def test_a_zone_is_one_that_every_machine_knows(tmp_path: Path, zone: str) -> None:
    message = f"logs.timezone: there is no time zone `{zone}`; use a name such as Asia/Shanghai"
    assert refusal(tmp_path, "logs:\n", f"logs:\n  timezone: '{zone}'\n") == message


RULE = (
    'a name starts with a letter, a digit or _, and has no ", no backslash, no control character and no blank at its '
    "end: rename the column in the log, or in a view of it"
)


@pytest.mark.parametrize(
    "name", ["^a.*$", "*", " raw id", "id ", "", " ", 'a"b', "a\\b", "a\nb", "a\tb", ".a", "'a'", "(a)", "a\u200bb"]
)
def test_a_column_that_cannot_be_used_is_refused_by_its_name(tmp_path: Path, name: str) -> None:
    line = refusal(tmp_path, "clicked: bool", f"{json.dumps(name)}: bool")
    assert line.startswith("logs.impression.columns.")
    assert f": Strata cannot use a column of the name {' '.join(repr(name).split())}; {RULE}" in line


def test_a_reference_to_a_column_is_refused_in_the_same_words(tmp_path: Path) -> None:
    line = refusal(tmp_path, "user: user\n    video", "user: '^user$'\n    video")
    assert line == f"logs.impression.user: Strata cannot use a column of the name '^user$'; {RULE}"
    line = refusal(tmp_path, "clicked: bool", f"{LONG[:101]}: bool")
    assert line.endswith(
        ": the name of a column has 101 characters; use at most 100: rename the column in the log, or in a view of it"
    )


def test_a_byte_order_mark_and_windows_line_ends_change_nothing(tmp_path: Path) -> None:
    path = tmp_path / "windows.yaml"
    path.write_bytes(SMALL.replace("\n", "\r\n").encode("utf-8-sig"))
    assert load_spec(path) == load(tmp_path, SMALL)


def test_a_large_file_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "large.yaml"
    with path.open("wb") as file:
        file.truncate(50_000_000_000)
    with pytest.raises(StrataError) as error:
        load_spec(path)
    assert str(error.value) == f"{path}: larger than 100000 bytes; pass --spec a spec, which is far smaller"


def test_a_spec_that_cannot_be_read(tmp_path: Path) -> None:
    """Nothing waits for a writer of the pipe, or for the end of a device."""
    os.mkfifo(tmp_path / "pipe")
    for path, reason in (
        (tmp_path / "none.yaml", "No such file or directory"),
        (tmp_path, "not a regular file"),
        (tmp_path / "pipe", "not a regular file"),
        (Path("/dev/zero"), "not a regular file"),
    ):
        with pytest.raises(StrataError) as error:
            load_spec(path)
        remedy = "pass --spec a YAML file, such as those in feature_specs/"
        assert str(error.value) == f"{path}: the spec cannot be read ({reason}); {remedy}"
