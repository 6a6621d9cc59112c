"""The documents name files that exist, and the README stays short."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
# A link to another file, without its heading.
LINK = re.compile(r"\]\(([^)#\s]+)[^)]*\)")
# A file of the repository, wherever a page names it: in a sentence, a table or a command.
REPOSITORY_PATH = re.compile(r"(?<![\w./-])(?:pipeline|models|scripts|feature_specs|docs|tests)/[\w./-]*\w")
NEWCOMERS_ROW = re.compile(r"^\| (?P<question>.+\?) \| `(?P<file>[^`]+)` \|$", re.MULTILINE)
COMMAND = re.compile(r"^ {4}\S*(?:python|torchrun)\b.*?(?P<script>\S+\.py)\b", re.MULTILINE)


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def missing_links(page: Path) -> Iterator[str]:
    for target in LINK.findall(page.read_text()):
        file = (page.parent / target).resolve()
        if "://" not in target and not file.exists():
            yield target


def missing_files(text: str) -> set[str]:
    return {path for path in REPOSITORY_PATH.findall(text) if not (ROOT / path).exists()}


def test_the_readme_has_at_most_150_lines_of_at_most_120_characters() -> None:
    lines = (ROOT / "README.md").read_text().splitlines()
    assert len(lines) <= 150
    assert [line for line in lines if len(line) > 120] == []


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_to_files_that_exist(page: Path) -> None:
    assert set(missing_links(page)) == set()


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_files_that_are_named_exist(page: Path) -> None:
    assert missing_files(page.read_text()) == set()


def test_a_file_that_is_gone_is_noticed() -> None:
    text = "see `pipeline/gone.py`, `scripts/train.py` and\n    python scripts/gone.py --out pipeline/sql\n"
    assert missing_files(text) == {"pipeline/gone.py", "scripts/gone.py"}


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_commands_run_scripts_that_exist(page: Path) -> None:
    scripts = COMMAND.findall(page.read_text())
    assert [script for script in scripts if not (ROOT / script).is_file()] == []


def test_the_index_links_to_every_page() -> None:
    links = set(LINK.findall((ROOT / "docs" / "README.md").read_text()))
    pages = {page.name for page in (ROOT / "docs").glob("*.md")} - {"README.md"}
    assert pages - links == set()


def test_the_readmes_tree_has_every_folder_of_the_pipeline() -> None:
    captions = re.findall(r"^ {4,}(\w+)/ ", (ROOT / "README.md").read_text(), re.MULTILINE)
    folders = {file.parent.name for file in (ROOT / "pipeline").glob("*/**/*.py")}
    assert folders - set(captions) == set()


def test_the_newcomers_table_answers_15_questions_with_files_that_exist() -> None:
    rows = NEWCOMERS_ROW.findall((ROOT / "docs" / "newcomers.md").read_text())
    assert len({question for question, _ in rows}) == len(rows) >= 15
    assert [file for _, file in rows if not (ROOT / file).is_file()] == []
