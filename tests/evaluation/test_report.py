"""The page shows every figure that means something, says where there is none, and needs no other file."""

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from pipeline.evaluation.measure import measure
from pipeline.evaluation.report import write_report
from pipeline.spec.spec import Spec

CURVE = [
    {"step": 10 * step, "split": split, "loss": 1 / step, "objectives": {"click": 0.5 / step, "watch": 2 / step}}
    for step in range(1, 5)
    for split in ("train", "valid")
]


class Page(HTMLParser):
    """The visible text, the cells of tables, and every attribute by which a page could fetch something."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.cells: list[str] = []
        self.tags: list[str] = []
        self.links: list[str] = []
        self.texts: list[str] = []
        self.inside = ""
        self.feed(html)
        self.text = " ".join(" ".join(self.texts).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.inside = tag
        if tag in ("td", "th"):
            self.cells.append("")
        self.links += [value or "" for name, value in attrs if name in ("src", "srcset", "href", "xlink:href", "data")]

    def handle_data(self, data: str) -> None:
        if self.inside != "style":
            self.texts.append(data)
        if self.inside in ("td", "th"):
            self.cells[-1] += data.strip()

    def handle_endtag(self, tag: str) -> None:
        self.inside = ""

    def row(self, name: str) -> list[str]:
        start = self.cells.index(name)
        return self.cells[start : start + 9]


def write(spec: Spec, rows: pl.LazyFrame, folder: Path, curve: list[dict[str, Any]], run: str = "run-1") -> str:
    context: dict[str, str | int] = {"run": run, "split": "test", "rows": 12345, "samples": "out/samples"}
    write_report(spec, measure(spec, rows), rows, curve, context, folder / "report.html")
    assert [file.name for file in folder.iterdir()] == ["report.html"]
    return (folder / "report.html").read_text()


@pytest.fixture(scope="module")
def html(spec: Spec, predictions: pl.LazyFrame, tmp_path_factory: pytest.TempPathFactory) -> str:
    return write(spec, predictions, tmp_path_factory.mktemp("report"), CURVE)


def test_every_objective_scene_and_fact_is_there(spec: Spec, html: str) -> None:
    page = Page(html)
    for text in (
        "run-1",
        "12,345",
        "out/samples",
        spec.fingerprint(),
        "Scene feed",
        "Scene player",
        "tab = 1",
        "Scene search",
    ):
        assert text in page.text
    # click and like: overall and in two scenes; watch: overall and in one.
    assert [page.cells.count(name) for name in ("click", "like", "watch (s)")] == [3, 3, 2]
    # Log loss: -(ln 0.8 + ln 0.4 + ln 0.6 + ln 0.8 + ln 0.1 + ln 0.3) / 6, and over ln 2; calibration: 2.6 / 3.
    assert page.row("click") == ["click", "240", "120 (50.0 %)", "0.5000", "0.5000", "40", "0.8967", "1.2936", "0.8667"]
    # Two plots per objective, and curves of the total loss, click and watch.
    assert page.tags.count("svg") == 2 * 3 + 3


def test_the_page_fetches_nothing(html: str) -> None:
    page = Page(html)
    assert page.links
    assert all(link.startswith("#") for link in page.links)
    assert all(target.startswith("#") for target in re.findall(r"url\(['\"]?([^)]*)", html))
    assert not {"script", "link", "img", "iframe", "object"} & set(page.tags)
    assert "@import" not in html
    assert len(html) < 300_000


def test_too_few_is_said_instead_of_a_number(html: str) -> None:
    page = Page(html)
    assert page.row("like")[:4] == ["like", "80", "0 (0.0 %)", "too few"]
    assert "too few positives: 0 of the 20 needed" in page.text


def test_no_rows_at_all(spec: Spec, predictions: pl.LazyFrame, tmp_path: Path) -> None:
    page = Page(write(spec, predictions.clear(), tmp_path, []))
    assert page.text.count("Too few rows to draw: 0.") == 3
    assert "svg" not in page.tags
    assert "None" not in page.text
    assert "nan" not in page.text.lower().split()


def test_predictions_all_alike_can_be_drawn(spec: Spec, predictions: pl.LazyFrame, tmp_path: Path) -> None:
    alike = predictions.with_columns(pred_click=pl.lit(0.0), pred_watch=pl.lit(0.0))
    assert Page(write(spec, alike, tmp_path, [])).tags.count("svg") == 6


def test_names_are_text_not_markup(spec: Spec, predictions: pl.LazyFrame, tmp_path: Path) -> None:
    html = write(spec, predictions.clear(), tmp_path, [], run="<script>alert(1)</script>")
    assert "&lt;script&gt;" in html
    assert "<script" not in html


def test_the_same_figures_give_the_same_page(spec: Spec, predictions: pl.LazyFrame, html: str, tmp_path: Path) -> None:
    assert write(spec, predictions, tmp_path, CURVE) == html
