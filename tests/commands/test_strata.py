"""The console command `strata`: what it lists, and what it says of a command that it does not know."""

import subprocess
import sys
import tomllib
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest

from pipeline.commands.strata import COMMANDS

ROOT = Path(__file__).parents[2]
PROGRAM = "import sys; from pipeline.commands.strata import main; main(); assert 'torch' not in sys.modules"
Strata = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def strata(environment: dict[str, str]) -> Strata:
    """Runs `strata`, which must not import torch, with some words."""

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-c", PROGRAM, *words], env=environment, capture_output=True, text=True)

    return run


def test_the_package_installs_the_command():
    entry = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]["strata"]
    module, _, function = entry.partition(":")
    assert getattr(import_module(module), function).__name__ == "main"


def test_alone_it_lists_the_commands_in_the_order_of_the_flow(strata: Strata):
    alone, helped = strata(), strata("--help")
    assert (alone.returncode, alone.stderr) == (0, "")
    assert alone.stdout == helped.stdout
    listed = [line.split()[0] for line in alone.stdout.splitlines() if line.startswith("  ")]
    assert listed == list(COMMANDS) == ["simulate", "build", "train", "evaluate", "compare"]
    assert alone.stdout.splitlines()[-1].startswith("Next: .venv/bin/strata simulate --help")
    assert max(map(len, alone.stdout.splitlines())) <= 100


def test_it_tells_its_version(strata: Strata):
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert strata("--version").stdout == f"strata {declared}\n"


@pytest.mark.parametrize(
    ("word", "line"),
    [
        ("trian", "error: strata: there is no command `trian`; did you mean `train`?\n"),
        ("xyz", f"error: strata: there is no command `xyz`; the commands are {', '.join(COMMANDS)}\n"),
    ],
)
def test_an_unknown_command_is_one_line(word: str, line: str, strata: Strata):
    done = strata(word, "--spec", "a.yaml")
    assert (done.returncode, done.stdout, done.stderr) == (2, "", line)


def test_a_reader_that_has_enough_of_the_help_ends_it_in_silence(environment: dict[str, str]):
    """As in `strata simulate --help | head -3`."""
    words = [sys.executable, "-m", "pipeline.commands.strata", "simulate", "--help"]
    with subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stderr
        process.stdout.close()
        assert process.stderr.read() == ""
