"""scripts/install.sh says in one line what is wrong, with status 2, and knows when there is nothing to do."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """As much of a fresh clone as the installation reads."""
    (tmp_path / "scripts").mkdir()
    shutil.copy(ROOT / "scripts" / "install.sh", tmp_path / "scripts")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def install(checkout: Path, **environment: object) -> tuple[int, list[str]]:
    """Status and lines on stderr of an installation for which no package index can be reached."""
    unreachable = {"PIP_CONFIG_FILE": os.devnull, "PIP_INDEX_URL": "http://127.0.0.1:9/", "PIP_RETRIES": 1}
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("PIP_") and k not in ("PYTHON", "DEVICE")}
    variables = inherited | {k: str(v) for k, v in (unreachable | environment).items()}
    done = subprocess.run(
        ["bash", checkout / "scripts" / "install.sh"], env=variables, capture_output=True, text=True, check=False
    )
    return done.returncode, done.stderr.splitlines()


def program(path: Path, body: str) -> Path:
    path.write_text(f"#!/bin/sh\n{body}\n", encoding="utf-8")
    path.chmod(0o755)
    return path


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("echo 3.9 /usr/bin/python3.9", "is version 3.9"),
        ("exit 127", "does not run"),
        ('case "$2" in *ensurepip*) exit 1;; *) echo 3.12 /usr/bin/python3.12;; esac', "has no venv module"),
    ],
)
def test_a_python_that_cannot_be_used_is_named_with_the_reason(checkout: Path, body: str, reason: str):
    python = program(checkout / "python", body)
    status, (line,) = install(checkout, PYTHON=python)
    assert status == 2
    assert f"({python} {reason})" in line
    assert not (checkout / ".venv").exists()


def test_an_unknown_device_is_refused(checkout: Path):
    assert install(checkout, DEVICE="tpu") == (2, ["error: DEVICE is 'tpu'; give cpu or cuda"])


def test_an_unreachable_package_index_is_one_line(checkout: Path):
    status, (line,) = install(checkout, PYTHON=sys.executable, DEVICE="cpu")
    assert status == 2
    assert "could not install torch==2.13.0: pip reaches no package index" in line
    assert not (checkout / ".venv" / "strata-installed").exists()


def test_a_finished_installation_is_left_alone_until_a_pin_changes(checkout: Path):
    python_without_pip = program(checkout / "pip", f'case "$*" in *pip*) exit 1;; *) exec {sys.executable} "$@";; esac')
    (checkout / ".venv" / "bin").mkdir(parents=True)
    python_without_pip.rename(checkout / ".venv" / "bin" / "python")
    pins = subprocess.run(
        "cat pyproject.toml scripts/install.sh | cksum", shell=True, cwd=checkout, capture_output=True
    )
    version = "{}.{}".format(*sys.version_info)
    stamp = f"cpu {version} {checkout}\n{pins.stdout.decode()}"
    (checkout / ".venv" / "strata-installed").write_text(stamp, encoding="utf-8")
    assert install(checkout, PYTHON=sys.executable) == (0, [])

    with (checkout / "pyproject.toml").open("a", encoding="utf-8") as file:
        file.write("# a changed pin\n")
    status, (line,) = install(checkout, PYTHON=sys.executable)
    assert status == 2
    assert "could not install torch" in line
