"""What a command line that cannot be understood says, and what --help shows."""

import ast
import re
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Annotated, Literal

import pytest
import tyro
from pydantic import BaseModel, PositiveInt

from pipeline.commands.command_line import run_command
from pipeline.commands.strata import COMMANDS

ROOT = Path(__file__).parents[2]
EXAMPLE = "--spec my.yaml --out new"
Refused = Callable[[str], str]


class Loop(BaseModel):
    """How long to train."""

    batch_size: PositiveInt = 8
    """Rows of a batch."""


class Config(BaseModel):
    """Everything."""

    spec: Path
    """The spec."""
    out: Path
    """The new folder."""
    since: str | None = None
    """First day."""
    resume: bool = False
    """Go on."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Precision of the products of a network, which is the greater part of all that a step computes.
    The tables stay fp32."""
    widths: tuple[int, ...] = ()
    """Layers."""
    loop: Loop = Loop()


def main(config: Annotated[Config, tyro.conf.arg(name="")]) -> None:
    """Prints the options.

    It reads nothing.
    """
    print(config.model_dump_json())


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Refused:
    """The line on stderr after some words; nothing is on stdout, and the status is 2."""

    def run(words: str) -> str:
        with pytest.raises(SystemExit) as end:
            run_command(main, "bin/strata go", words.split(), EXAMPLE)
        said = capsys.readouterr()
        assert (end.value.code, said.out) == (2, "")
        assert said.err.count("\n") == 1
        return said.err.removeprefix("error: ").removesuffix("\n")

    return run


def test_the_words_reach_the_function(capsys: pytest.CaptureFixture[str]):
    run_command(main, "bin/strata go", [*EXAMPLE.split(), "--loop.batch_size", "3", "--widths", "8", "4"], EXAMPLE)
    assert Config.model_validate_json(capsys.readouterr().out) == Config(
        spec=Path("my.yaml"), out=Path("new"), widths=(8, 4), loop=Loop(batch_size=3)
    )


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("", f"--spec, --out: missing; for example: bin/strata go {EXAMPLE}"),
        ("--spec a", f"--out: missing; for example: bin/strata go {EXAMPLE}"),
        ("--sped a --out b", "--sped: there is no such option; did you mean --spec?"),
        ("--spec a --out b --batch-size=3", "--batch-size: there is no such option; did you mean --loop.batch-size?"),
        ("--spec a --out b --zzz", "--zzz: there is no such option; see bin/strata go --help"),
        ("--spec a --out b c", "c: belongs to no option; see bin/strata go --help"),
        ("--spec a --spec b --out c", "--spec: given twice; give it once"),
        ("--spec a --out b --resume --no-resume", "--resume: given twice; give it once"),
        ("--spec a --out b --loop.batch-size 1 --loop.batch_size=2", "--loop.batch-size: given twice; give it once"),
        (
            "--spec a --out b --precision fp8",
            "bin/strata go: invalid choice 'fp8' for argument '--precision'. Expected one of ('fp32', 'bf16').; "
            "see --help",
        ),
        (
            "--spec a --out b --loop.batch-size many",
            "bin/strata go: Error parsing --loop.batch-size: invalid literal for int() with base 10: 'many'; "
            "see --help",
        ),
        (
            "--spec a --out b --loop.batch-size 0",
            "bin/strata go: --loop.batch-size: found 0: input should be greater than 0; see --help",
        ),
    ],
)
def test_a_wrong_command_line_is_one_line(words: str, line: str, refused: Refused):
    assert refused(words) == line


def test_only_the_first_rank_speaks(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setenv("RANK", "1")
    for words, status in ((["--help"], 0), (["--zzz"], 2)):
        with pytest.raises(SystemExit) as end:
            run_command(main, "bin/strata go", words, EXAMPLE)
        assert end.value.code == status
    assert capsys.readouterr() == ("", "")


def help_of(main: Callable[..., None], program: str, example: str, capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as end:
        run_command(main, program, ["--help"], example)
    assert end.value.code == 0
    return capsys.readouterr().out


def test_help_is_an_example_then_what_it_does_then_the_options(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("COLUMNS", "80")
    assert help_of(main, "bin/strata go", EXAMPLE, capsys) == (
        """\
bin/strata go --spec my.yaml --out new

Prints the options.

It reads nothing.

 options
  -h, --help                show this help message and exit
  --spec PATH               The spec. (required)
  --out PATH                The new folder. (required)
  --since STR               First day.
  --resume, --no-resume     Go on. (default: False)
  --precision {fp32,bf16}   Precision of the products of a network, which is the
                            greater part of all that a step computes. The tables
                            stay fp32. (default: fp32)
  --widths [INT [INT ...]]  Layers. (default: none)

 loop options
  How long to train.

  --loop.batch-size INT     Rows of a batch. (default: 8)
"""
    )


@pytest.mark.parametrize("columns", [80, 120, 200])
@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_a_command_fits_the_terminal(
    name: str, columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("COLUMNS", str(columns))
    command = import_module(f"pipeline.commands.{name}")
    text = help_of(command.main, f".venv/bin/strata {name}", command.EXAMPLE, capsys)
    first = f".venv/bin/strata {name} {command.EXAMPLE}"
    assert text.replace("\\\n    ", "").startswith(f"{first}\n\n")
    assert max(map(len, text.splitlines())) <= min(columns, 120)
    assert "None" not in text
    assert "----" not in text


def scripts_with_an_example() -> dict[str, str]:
    """Example by script, both as they stand in its last line."""
    found = {}
    for path in sorted((ROOT / "scripts").rglob("*.py")):
        if call := re.search(r"run_script\(main, (.*)\)$", path.read_text(), re.MULTILINE):
            name = path.relative_to(ROOT).as_posix()
            found[name] = call[1].strip('"')
    return found


@pytest.mark.parametrize(("script", "example"), scripts_with_an_example().items())
def test_a_script_begins_with_the_example_of_its_help(script: str, example: str):
    tree = ast.parse((ROOT / script).read_text())
    if example == "EXAMPLE":
        imports = [node for node in tree.body if isinstance(node, ast.ImportFrom)]
        (module,) = (str(node.module) for node in imports if node.names[0].name == example)
        example = import_module(module).EXAMPLE
    assert (ast.get_docstring(tree) or "").splitlines()[2] == f".venv/bin/python {script} {example}"
