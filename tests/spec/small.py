"""A small spec in YAML, to change and to load."""

from pathlib import Path

import pytest

from pipeline.errors import StrataError
from pipeline.spec.file import load_spec
from pipeline.spec.spec import Spec

SMALL = """\
name: small
logs:
  impression:
    files: shown
    columns: {user: int64, video: int64, ms: int64, clicked: bool, seconds: float64}
    id: [user, video, ms]
    user: user
    video: video
    time: ms
    outcomes: [clicked, seconds]
counters: {days: [7], by: {user: user}, measures: {clicks: {where: clicked}}}
tables: {video: {encode: hash, rows: 10, dim: 4}}
features:
  video: {kind: id, table: video}
  tenure: {kind: dense, source: user_clicks_7d}
objectives:
  click: {kind: binary, label: clicked}
  watch: {kind: regression, label: seconds, unit: s}
scenes:
  feed: {where: "true", weights: {click: 1e-3, watch: 1}}
"""


def load(tmp_path: Path, text: str) -> Spec:
    path = tmp_path / "spec.yaml"
    path.write_text(text)
    return load_spec(path)


def refusal(tmp_path: Path, old: str, new: str) -> str:
    """The error of the spec above after a replacement, without the file's name before it."""
    assert SMALL.count(old) == 1
    with pytest.raises(StrataError) as error:
        load(tmp_path, SMALL.replace(old, new))
    line = str(error.value)
    assert "\n" not in line
    assert line.startswith(f"{tmp_path / 'spec.yaml'}")
    return line.removeprefix(f"{tmp_path / 'spec.yaml'}").removeprefix(": ")
