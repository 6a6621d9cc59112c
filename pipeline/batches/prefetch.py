"""Prepares batches in a thread while the model computes."""

import queue
import threading
import time
from collections.abc import Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class Prefetcher(Generic[T]):
    """Iterates over `source` ahead of the consumer: up to `depth` items wait ready.

    An exception in the source is raised where the items are consumed. `waited_s` counts the seconds that the consumer
    waited for items. Threads help because Arrow and PyTorch release Python's global lock.
    """

    def __init__(self, source: Iterator[T], depth: int = 4) -> None:
        self.waited_s = 0.0
        self._ready: queue.Queue[tuple[T | None, BaseException | None]] = queue.Queue(maxsize=depth)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._fill, args=(source,), daemon=True, name="prefetch")
        self._thread.start()

    def __iter__(self) -> Iterator[T]:
        try:
            while True:
                began = time.perf_counter()
                item, error = self._ready.get()
                self.waited_s += time.perf_counter() - began
                if isinstance(error, StopIteration):
                    return
                if error is not None:
                    raise error
                assert item is not None
                yield item
        finally:
            self.close()

    def close(self) -> None:
        """Stops the thread and drops the items that it has prepared."""
        self._stopped.set()
        while self._thread.is_alive():
            try:
                self._ready.get(timeout=0.01)
            except queue.Empty:
                continue

    def _fill(self, source: Iterator[T]) -> None:
        error: BaseException = StopIteration()
        try:
            for item in source:
                self._ready.put((item, None))
                if self._stopped.is_set():
                    break
        except BaseException as raised:
            error = raised
        self._ready.put((None, error))
