"""What training steps amount to between two lines of metrics.jsonl."""

import torch

from models.losses import Objectives
from pipeline.training.step import Outcome


class Window:
    """Adds up the outcomes of steps on the device, where nothing waits for them; asking for a number does."""

    def __init__(self, objectives: Objectives, device: torch.device, skipped: int, in_a_row: int) -> None:
        """Before this process began, `skipped` steps were skipped, the last `in_a_row` of them one after the other."""
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

    def add(self, outcome: Outcome) -> None:
        self.rows += outcome.rows
        self.sums += torch.where(outcome.finite, torch.cat([outcome.losses, outcome.weights]), 0.0)
        self._skipped += ~outcome.finite
        self._in_a_row = torch.where(outcome.finite, 0, self._in_a_row + 1)
        self._signals += outcome.signals

    @property
    def skipped(self) -> int:
        """Skipped steps since the beginning of the run."""
        return int(self._skipped)

    @property
    def in_a_row(self) -> int:
        """Skipped steps since the last one that was not."""
        return int(self._in_a_row)

    @property
    def signals(self) -> int:
        """How often a rank said that it was asked to stop."""
        return int(self._signals)
