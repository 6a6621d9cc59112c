from pathlib import Path

import pytest
from jinja2 import UndefinedError

from pipeline.page.render import render


@pytest.fixture
def template(tmp_path: Path) -> Path:
    (tmp_path / "greeting.html").write_text("Hello {{ name }}, you are {{ place | count }}th.")
    return tmp_path / "greeting.html"


def test_values_are_text_not_markup(template: Path) -> None:
    assert render(template, name="<b>you</b>", place=12345) == b"Hello &lt;b&gt;you&lt;/b&gt;, you are 12,345th."


def test_a_forgotten_value_is_an_error(template: Path) -> None:
    with pytest.raises(UndefinedError, match="name"):
        render(template, place=1)


def test_a_template_elsewhere_extends_the_frame(tmp_path: Path) -> None:
    (tmp_path / "own.html").write_text('{% extends "base.html" %}{% block main %}mine{% endblock %}')
    spec = {"name": "tiny", "fingerprint": lambda: "f00"}
    page = render(tmp_path / "own.html", kind="Kind", title="Title", head=[("rows", "7")], spec=spec).decode()
    assert page.startswith("<!doctype html>")
    for part in ("<title>Title · kind</title>", "<dt>rows</dt><dd>7</dd>", "mine", "f00"):
        assert part in page
