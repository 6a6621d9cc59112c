"""A spec's file is YAML 1.2; every mistake in it is one line with the file, the key, what was found and the remedy."""

from pathlib import Path

import pytest

from pipeline.errors import StrataError
from pipeline.spec.file import load_spec
from pipeline.spec.objectives import RegressionObjective
from tests.spec.small import SMALL, load, refusal


def test_scalars_are_those_of_yaml_1_2(tmp_path: Path) -> None:
    """PyYAML, of YAML 1.1, reads `no`, `on` and `yes` as booleans and 1e-3 as text."""
    spec = load(tmp_path, SMALL.replace("files: shown", "files: no").replace("unit: s", "unit: on"))
    assert spec.scenes["feed"].weights == {"click": 0.001, "watch": 1.0}
    assert spec.logs.impression.files == "no"
    watch = spec.objectives["watch"]
    assert isinstance(watch, RegressionObjective)
    assert watch.unit == "on"


def test_comments_and_layout_leave_the_fingerprint_alone(tmp_path: Path) -> None:
    laid_out = "# why\n" + SMALL.replace("{kind: id, table: video}", "# which\n    kind: id\n    table: video")
    assert load(tmp_path, laid_out).fingerprint() == load(tmp_path, SMALL).fingerprint()


MISTAKES = {
    "unknown key": ("\ncounters:", "\ncounter:", "counter: unknown key; did you mean `counters`?"),
    "unknown key in the logs": (
        "files: shown",
        "file: shown",
        "logs.impression.file: unknown key; did you mean `files`? (and 1 more)",
    ),
    "unknown key in a feature": (
        "kind: id, table: video",
        "kind: id, table: video, sourc: user",
        "features.video.sourc: unknown key; did you mean `source`?",
    ),
    "unknown key in an objective": (
        "kind: binary, label: clicked",
        "kind: binary, label: clicked, if: clicked",
        "objectives.click.if: unknown key; it can have kind, label, where",
    ),
    "unknown key in a measure": (
        "{where: clicked}",
        "{wher: clicked}",
        "counters.measures.clicks.wher: unknown key; did you mean `where`?",
    ),
    "missing key": ("    files: shown\n", "", "logs.impression.files: missing; add it"),
    "missing section": (
        'scenes:\n  feed: {where: "true", weights: {click: 1e-3, watch: 1}}\n',
        "",
        "scenes: missing; add it",
    ),
    "missing kind": (
        "{kind: binary, label",
        "{label",
        "objectives.click: `kind` is missing; add `kind`, which says what it is",
    ),
    "unknown kind": ("kind: binary", "kind: binry", "objectives.click: found kind 'binry'; use 'binary', 'regression'"),
    "wrong type": ("dim: 4", "dim: wide", "tables.video.dim: found 'wide'; input should be a valid integer"),
    "number in quotes": ("dim: 4", "dim: '16'", "tables.video.dim: found '16'; input should be a valid integer"),
    "true for 1": ("dim: 4", "dim: true", "tables.video.dim: found True; input should be a valid integer"),
    "weight in quotes": (
        "watch: 1}",
        "watch: '1.0'}",
        "scenes.feed.weights.watch: found '1.0'; input should be a valid number",
    ),
    "infinite weight": (
        "watch: 1}",
        "watch: .inf}",
        "scenes.feed.weights.watch: found inf; input should be a finite number",
    ),
    "too many rows": (
        "rows: 10",
        "rows: 10000000000",
        "tables.video.rows: found 10000000000; input should be less than 2147483648",
    ),
    "empty text": (
        "files: shown",
        "files: ''",
        "logs.impression.files: found ''; string should have at least 1 character",
    ),
    "empty list": (
        "days: [7]",
        "days: []",
        "counters.days: found []; list should have at least 1 item after validation, not 0",
    ),
    "out of range": ("rows: 10", "rows: 1", "tables.video.rows: found 1; input should be greater than or equal to 2"),
    "negative weight": (
        "click: 1e-3",
        "click: -1",
        "scenes.feed.weights.click: found -1; input should be greater than or equal to 0",
    ),
    "unknown column type": (
        "clicked: bool",
        "clicked: flag",
        "logs.impression.columns.clicked: found 'flag'; input "
        "should be 'int8', 'int16', 'int32', 'int64', 'float32', 'float64', 'string' or 'bool'",
    ),
    "name with a capital": (
        "  tenure:",
        "  Tenure:",
        "features.Tenure: found 'Tenure'; string should match pattern '^[a-z][a-z0-9_]*$'",
    ),
    "key that is no text": ("name: small", "name: small\n1: x", "1: found 1; keys should be strings"),
    "parts that disagree": (
        "table: video}",
        "table: clip}",
        "features.video.table: there is no table `clip`; use one of video, or declare it under `tables`",
    ),
    "duplicate key": (
        "unit: s",
        "unit: s, label: clicked",
        ', line 18: found duplicate key "label" with value "clicked" (original value: "seconds"); '
        "a key may be given once",
    ),
}


@pytest.mark.parametrize(("old", "new", "message"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_one_line_that_names_the_key_and_the_remedy(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    assert refusal(tmp_path, old, new) == message


@pytest.mark.parametrize(
    ("content", "where", "message"),
    [
        (b"", "", "the spec is not a mapping; start from one in feature_specs/"),
        (b"- a\n- b\n", "", "the spec is not a mapping; start from one in feature_specs/"),
        (b"name: [a\n", ", line 2", "not valid YAML: "),
        (b"name:\n\tlogs: 1\n", ", line 2", "not valid YAML: "),
        (b"name: a\n---\nname: b\n", ", line 2", "not valid YAML: "),
        (b"name: small\nunit: a\x00b\n", ", line 2", "holds the control character U+0000; delete it"),
        ("name: café\n".encode("latin-1"), ", line 1", "not UTF-8 text; save it as UTF-8"),
        (SMALL.encode("utf-16"), ", line 1", "not UTF-8 text; save it as UTF-8"),
        (SMALL.encode("utf-16-le"), ", line 1", "holds the control character U+0000; delete it"),
        (b"name: 2026-13-01\n", ", line 1", "month must be in 1..12; correct the value"),
        (b"name: !!python/object:os.system {}\n", ", line 1", "the tag tag:yaml.org,2002:python/object:os.syst"),
    ],
)
def test_what_is_no_yaml_is_one_line(tmp_path: Path, content: bytes, where: str, message: str) -> None:
    path = tmp_path / "spec.yaml"
    path.write_bytes(content)
    with pytest.raises(StrataError) as error:
        load_spec(path)
    assert str(error.value).startswith(f"{path}{where}: {message}")
    assert "\n" not in str(error.value)
