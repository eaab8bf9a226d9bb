"""Work on many files with several processes, so that one that crashes costs one file, not the run.

Processes are spawned, not forked: a fork in a program that runs threads (a progress bar, OpenMP) can
hang. The program's own main module is not run again in them, so a script needs no `__main__` guard.
`pebble` does run it again, and needs as long after a crash (4 to 9 s where this takes 2 to 4).
"""

from __future__ import annotations

import contextlib
import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import threading
import types
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

CHUNKS_IN_FLIGHT = 3  # for each worker: enough to keep it busy, few enough to bound memory
_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def may_have_children() -> bool:
    """False in a worker of a pool, such as those of Celery, Airflow or dask: Python forbids it children."""
    return not multiprocessing.current_process().daemon


def map_chunks(
    function: Callable[[Sequence[T]], R],
    chunks: Iterable[Sequence[T]],
    *,
    workers: int,
    on_crash: Callable[[T], R],
) -> Iterator[tuple[Sequence[T], R]]:
    """Each chunk with `function(chunk)`, in order, computed by `workers` processes.

    A chunk that was in flight when a process died is tried again alone; if it kills its process again,
    item by item, each then a chunk of its own. `on_crash(item)` stands for an item that kills even so.
    A process that may have no children computes everything itself, with the same results.
    """
    if not may_have_children():
        yield from ((chunk, function(chunk)) for chunk in chunks)
        return
    waiting = deque(chunks)
    while waiting:
        in_flight = yield from _until_crash(function, waiting, workers)
        for chunk in in_flight:
            yield from carefully(function, chunk, on_crash)


def _until_crash(
    function: Callable[[Sequence[T]], R], waiting: deque[Sequence[T]], workers: int
) -> Generator[tuple[Sequence[T], R], None, list[Sequence[T]]]:
    """Results in order until a process dies; returns the chunks that were in flight then."""
    flying: deque[tuple[Sequence[T], Future[R]]] = deque()
    with _pool(workers) as pool:
        try:
            while waiting or flying:
                while waiting and len(flying) < workers * CHUNKS_IN_FLIGHT:
                    flying.append((waiting[0], _submit(pool, function, waiting[0])))
                    waiting.popleft()
                result = flying[0][1].result()
                yield flying.popleft()[0], result
        except BrokenProcessPool:
            return [chunk for chunk, _ in flying]
    return []


def carefully(
    function: Callable[[Sequence[T]], R], chunk: Sequence[T], on_crash: Callable[[T], R]
) -> Iterator[tuple[Sequence[T], R]]:
    """One chunk in a process of its own; halved until the item that kills it is alone."""
    with _pool(1) as pool:
        try:
            result = _submit(pool, function, chunk).result()
        except BrokenProcessPool:
            pass
        else:
            yield chunk, result
            return
    if len(chunk) == 1:
        yield chunk, on_crash(chunk[0])
        return
    middle = len(chunk) // 2
    yield from carefully(function, chunk[:middle], on_crash)
    yield from carefully(function, chunk[middle:], on_crash)


@contextlib.contextmanager
def _pool(workers: int) -> Iterator[ProcessPoolExecutor]:
    """Processes that end with this block, with Ctrl-C, and with this process, however it ends."""
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker)
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _submit(pool: ProcessPoolExecutor, function: Callable[[Sequence[T]], R], chunk: Sequence[T]) -> Future[R]:
    """Hand one chunk over."""
    with hidden_main():
        return pool.submit(function, chunk)


@contextlib.contextmanager
def hidden_main() -> Iterator[None]:
    """A process that is spawned inside gets an empty main module."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _start_worker() -> None:
    """One thread for linear algebra, which is not loaded yet.

    The parent must not set this before it starts a process: another of its threads may be loading torch just
    then, which would have one thread for good (seen once).
    """
    for name in _ONE_THREAD:
        os.environ.setdefault(name, "1")
    end_with_parent()


def end_with_parent() -> None:
    """Called in a new worker process: it ends with its parent, however that ends, and not by Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent answers Ctrl-C, and ends its workers
    threading.Thread(target=_wait_for_parent, daemon=True).start()


def _wait_for_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None, "runs in worker processes only"
    multiprocessing.connection.wait([parent.sentinel])
    os._exit(1)
