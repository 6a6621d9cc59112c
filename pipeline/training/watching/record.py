"""What a run reports while it trains: `metrics.jsonl`, TensorBoard events, and a progress bar or plain lines."""

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from pipeline.atomic import replace_file

METRICS = "metrics.jsonl"


class Record:
    """The first rank writes it. The other ranks hold one with `run=None`, which does nothing."""

    def __init__(self, run: Path | None, step: int, total: int) -> None:
        """Drops lines of steps after `step` and a line cut short, left by a run that died after its last checkpoint."""
        self._run = run
        if run is None:
            return
        path = run / METRICS
        lines = path.read_text().splitlines(keepends=True) if path.exists() else []
        kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= step]
        replace_file(path, "".join(kept).encode())
        self._lines = path.open("a")
        self._events = SummaryWriter(str(run / "tensorboard"), purge_step=step + 1)
        self._bar = tqdm(total=total, initial=step, unit="step", disable=not sys.stderr.isatty(), smoothing=0.05)
        self._began = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._run is not None:
            self._lines.close()
            self._events.close()
            self._bar.close()

    def advance(self) -> None:
        """Counts a step as done."""
        if self._run is not None:
            self._bar.update()

    def log(
        self,
        step: int,
        split: str,
        loss: float,
        objectives: dict[str, float],
        weights: dict[str, float],
        warnings: Sequence[str] = (),
        **figures: float,
    ) -> None:
        """Writes a line of metrics.jsonl and the same figures for TensorBoard, and shows the gist.

        `objectives` are mean losses. `weights` are the sums of sample weights that the means were taken over.
        """
        if self._run is None:
            return
        line: dict[str, Any] = {"step": step, "split": split, "loss": loss, "objectives": objectives}
        line |= {"weights": weights, **figures}
        if warnings:
            line["warnings"] = warnings
        self._lines.write(json.dumps(line) + "\n")
        self._lines.flush()
        named = {"loss": loss, **figures} | {f"loss/{name}": value for name, value in objectives.items()}
        for name, value in named.items():
            self._events.add_scalar(f"{split}/{name}", value, step)
        gist = f"{split} loss {loss:.4f}"
        if "samples_per_s" in figures:
            gist += f", {figures['samples_per_s']:,.0f} samples/s, {figures['data_wait']:.1%} waiting for data"
        if figures.get("skipped"):
            gist += f", {figures['skipped']:.0f} steps skipped so far: their loss or gradient was not finite"
        self.say(f"step {step}/{self._bar.total}: {gist}", on_bar=gist if split == "train" else None)
        for warning in warnings:
            self.say(f"step {step}/{self._bar.total}: warning: {warning}")

    def say(self, line: str, on_bar: str | None = None) -> None:
        """Shows a plain line. On a terminal, `on_bar` is shown beside the progress bar instead."""
        if self._run is None:
            return
        if self._bar.disable:
            print(f"[{time.monotonic() - self._began:7.1f} s] {line}", file=sys.stderr, flush=True)
        elif on_bar:
            self._bar.set_postfix_str(on_bar)
        else:
            self._bar.write(line, file=sys.stderr)
