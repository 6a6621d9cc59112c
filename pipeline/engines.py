"""Engines, which run independent tasks: processes of this machine, or a Ray cluster."""

import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any, Literal, Protocol, TypeVar

from pipeline.errors import StrataError

Task = TypeVar("Task")
Result = TypeVar("Result")
EngineName = Literal["local", "ray"]
# Environment variables of a worker process, which its libraries read when they are imported.
# A worker keeps freed memory for its next rows: to give it back in between takes a fifth of the time. Polars has an
# allocator of its own (the first variable, in ms). NumPy uses that of the C library (the next two, in bytes).
# Polars' streaming engine is slower on one core.
WORKER = {
    "_RJEM_MALLOC_CONF": "dirty_decay_ms:10000,muzzy_decay_ms:10000",
    "MALLOC_MMAP_THRESHOLD_": "4000000000",
    "MALLOC_TRIM_THRESHOLD_": "4000000000",
    "POLARS_ENGINE_AFFINITY": "in-memory",
}


class Engine(Protocol):
    """Runs a function over tasks, `workers` at a time."""

    workers: int

    def map(self, function: Callable[[Task], Result], tasks: Iterable[Task]) -> Iterator[Result]:
        """The results in the order of the tasks. An exception of the function is raised here, as soon as it occurs."""
        ...


class InProcess:
    """Runs one task after the other in this process. Polars may use all cores."""

    workers = 1

    def map(self, function: Callable[[Task], Result], tasks: Iterable[Task]) -> Iterator[Result]:
        return map(function, tasks)


class Processes:
    """Runs tasks in several processes of this machine. Each has a share of the cores."""

    def __init__(self, workers: int, pool: ProcessPoolExecutor) -> None:
        self.workers, self._pool = workers, pool

    def map(self, function: Callable[[Task], Result], tasks: Iterable[Task]) -> Iterator[Result]:
        """Raises StrataError if a process was killed, as a machine that is short of memory does."""
        waiting: list[Future[Result]] = [self._pool.submit(function, task) for task in tasks]
        try:
            for done in as_completed(waiting):
                done.result()
            yield from (task.result() for task in waiting)
        except BrokenProcessPool:
            fix = "if memory ran out, lower --memory or --workers; then run it again: what is finished is kept"
            raise StrataError("a worker process was killed", where="build_samples", fix=fix) from None
        finally:
            for task in waiting:
                task.cancel()


class Ray:
    """Runs tasks on a Ray cluster, or on Ray on this machine."""

    def __init__(self, ray: Any) -> None:
        self._ray = ray
        self.workers = int(ray.cluster_resources().get("CPU", 1))

    def map(self, function: Callable[[Task], Result], tasks: Iterable[Task]) -> Iterator[Result]:
        remote = self._ray.remote(num_cpus=1, max_retries=3)(function)
        waiting = every = [remote.remote(task) for task in tasks]
        try:
            while waiting:
                done, waiting = self._ray.wait(waiting)
                self._ray.get(done)
            yield from self._ray.get(every)
        except self._ray.exceptions.RayTaskError as error:
            raise error.cause from None
        except self._ray.exceptions.RayError as error:
            reason = str(error).splitlines()[0]
            fix = "see `ray status`; then run it again: what is finished is kept"
            raise StrataError(f"Ray gave up ({reason})", where="--engine ray", fix=fix) from None


@contextmanager
def engine(name: EngineName, workers: int, ray_address: str | None = None) -> Iterator[Engine]:
    """The engine of that name, for the time of the block. Raises StrataError if Ray is missing or does not start."""
    if name == "ray":
        with _ray(workers, ray_address) as cluster:
            yield cluster
    elif workers == 1:
        yield InProcess()
    else:
        before = dict(os.environ)
        os.environ |= {"POLARS_MAX_THREADS": str(max(1, available_cores() // workers)), **WORKER}
        try:
            context = multiprocessing.get_context("spawn")  # Polars' threads do not survive a fork
            with ProcessPoolExecutor(workers, mp_context=context, initializer=_follow_parent) as pool:
                yield Processes(workers, pool)
        finally:
            os.environ.clear()
            os.environ |= before


def available_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))


def _follow_parent() -> None:
    """Ends this process when its parent has ended, in whatever way. It leaves Ctrl-C, which both get, to the parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def follow() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


@contextmanager
def _ray(workers: int, address: str | None) -> Iterator[Ray]:
    try:
        import ray
    except ImportError:
        fix = "pip install '.[ray]' in the clone of Strata"
        raise StrataError("Ray is not installed", where="--engine ray", fix=fix) from None
    try:
        options = {"address": address} if address else {"num_cpus": workers, "include_dashboard": False}
        threads = {"env_vars": {"POLARS_MAX_THREADS": "1", **WORKER}}  # a task has one core
        ray.init(**options, runtime_env=threads, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError) as error:
        where = address or "ray.init"
        raise StrataError(f"Ray does not start ({error})", where=where, fix="see `ray status`") from None
    try:
        yield Ray(ray)
    finally:
        ray.shutdown()
