"""The architecture of design.md as a test: reads every file's imports, and fails on one that runs the wrong way."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# What each room may import of ours, besides itself. The foundation (the spec, and the modules directly under pipeline/)
# is open to every room, and imports none.
MAY_IMPORT: dict[str, set[str]] = {
    "foundation": set(),
    "sql": {"foundation"},
    "raw": {"foundation", "sql"},
    "simulation": {"foundation"},
    "samples": {"foundation", "sql", "raw"},
    "audit": {"foundation", "sql", "raw"},
    "page": {"foundation"},
    "data_report": {"foundation", "page"},
    "batches": {"foundation"},
    "models": {"foundation"},
    "training": {"foundation", "batches", "models"},
    "evaluation": {"foundation", "page"},
    "notebook": {"foundation", "evaluation"},
    "commands": {
        *("foundation", "simulation", "samples", "audit", "data_report"),
        *("batches", "models", "training", "evaluation"),
    },
    # Commands are wrappers; benchmarks and their peers read stores, batches and the model.
    "scripts": {"foundation", "commands", "batches", "models", "training"},
}
FOUNDATION_FOLDERS = {"spec"}
TORCH = {"torch", "torchrec", "fbgemm_gpu", "tensordict", "torchmetrics"}
POLARS = {"polars"}
PANDAS = {"pandas"}
FORBIDDEN_LIBRARIES: dict[str, set[str]] = {
    "foundation": TORCH | POLARS | PANDAS,
    "sql": TORCH | PANDAS,
    "raw": TORCH | PANDAS,
    "simulation": TORCH | PANDAS,
    "samples": TORCH | PANDAS,
    "audit": TORCH | PANDAS,
    "page": TORCH | POLARS | PANDAS,
    "data_report": TORCH | PANDAS,
    "evaluation": TORCH | PANDAS,
    "notebook": TORCH | PANDAS,
    "batches": POLARS | PANDAS,
    "models": POLARS | PANDAS,
    "training": POLARS | PANDAS,
    "commands": PANDAS,
    "scripts": PANDAS,
}
ROW_LOOPS = {"map_elements", "map_rows", "iterrows", "itertuples"}
# In these, `.apply` is torch's: of a module's weights, of an autograd function.
TORCH_ROOMS = {"models", "training"}
VAGUE_NAME = re.compile(r"(^|_)(utils?|helpers?|managers?)(_|$)")


def python_files(root: Path) -> list[Path]:
    return sorted(p for top in ("pipeline", "models", "scripts") for p in (root / top).rglob("*.py"))


def room_of(parts: tuple[str, ...]) -> str | None:
    """The room of a dotted name or path, given in parts; None if it is not ours."""
    if parts[0] != "pipeline":
        return parts[0] if parts[0] in ("models", "scripts", "tests") else None
    return parts[1] if len(parts) > 1 and parts[1] in MAY_IMPORT else "foundation"


def imported_names(tree: ast.AST, package: tuple[str, ...]) -> Iterator[tuple[int, tuple[str, ...]]]:
    """Line and dotted name, in parts, of each import at any depth; relative ones are resolved within `package`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, tuple(alias.name.split("."))) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = tuple(node.module.split(".")) if node.module else ()
            yield from ((node.lineno, (*base, *module, alias.name)) for alias in node.names)


def breaches(root: Path) -> list[str]:
    """One line `file:line: what` for each breach below `root`."""
    found = []
    for file in python_files(root):
        path = file.relative_to(root)
        parts = path.with_suffix("").parts
        found += [f"{path}: `{name}` says nothing" for name in parts if VAGUE_NAME.search(name)]
        if parts[0] == "pipeline" and len(parts) > 2 and parts[1] not in MAY_IMPORT.keys() | FOUNDATION_FOLDERS:
            found.append(f"{path}: `{parts[1]}` is no room of design.md")
            continue
        room = room_of(parts)
        assert room is not None
        tree = ast.parse(file.read_text(encoding="utf-8"))
        # Benchmarks measure Strata against pandas.
        measures_peers = path.match("scripts/bench_*.py") or path.match("scripts/sample_peers/*.py")
        forbidden = FORBIDDEN_LIBRARIES[room] - (PANDAS if measures_peers else set())
        for line, name in imported_names(tree, parts[:-1]):
            target = room_of(name)
            if name[0] in forbidden:
                found.append(f"{path}:{line}: {room} imports the library {name[0]}")
            elif target not in (None, room) and target not in MAY_IMPORT[room]:
                found.append(f"{path}:{line}: {room} imports {target}")
        loops = ROW_LOOPS if room in TORCH_ROOMS else ROW_LOOPS | {"apply"}
        found += [
            f"{path}:{node.lineno}: `.{node.func.attr}` loops over rows"
            for node in ast.walk(tree)
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in loops
        ]
    return found


def test_imports_run_one_way_and_the_seams_hold():
    assert ROOT / "pipeline" / "spec" / "spec.py" in python_files(ROOT)
    assert breaches(ROOT) == []


@pytest.mark.parametrize(
    ("path", "source", "breach"),
    [
        ("pipeline/spec/spec.py", "from pipeline.raw import reading", "spec.py:1: foundation imports raw"),
        ("pipeline/columns.py", "from pipeline.sql import types", "columns.py:1: foundation imports sql"),
        ("pipeline/sql/a.py", "from pipeline.raw import reading", "a.py:1: sql imports raw"),
        ("pipeline/audit/a.py", "import pipeline.samples", "a.py:1: audit imports samples"),
        ("pipeline/audit/a.py", "import pipeline.data_report", "a.py:1: audit imports data_report"),
        ("pipeline/samples/a.py", "import pipeline.audit", "a.py:1: samples imports audit"),
        ("pipeline/simulation/a.py", "import pipeline.samples", "a.py:1: simulation imports samples"),
        ("pipeline/raw/a.py", "from pipeline.samples.store import x", "a.py:1: raw imports samples"),
        ("pipeline/raw/a.py", "from pipeline import samples", "a.py:1: raw imports samples"),
        ("pipeline/raw/a.py", "from ..samples import x", "a.py:1: raw imports samples"),
        ("pipeline/raw/a.py", "def f():\n    import pipeline.samples", "a.py:2: raw imports samples"),
        ("pipeline/samples/a.py", "import pipeline.batches", "a.py:1: samples imports batches"),
        ("pipeline/batches/a.py", "import pipeline.samples", "a.py:1: batches imports samples"),
        ("models/a.py", "from pipeline.samples import x", "a.py:1: models imports samples"),
        ("models/a.py", "import pipeline.training", "a.py:1: models imports training"),
        ("pipeline/evaluation/a.py", "import pipeline.training", "a.py:1: evaluation imports training"),
        ("pipeline/data_report/a.py", "import pipeline.samples", "a.py:1: data_report imports samples"),
        ("pipeline/data_report/a.py", "import pipeline.evaluation", "a.py:1: data_report imports evaluation"),
        ("pipeline/data_report/a.py", "import torch", "a.py:1: data_report imports the library torch"),
        ("pipeline/evaluation/a.py", "import pipeline.data_report", "a.py:1: evaluation imports data_report"),
        ("pipeline/page/a.py", "import pipeline.evaluation", "a.py:1: page imports evaluation"),
        ("pipeline/page/a.py", "import polars", "a.py:1: page imports the library polars"),
        ("pipeline/evaluation/a.py", "import models.heads", "a.py:1: evaluation imports models"),
        ("pipeline/training/a.py", "import pipeline.evaluation", "a.py:1: training imports evaluation"),
        ("pipeline/training/a.py", "import scripts.train", "a.py:1: training imports scripts"),
        ("pipeline/notebook/a.py", "import pipeline.samples", "a.py:1: notebook imports samples"),
        ("pipeline/notebook/a.py", "import pipeline.training", "a.py:1: notebook imports training"),
        ("pipeline/notebook/a.py", "import torch", "a.py:1: notebook imports the library torch"),
        ("pipeline/samples/a.py", "import pipeline.commands", "a.py:1: samples imports commands"),
        ("pipeline/commands/a.py", "import pipeline.notebook", "a.py:1: commands imports notebook"),
        ("scripts/a.py", "import pipeline.samples", "a.py:1: scripts imports samples"),
        ("scripts/a.py", "import pipeline.evaluation", "a.py:1: scripts imports evaluation"),
        ("scripts/a.py", "from tests import x", "a.py:1: scripts imports tests"),
        ("pipeline/raw/a.py", "import torch", "a.py:1: raw imports the library torch"),
        ("pipeline/samples/a.py", "from torchrec.sparse import x", "a.py:1: samples imports the library torchrec"),
        ("pipeline/evaluation/a.py", "import fbgemm_gpu", "a.py:1: evaluation imports the library fbgemm_gpu"),
        ("pipeline/errors.py", "import torch", "errors.py:1: foundation imports the library torch"),
        ("pipeline/batches/a.py", "import polars as pl", "a.py:1: batches imports the library polars"),
        ("models/a.py", "from polars import col", "a.py:1: models imports the library polars"),
        ("pipeline/training/a.py", "import polars", "a.py:1: training imports the library polars"),
        ("scripts/a.py", "import pandas", "a.py:1: scripts imports the library pandas"),
        ("pipeline/samples/a.py", "frame.apply(f)", "a.py:1: `.apply` loops over rows"),
        ("models/a.py", "\nx.map_elements(f)", "a.py:2: `.map_elements` loops over rows"),
        ("pipeline/raw/log_utils.py", "", "log_utils.py: `log_utils` says nothing"),
        ("pipeline/helpers/a.py", "", "a.py: `helpers` says nothing"),
        ("pipeline/serving/a.py", "", "a.py: `serving` is no room of design.md"),
    ],
)
def test_a_planted_breach_is_caught(tmp_path: Path, path: str, source: str, breach: str):
    plant(tmp_path, path, source)
    assert breach in "\n".join(breaches(tmp_path))


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("pipeline/samples/a.py", "import polars\nfrom pipeline.raw import x\nfrom pipeline.spec.spec import Spec"),
        ("pipeline/data_report/a.py", "import polars, pyarrow\nfrom pipeline.page.render import render"),
        ("pipeline/training/a.py", "import torch\nimport models\nfrom ..batches import x\nfrom . import loop"),
        ("models/a.py", "import torch\nfrom pipeline.spec.spec import Spec\nmodule.apply(reset)"),
        ("scripts/bench_samples.py", "import pandas, torch\nfrom pipeline.batches import x"),
    ],
)
def test_an_import_along_the_direction_is_no_breach(tmp_path: Path, path: str, source: str):
    plant(tmp_path, path, source)
    assert breaches(tmp_path) == []


def plant(root: Path, path: str, source: str) -> None:
    (root / path).parent.mkdir(parents=True)
    (root / path).write_text(source, encoding="utf-8")


@pytest.mark.parametrize(
    ("rooms", "library"),
    [
        (
            (
                "foundation",
                "sql",
                "raw",
                "simulation",
                "samples",
                "audit",
                "page",
                "data_report",
                "evaluation",
                "notebook",
            ),
            "torch",
        ),
        (("page", "batches", "models", "training"), "polars"),
    ],
)
def test_the_libraries_we_use_do_not_cross_the_seam_either(rooms: tuple[str, ...], library: str):
    """Really imports every module of the rooms, as one library may import another."""
    paths = [p.relative_to(ROOT).with_suffix("").parts for p in python_files(ROOT) if p.stem != "__init__"]
    modules = [".".join(parts) for parts in paths if room_of(parts) in rooms]
    program = f"import {', '.join(modules) or 'pipeline'}, sys; sys.exit({library!r} in sys.modules)"
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)


# Of sample building, in the order in which they run (deal's results are found again by pieces).
STAGES = ("deal", "pieces", "profiles", "units", "attribute", "sum_counters", "draft", "learn", "write")


def samples_imports(module: str) -> set[str]:
    """What a module of the samples room imports of that room, such as `kept.results` or `stages.deal`."""
    path = ROOT / "pipeline" / "samples" / f"{module.replace('.', '/')}.py"
    names = imported_names(ast.parse(path.read_text(encoding="utf-8")), path.relative_to(ROOT).parts[:-1])
    inside = [name[2:-1] for _, name in names if name[:2] == ("pipeline", "samples")]
    return {".".join(name) for name in inside}


def test_a_stage_builds_on_earlier_ones_and_functions_on_frames_on_none():
    samples = ROOT / "pipeline" / "samples"
    assert {path.stem for path in (samples / "stages").glob("*.py")} == set(STAGES)
    assert "stages.deal" in samples_imports("stages.pieces")
    for at, stage in enumerate(STAGES):
        assert not samples_imports(f"stages.{stage}") & {f"stages.{later}" for later in STAGES[at:]}
    for path in (samples / "frames").glob("*.py"):
        # Functions on frames know nothing of files, receipts and partitions.
        assert {name.split(".")[0] for name in samples_imports(f"frames.{path.stem}")} <= {"frames"}, path
    for path in (samples / "kept").glob("*.py"):
        assert {name.split(".")[0] for name in samples_imports(f"kept.{path.stem}")} <= {"kept"}, path


def test_only_the_engines_know_ray():
    for file in python_files(ROOT):
        names = imported_names(ast.parse(file.read_text(encoding="utf-8")), file.relative_to(ROOT).parts[:-1])
        assert file.name == "engines.py" or "ray" not in {name[0] for _, name in names}, file
