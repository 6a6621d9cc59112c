"""Ctrl-C and SIGTERM: training finishes its step and saves a checkpoint before the process ends."""

import signal
from types import FrameType, TracebackType
from typing import Self


class Interrupts:
    """Notes SIGINT and SIGTERM instead of ending the process. `received` is the signal's number, or 0."""

    def __init__(self) -> None:
        self.received = 0
        self._before: dict[int, signal.Handlers | None] = {}

    def __enter__(self) -> Self:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._note)  # type: ignore[assignment]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = number
