"""The page shows the store's counts, needs nothing but itself, and repeats itself to the byte."""

import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from pipeline.data_report.report import write_data_report
from pipeline.data_report.sections import sharing_ids
from pipeline.manifest import Manifest
from pipeline.statistics import Statistics

Build = Callable[..., tuple[Path, Manifest, Statistics]]


class Page(HTMLParser):
    """The visible text, the cells of each line of a table, tags, and what a page could fetch."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.lines: list[list[str]] = []
        self.tags: list[str] = []
        self.links: list[str] = []
        self.texts: list[str] = []
        self.feed(html)
        self.text = " ".join(" ".join(self.texts).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag == "tr":
            self.lines.append([])
        if tag in ("td", "th"):
            self.lines[-1].append("")
        self.links += [value or "" for name, value in attrs if name in ("src", "srcset", "href", "xlink:href", "data")]

    def handle_data(self, data: str) -> None:
        self.texts.append(data)
        if self.lines and self.lines[-1] and data.strip():
            self.lines[-1][-1] += data.strip()

    def handle_endtag(self, tag: str) -> None:
        if tag == "table":
            self.lines.append([])

    def line(self, name: str, nth: int = 0) -> list[str]:
        return [line for line in self.lines if line and line[0] == name][nth]


def written(build: Build, *args: object) -> tuple[str, Page]:
    store, manifest, statistics = build(*args)
    write_data_report(store, manifest, statistics)
    html = (store / "data.html").read_text()
    return html, Page(html)


def test_the_counts_are_those_of_the_store(build: Build) -> None:
    html, page = written(build)
    assert page.line("2026-03-04") == ["2026-03-04", "valid", "1,200", "600", "600"]
    assert page.line("click in feed")[:4] == ["click in feed", "1,800", "600", "600"]
    assert page.line("user", 1) == ["user", "hash", "101", "90", "59.1 %"]
    assert page.line("impression") == ["impression", "6,100", "6,000", "60", "40"]
    assert page.line("impression: unreadable") == ["impression: unreadable", "33"]
    assert page.line("click") == ["click", "750 (75.0 %)", "200 (20.0 %)", "50 (5.0 %)"]
    assert page.line("left out by the filter") == ["left out by the filter", "25 (0.4 %)"]
    assert page.line("without author profile") == ["without author profile", "1,500 (25.0 %)"]
    for text in ("raw/logs", "3,600 rows", "2026-03-01 to 2026-03-03", "None of the known traps"):
        assert text in page.text
    # Rows, two labels, tags and watched.
    assert page.tags.count("svg") == 5
    # The two days that are not for training, on a grey ground, in three plots by day.
    assert html.count("opacity: 0.2") == 6


def test_shares_are_those_of_the_rows(build: Build) -> None:
    def change(rows: pl.DataFrame) -> pl.DataFrame:
        third = pl.col("sample_id") % 3 == 0
        return rows.with_columns(
            feature_user=pl.when(third).then(0).otherwise("feature_user").cast(pl.Int32),
            feature_video=pl.when(third).then(0).otherwise("feature_video").cast(pl.Int32),
            feature_watched=pl.when(third).then(pl.lit([], pl.List(pl.Int32))).otherwise(pl.lit([1, 2])),
        )

    html, page = written(build, change)
    assert page.line("user")[2:5] == ["33.3 %"] * 3
    assert page.line("video", 1)[2:] == ["3,600", "33.3 %", "1,200", "33.3 %", "1,200", "33.3 %"]
    assert page.line("watched", 2) == ["watched", "2", "1.333", "33.3 %", "66.7 %", "1.333", "33.3 %", "66.7 %"]
    assert "<b>33.3 %</b>" in html


def test_warnings_stand_at_the_top_with_what_to_do(build: Build) -> None:
    store, manifest, statistics = build(lambda rows: rows.with_columns(feature_price=pl.col("label_click")))
    (finding,) = write_data_report(store, manifest, statistics)
    page = Page((store / "data.html").read_text())
    assert page.text.index(finding.what) < page.text.index(finding.fix) < page.text.index("Samples by the day")


def test_the_page_is_complete_in_itself_and_repeats_itself(build: Build) -> None:
    store, manifest, statistics = build()
    write_data_report(store, manifest, statistics)
    html = (store / "data.html").read_text()
    page = Page(html)
    assert all(link.startswith("#") for link in page.links)
    assert all(target.startswith("#") for target in re.findall(r"url\(['\"]?([^)]*)", html))
    assert not {"script", "link", "img", "iframe", "object"} & set(page.tags)
    assert "nan" not in page.text.lower().split()
    assert "None" not in page.text.replace("None of the known traps", "")
    write_data_report(store, manifest, statistics)
    assert (store / "data.html").read_text() == html
    assert sorted(file.name for file in store.iterdir()) == ["data.html", "split=test", "split=train", "split=valid"]


def test_a_store_of_one_split_and_few_rows(build: Build) -> None:
    _, page = written(build, lambda rows: rows.head(5))
    assert page.line("click in feed")[1:4] == ["3", "0", "0"]
    assert page.line("price")[5:] == ["–", "–", "–"]
    assert "nan" not in page.text.lower().split()


def test_names_are_text_not_markup(build: Build) -> None:
    store, manifest, statistics = build()
    write_data_report(store, manifest.model_copy(update={"raw_folder": "<script>"}), statistics)
    assert "<script" not in (store / "data.html").read_text()


@pytest.mark.parametrize(("distinct", "rows"), [(90, 101), (1, 2), (0, 2), (500, 40)])
def test_expected_collisions_are_those_of_dealing_at_random(distinct: int, rows: int) -> None:
    random = np.random.default_rng(0)
    shares = []
    for _ in range(300):
        dealt = np.bincount(random.integers(1, rows, distinct))
        shares.append(dealt[dealt > 1].sum() / max(distinct, 1))
    assert sharing_ids(distinct, rows) == pytest.approx(np.mean(shares), abs=0.01)
