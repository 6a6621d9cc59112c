"""A user's mistakes: status 2, one line that says what, where and what to do, and nothing left behind."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from pipeline.samples.build import build_samples
from pipeline.simulation.config import SimulationConfig
from pipeline.simulation.simulate import simulate_logs
from pipeline.spec.file import load_spec

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]


class Mistake(NamedTuple):
    """A program, its options, and the parts that its one line must have. `--out` is added where it is missing."""

    program: list[str]
    options: dict[str, object]
    says: list[object]


class Outcome(NamedTuple):
    """What a command did: its status, what it printed, and its --out with what that folder held before and after."""

    status: int
    stdout: str
    stderr: str
    before: list[Path]
    after: list[Path]


def change(path: Path, before: str, after: str, name: str) -> Path:
    """A copy of a spec with one change, beside nothing else."""
    text = path.read_text()
    assert before in text
    return write(name, text.replace(before, after, 1))


def write(name: str, text: str) -> Path:
    Path(name).write_text(text)
    return Path(name)


@pytest.fixture(scope="module")
def mistakes(
    tmp_path_factory: pytest.TempPathFactory, raw_log: Path, samples: Path, spec_path: Path, trained: Path
) -> dict[str, Mistake]:
    """The table of the issue, and a wrong value for every option that names a place."""
    place = tmp_path_factory.mktemp("mistakes")
    nowhere, empty, note = place / "nowhere", place / "empty", place / "note.txt"
    empty.mkdir()
    note.touch()
    typo = change(spec_path, "min_count", "min_cuont", f"{place}/typo.yaml")
    never = change(spec_path, "label: like}", "label: like and position < 0}", f"{place}/never.yaml")

    cut_log = shutil.copytree(raw_log, place / "cut log")
    cut_file = min((cut_log / "click").iterdir())
    cut_file.write_bytes(cut_file.read_bytes()[:-100])
    lacking = shutil.copytree(raw_log, place / "lacking log")
    shutil.rmtree(lacking / "like")
    (lacking / "like").mkdir()
    likes = write(f"{lacking}/like/likes.csv", "impression_id,user_id\n1,1\n")

    cut = shutil.copytree(samples, place / "cut samples")
    cut_part = min(cut.glob("split=train/*/*.parquet"))
    cut_part.write_bytes(cut_part.read_bytes()[:-1])
    unfinished = shutil.copytree(samples, place / "unfinished samples")
    (unfinished / "manifest.json").unlink()
    young = place / "young run"
    young.mkdir()
    shutil.copy(trained / "config.json", young)
    log = place / "other log"
    simulate_logs(SimulationConfig(users=30, videos=30, days=3, impressions=3000), load_spec(spec_path), log)
    others = place / "other samples"
    build_samples(change(spec_path, "hash, rows: 20000", "hash, rows: 10000", f"{place}/other.yaml"), log, others)

    usual: dict[str, dict[str, object]] = {
        "strata simulate": {"--spec": spec_path, "--impressions": 100, "--days": 1},
        "strata build": {"--spec": spec_path, "--raw": raw_log},
        "strata train": {"--spec": spec_path, "--samples": samples},
        "strata evaluate": {"--run": trained, "--samples": samples},
        "strata trian": {},
        "simulate_logs": {"--spec": spec_path, "--impressions": 100, "--days": 1},
        "build_samples": {"--spec": spec_path, "--raw": raw_log},
        "train": {"--spec": spec_path, "--samples": samples},
        "evaluate": {"--run": trained, "--samples": samples},
    }
    found: dict[str, Mistake] = {}

    def add(name: str, options: dict[str, object], *says: object) -> None:
        command = name.split(":")[0]
        script, *words = command.split()
        path = "pipeline/commands/strata.py" if words else f"scripts/{script}.py"
        found[name] = Mistake([f"{ROOT}/{path}", *words], usual[command] | options, [*says])

    add("simulate_logs: no spec", {"--spec": nowhere}, nowhere, "pass --spec")
    add("simulate_logs: out is a file", {"--out": note}, note, "choose another --out")
    add("simulate_logs: out holds something", {"--out": raw_log}, raw_log, "choose another --out")
    add("simulate_logs: out below a file", {"--out": note / "log"}, note, "choose another --out")
    add("simulate_logs: no users", {"--users": 0}, "--users", "0", "greater than 0")
    add("simulate_logs: a share above one", {"--late-rate": 1.5}, "--late-rate", "1.5", "less than or equal to 1")
    add("build_samples: no spec", {"--spec": nowhere}, nowhere, "pass --spec")
    add("build_samples: no raw", {"--raw": nowhere}, nowhere, "no such folder", "pass --raw")
    add("build_samples: empty raw", {"--raw": empty}, empty, "no files of the table", "put them there")
    add("build_samples: out holds something", {"--out": raw_log}, raw_log, "choose another --out")
    add("build_samples: too little memory", {"--memory": 0.1}, "--memory", "0.1 GB are too little", "give at least")
    add("build_samples: typo in the spec", {"--spec": typo}, typo, "min_cuont", "did you mean `min_count`")
    add("build_samples: label always 0", {"--spec": never}, never, "objectives.like.label is always 0", "correct the")
    add("build_samples: truncated Parquet", {"--raw": cut_log}, cut_file, "cannot be read", "replace or remove")
    add("build_samples: CSV without a column", {"--raw": lacking}, likes, "`time_ms` is missing", "correct the file")
    add("train: no spec", {"--spec": nowhere}, nowhere, "pass --spec")
    add("train: no samples", {"--samples": nowhere}, nowhere, "no sample store", "run scripts/build_samples.py")
    add("train: raw logs as samples", {"--samples": raw_log}, raw_log, "no sample store")
    add("train: samples without manifest", {"--samples": unfinished}, unfinished, "no sample store")
    add("train: truncated samples", {"--samples": cut}, cut_part, "bytes long", "build the samples again")
    add("train: another spec", {"--spec": never}, samples, "another version of the spec", never, "build the samples")
    add("train: out is a run", {"--out": trained}, trained, "already holds a run", "--resume")
    add("train: out holds something", {"--out": raw_log}, raw_log, "is no run", "choose another --out")
    add("train: out is a file", {"--out": note}, note, "is no run", "choose another --out")
    add("train: another model", {"--out": trained, "--resume": "", "--model.head": "mmoe"}, trained, "--model")
    add("train: no epochs", {"--loop.epochs": 0}, "--loop.epochs", "0", "greater than 0")
    add("train: a negative rate", {"--dense.learning-rate": -1}, "--dense.learning-rate", "-1", "greater than 0")
    add("train: all dropped out", {"--model.dropout": 1}, "--model.dropout", "1", "less than 1")
    add("evaluate: no run", {"--run": nowhere}, nowhere, "is no run", "scripts/train.py")
    add("evaluate: empty run", {"--run": empty}, empty, "is no run", "scripts/train.py")
    add("evaluate: run without checkpoint", {"--run": young}, young, "no complete checkpoint", "scripts/train.py")
    add("evaluate: no samples", {"--samples": nowhere}, nowhere, "no sample store", "scripts/build_samples.py")
    add("evaluate: truncated samples", {"--samples": cut}, cut_part, "bytes long", "build the samples again")
    add(
        "evaluate: other samples",
        {"--samples": others},
        trained,
        f"cannot be used on {others}",
        "another tables.user.rows",
    )
    add("evaluate: no truth", {"--truth": nowhere}, nowhere)
    add("evaluate: out holds something", {"--out": samples}, samples, "choose another --out")
    add("strata trian: no such command", {}, "no command `trian`", "did you mean `train`?")
    add("strata simulate: no users", {"--users": 0}, "--users", "0", "greater than 0")
    add("strata build: no raw", {"--raw": nowhere}, nowhere, "no such folder", "pass --raw")
    add("strata train: no samples", {"--samples": nowhere}, nowhere, "no sample store")
    add("strata train: no such option", {"--sped": 1}, "--sped: there is no such option; did you mean --spec?")
    add("strata evaluate: no run", {"--run": nowhere}, nowhere, "is no run")
    return found


NAMES = """
    simulate_logs: no spec | simulate_logs: out is a file | simulate_logs: out holds something
    simulate_logs: out below a file | simulate_logs: no users | simulate_logs: a share above one
    build_samples: no spec | build_samples: no raw | build_samples: empty raw | build_samples: out holds something
    build_samples: too little memory | build_samples: typo in the spec | build_samples: label always 0
    build_samples: truncated Parquet | build_samples: CSV without a column
    train: no spec | train: no samples | train: raw logs as samples | train: samples without manifest
    train: truncated samples | train: another spec | train: out is a run | train: out holds something
    train: out is a file | train: another model | train: no epochs | train: a negative rate | train: all dropped out
    evaluate: no run | evaluate: empty run | evaluate: run without checkpoint | evaluate: no samples
    evaluate: truncated samples | evaluate: other samples | evaluate: no truth | evaluate: out holds something
    strata trian: no such command | strata simulate: no users | strata build: no raw | strata train: no samples
    strata train: no such option | strata evaluate: no run
"""
EVERY = [name.strip() for line in NAMES.strip().splitlines() for name in line.split("|")]


@pytest.fixture(scope="module")
def outcomes(
    tmp_path_factory: pytest.TempPathFactory, mistakes: dict[str, Mistake], environment: dict[str, str]
) -> dict[str, Outcome]:
    """What each command line did, all of them run by one process that has the libraries imported."""
    assert list(mistakes) == EVERY
    outs, lines = [], []
    for program, options, _ in mistakes.values():
        out = options.setdefault("--out", tmp_path_factory.mktemp("out") / "new")
        assert isinstance(out, Path)
        outs.append(out)
        words = [str(word) for pair in options.items() for word in pair if word != ""]
        lines.append([*program, *words])
    before = [held(out) for out in outs]
    runner = [sys.executable, str(Path(__file__).parent / "run_commands.py"), json.dumps(lines)]
    done = subprocess.run(runner, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    results = zip(json.loads(done.stdout), before, map(held, outs), strict=True)
    return {name: Outcome(*result, *folders) for name, (result, *folders) in zip(mistakes, results, strict=True)}


def held(out: Path) -> list[Path]:
    """All there is in the folder of an --out, but for the work with which the next build of samples goes on."""
    found = sorted(out.parent.rglob("*")) if out.parent.is_dir() else []
    if out.is_dir() and [path.name for path in out.iterdir()] == [".work"]:
        found.remove(out)
    return [path for path in found if out / ".work" not in (path, *path.parents)]


@pytest.mark.parametrize("name", EVERY)
def test_a_mistake_is_one_line_and_leaves_nothing(
    name: str, mistakes: dict[str, Mistake], outcomes: dict[str, Outcome]
):
    outcome = outcomes[name]
    # Stages announced before the mistake was found, as "[    0.1 s] reading click", are no part of the message.
    lines = [line for line in outcome.stderr.splitlines() if not line.startswith("[ ")]
    assert (outcome.status, len(lines)) == (2, 1), outcome.stderr
    assert lines[0].startswith("error: ")
    assert [part for part in map(str, mistakes[name].says) if part not in lines[0]] == []
    assert "Traceback" not in outcome.stderr
    assert outcome.stdout == ""
    assert outcome.after == outcome.before


def test_under_torchrun_the_line_comes_once_and_first(tmp_path: Path, command: Callable, spec_path: Path):
    done = command("train.py", "--spec", spec_path, "--samples", tmp_path, "--out", tmp_path / "run", ranks=2)
    assert done.returncode != 0
    first, *rest = done.stderr.splitlines()
    assert first == f"error: {tmp_path}: no sample store (it has no manifest.json); run scripts/build_samples.py"
    assert "error: " not in "\n".join(line for line in rest if str(tmp_path) in line)
    assert "NCCL" not in done.stderr
    assert not (tmp_path / "run").exists()
