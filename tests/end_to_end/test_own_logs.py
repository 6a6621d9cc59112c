"""The README's worked example: one CSV file, feature_specs/minimal.yaml, three commands, a report."""

import csv
import json
import random
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
DAY_MS = 86_400_000
FIRST_MS = 1_772_323_200_000  # 2026-03-01


def readme_commands() -> list[str]:
    lines = (ROOT / "README.md").read_text().splitlines()
    return [line.strip() for line in lines if line.startswith("    .venv/bin/")]


def write_feed(path: Path) -> None:
    """5 days of 120 users; how often a user clicks depends on the user, so that there is something to learn."""
    draw = random.Random(0)
    eager = [draw.random() for _ in range(120)]
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["user", "item", "page", "shown_at", "clicked", "seconds"])
        for _ in range(6000):
            user = draw.randrange(120)
            clicked = int(draw.random() < eager[user])
            seconds = round(draw.expovariate(0.1), 1) if clicked else 0.0
            page = draw.choice(["home", "home", "search"])
            shown_at = FIRST_MS + draw.randrange(5 * DAY_MS)
            rows.writerow([f"u{user}", f"i{draw.randrange(80)}", page, shown_at, clicked, seconds])


@pytest.mark.slow
def test_the_readmes_three_commands_lead_from_a_csv_to_a_report(tmp_path: Path) -> None:
    (tmp_path / "my_logs").mkdir()
    write_feed(tmp_path / "my_logs" / "feed.csv")
    commands = readme_commands()
    assert len(commands) == 3
    for command in commands:
        words = shlex.split(command)
        program = [sys.executable] if words[0].endswith("python") else [sys.executable, "-m", "torch.distributed.run"]
        place = [str(ROOT / word) if word.startswith(("scripts/", "feature_specs/")) else word for word in words[1:]]
        done = subprocess.run([*program, *place], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    assert "<html" in (tmp_path / "my" / "report" / "report.html").read_text()
    metrics = json.loads((tmp_path / "my" / "report" / "metrics.json").read_text())
    assert set(metrics["scenes"]) == {"home", "search"}
    assert metrics["objectives"]["click"]["auc"] > 0.6  # what a user did on earlier days tells how eager they are
