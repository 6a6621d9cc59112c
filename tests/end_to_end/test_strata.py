"""The examples of `strata COMMAND --help`, one after the other, lead from nothing to a comparison."""

import re
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from pipeline.commands.strata import COMMANDS

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
# What pip writes for the entry of pyproject.toml.
ENTRY = "import sys\nfrom pipeline.commands.strata import main\nif __name__ == '__main__':\n    sys.exit(main())\n"
SMALLER = {
    "simulate": "--users 200 --videos 100 --new-videos 5 --days 5 --impressions 12000",
    "train": "--loop.batch-size 512 --loop.epochs 1 --device cpu --model.expert 16",
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, environment: dict[str, str]) -> Path:
    """The folder in which the examples were run, the training by two ranks."""
    place = tmp_path_factory.mktemp("place")
    (place / "feature_specs").symlink_to(ROOT / "feature_specs")
    (place / "strata").write_text(ENTRY)
    for name in COMMANDS:
        if name == "compare":
            shutil.copytree(place / "demo" / "run", place / "demo" / "mmoe")
        torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"] if name == "train" else []
        example = f"{import_module(f'pipeline.commands.{name}').EXAMPLE} {SMALLER.get(name, '')}"
        words = [sys.executable, *torchrun, "strata", name, *example.split()]
        done = subprocess.run(words, cwd=place, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    return place


def test_the_examples_lead_from_nothing_to_a_comparison(place: Path):
    assert {path.name for path in (place / "demo").iterdir()} == {
        *("raw", "samples", "run", "report", "mmoe", "comparison")
    }
    for report in ("report", "comparison"):
        assert "<html" in (place / "demo" / report / "report.html").read_text()


def test_the_notebook_page_runs_as_it_stands(place: Path, environment: dict[str, str]):
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "notebook.md").read_text(), re.DOTALL)
    assert len(blocks) == 5
    program = "\n".join([*blocks, "import sys", "assert 'torch' not in sys.modules"])
    words = [sys.executable, "-W", "error", "-c", program]
    done = subprocess.run(words, cwd=place, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "loss_click" in done.stdout


def test_one_process_says_that_it_is_one(place: Path, environment: dict[str, str], tmp_path: Path):
    options = (
        f"--spec feature_specs/short_video.yaml --samples demo/samples --out {tmp_path / 'run'} {SMALLER['train']}"
    )
    words = [sys.executable, "strata", "train", *options.split()]
    done = subprocess.run(words, cwd=place, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    said = [line for line in done.stderr.splitlines() if "torchrun" in line]
    assert len(said) == 1
    assert "one process; `torchrun --nproc-per-node N` uses more" in said[0]
