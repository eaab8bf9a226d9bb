"""SIGTERM and Ctrl-C stop whatever runs, and say how to go on. A second one stops it at once.

Every file is written atomically, so a command may end anywhere. Usually the signal raises Interrupted in the
main thread. Where that thread is busy inside a library, a second thread ends the process.
"""

from __future__ import annotations

import contextlib
import os
import select
import shlex
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from types import FrameType

from saccade.errors import Interrupted
from saccade.terminal import say_problem

STOPPING = (signal.SIGTERM, signal.SIGINT)
EXIT_CODES = tuple(128 + number for number in STOPPING)
GRACE_SECONDS = 4.0  # a container has 10 s between SIGTERM and SIGKILL
WRITING_SECONDS = 60.0  # more, where a checkpoint is being written
LOOK_SECONDS = 0.1  # between two looks whether it still is
CONTINUING = ("train", "demo", "predict")
SHOW_CURSOR = "\x1b[?25h"  # a progress bar hides it
DONE = b"\0"  # no signal has this number


class _State:
    """Signals belong to the process, and so does this."""

    active = False
    said = False
    resume = ""  # the run or output that a command has begun
    flags: tuple[str, ...] = ()  # that belong to going on
    saying = threading.Lock()
    writing = False  # what a command that continues needs
    tidying: tuple[Callable[[], None], ...] = ()  # what is still done where the main thread cannot


@contextlib.contextmanager
def answered_signals(words: Sequence[str]) -> Iterator[None]:
    """Within it a signal raises Interrupted in the main thread.

    The process ends without that thread at a second signal, or GRACE_SECONDS after the first and after what
    `written_first` holds. `words` are those of the command, for the message. Does nothing inside another one,
    or outside of the main thread.
    """
    if _State.active or threading.current_thread() is not threading.main_thread():
        yield
        return
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    watcher = threading.Thread(target=_watch, args=(reading, tuple(words)), name="signals", daemon=True)
    watcher.start()
    _State.active, _State.said, _State.resume = True, False, ""
    before = {number: signal.signal(number, _interrupt) for number in STOPPING}
    wakeup = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    try:
        yield
    finally:
        signal.set_wakeup_fd(wakeup)
        for number, handler in before.items():
            signal.signal(number, handler)
        _State.active = False
        os.write(writing, DONE)
        watcher.join()
        os.close(writing)
        os.close(reading)


def can_resume(run: str, flags: Sequence[str] = ()) -> None:
    """From now on a stopped command says that it can go on; `saccade train` by `--resume RUN` and `flags`."""
    _State.resume, _State.flags = run, tuple(flags)


@contextlib.contextmanager
def written_first() -> Iterator[None]:
    """Within it a first signal does not end the process for WRITING_SECONDS; a second one does."""
    _State.writing = True
    try:
        yield
    finally:
        _State.writing = False


@contextlib.contextmanager
def tidied_by(tidy: Callable[[], None]) -> Iterator[None]:
    """Within it, `tidy` is called before a signal ends the process without the main thread.

    It must be quick, and safe while the main thread is in the middle of something.
    """
    before, _State.tidying = _State.tidying, (*_State.tidying, tidy)
    try:
        yield
    finally:
        _State.tidying = before


def say_stopped(words: Sequence[str], error: KeyboardInterrupt) -> int:
    """Say once on stderr which signal stopped the command, and how to go on; returns the exit code.

    words: those of the command, without `saccade`. error: what the signal raised.
    """
    stopped = error if isinstance(error, Interrupted) else Interrupted(signal.SIGINT)
    kept = words[:1] and words[0] in CONTINUING and _State.resume
    if kept and words[0] == "train":
        words = ("train", "--resume", _State.resume, *_State.flags)
    how = "finished work is kept; to continue" if kept else "to start again"
    name = signal.Signals(stopped.signal).name
    with _State.saying:
        if not _State.said:
            say_problem("stopped", f"received {name}", hint=f"{how}: saccade {shlex.join(words)}")
        _State.said = _State.active
    return stopped.exit_code


def exit_process(code: int) -> int:
    """`code`, for sys.exit; after a signal the process ends here, without waiting for other threads."""
    if threading.current_thread() is threading.main_thread():
        for number in STOPPING:
            signal.signal(number, signal.SIG_IGN)  # nothing is left to stop
    if code in EXIT_CODES:
        with contextlib.suppress(OSError, ValueError, AttributeError):
            sys.stdout.flush()
        os._exit(code)
    return code


def _interrupt(number: int, frame: FrameType | None) -> None:
    for every in STOPPING:
        signal.signal(every, _leave_to_watcher)  # what unwinds now must not be interrupted again
    raise Interrupted(number)


def _leave_to_watcher(number: int, frame: FrameType | None) -> None:
    """A second signal: `_watch` has read it from the pipe."""


def _watch(reading: int, words: Sequence[str]) -> None:
    """Read the numbers of signals from the pipe; end the process at the second, or when the grace is over."""
    first, deadline, latest = 0, 0.0, 0.0
    while True:
        ready, _, _ = select.select([reading], [], [], LOOK_SECONDS if first else None)
        now = time.monotonic()
        if _State.writing:
            deadline = max(deadline, min(latest, now + GRACE_SECONDS))
        if not ready and now < deadline:
            continue
        number = os.read(reading, 1)[0] if ready else first
        if number == DONE[0]:
            return
        if number in STOPPING and first:
            _end(words, first)
        if number in STOPPING:
            first, deadline = number, now + GRACE_SECONDS
            latest = deadline + WRITING_SECONDS


def _end(words: Sequence[str], number: int) -> None:
    with contextlib.suppress(OSError, ValueError, AttributeError):
        if sys.stdout.isatty():
            sys.stdout.write(SHOW_CURSOR)
    for tidy in reversed(_State.tidying):
        with contextlib.suppress(OSError):
            tidy()
    exit_process(say_stopped(words, Interrupted(number)))


def _not_for_children() -> None:
    """A forked worker has the pipe of its parent, which would take a signal to the worker as its own.

    Ctrl-C reaches every process: the parent answers it, and ends its workers.
    """
    if _State.active:
        _State.active = False
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_IGN)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_not_for_children)
