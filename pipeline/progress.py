"""The progress of a command: a bar on a terminal, or else a line per stage."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tqdm import tqdm


@contextmanager
def stages(total: int) -> Iterator["Stages"]:
    """Shows the progress of a command that has `total` stages."""
    with tqdm(total=total, disable=not sys.stderr.isatty(), bar_format="{bar:20} {n_fmt}/{total_fmt} {desc}") as bar:
        yield Stages(bar)


class Stages:
    """Announces each stage as it begins. A line has the seconds since the command began."""

    def __init__(self, bar: "tqdm[None]") -> None:
        self._bar = bar
        self._began = time.monotonic()

    def begin(self, stage: str) -> None:
        if self._bar.disable:
            print(f"[{time.monotonic() - self._began:7.1f} s] {stage}", file=sys.stderr, flush=True)
        self._bar.set_description_str(stage)
        self._bar.update()
