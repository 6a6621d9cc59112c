"""Sums over the training steps between two lines of metrics.jsonl."""

import torch

from models.losses import Objectives
from pipeline.training.stepping.step import StepResult


class Window:
    """Adds up the results of steps on the device. Adding never waits for the device; asking for a number does."""

    def __init__(self, objectives: Objectives, device: torch.device, skipped: int, in_a_row: int) -> None:
        """`skipped` steps were skipped before this process began; the last `in_a_row` of them followed each other."""
        self._terms = len(objectives.layout.terms)
        self._device = device
        self._skipped = torch.tensor(skipped, device=device)
        self._in_a_row = torch.tensor(in_a_row, device=device)
        self.begin()

    def begin(self) -> None:
        """Forgets rows, sums and signals; skipped steps count from the beginning of the run."""
        self.rows = 0
        self.sums = torch.zeros(2 * self._terms, device=self._device)
        """Losses and weights, [2K], of the steps that were not skipped."""
        self._signals = torch.zeros((), device=self._device)

    def add(self, result: StepResult) -> None:
        self.rows += result.rows
        self.sums += torch.where(result.finite, torch.cat([result.losses, result.weights]), 0.0)
        self._skipped += ~result.finite
        self._in_a_row = torch.where(result.finite, 0, self._in_a_row + 1)
        self._signals += result.signals

    @property
    def skipped(self) -> int:
        """Skipped steps since the beginning of the run."""
        return int(self._skipped)

    @property
    def in_a_row(self) -> int:
        """Skipped steps since the last step that was not skipped."""
        return int(self._in_a_row)

    @property
    def signals(self) -> int:
        """How often a rank was asked to stop."""
        return int(self._signals)
