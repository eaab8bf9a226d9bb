"""The command line: flags -> Recipe -> pipeline; nothing else.

Exit codes: 0 well; 1 it ran and what it checks does not hold; 2 it cannot go on; 130/143 stopped.
`main` calls a command's own function directly: nothing stands between the two on the stack.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
import traceback
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

from saccade._version import __version__
from saccade.errors import OF_TRAINING, MissingExtraError, SaccadeError
from saccade.signals import answered_signals, exit_process, say_stopped
from saccade.terminal import drop_output, say_problem
from saccade.threads import calm_openmp

STARTED = time.monotonic()
NO_MEMORY = ("out of memory", "can't allocate memory", "failed to allocate memory")  # of torch, onnxruntime
SMALLER = "use a smaller --batch-size, --image-size or --backbone, or end what else uses that memory"


class Outcome:
    """The exit code of a command, known once it has ended."""

    code = 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; no traceback reaches the user.

    arguments: the words after `saccade`. None: those of this process, which ends here where a signal stopped
    the command, without waiting for other threads.

    >>> main(["train"])  # on stderr: error: saccade train needs DATA, or --resume RUN
    2
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    _open_standard_files()
    if arguments is None:
        warnings.showwarning = _say_warning
    outcome = Outcome()
    try:
        with answered_signals(words), answered_errors(words, outcome):
            # loaded inside: a signal or an error before this line would end in a traceback
            from saccade.cli.parsing import parsed

            calm_openmp()
            command, given = parsed(words)
            outcome.code = command(*given.args, **given.kwargs) or 0
    except KeyboardInterrupt as error:
        outcome.code = say_stopped(words, error)
    finally:
        _settle()
    return outcome.code if arguments is not None else exit_process(outcome.code)


@contextlib.contextmanager
def answered_errors(words: Sequence[str], outcome: Outcome) -> Iterator[None]:
    """Within it an error is said in words, and becomes the exit code of `outcome`.

    With SACCADE_TRACEBACK set, what is not an error of ours is raised instead.
    """
    try:
        yield
    except SaccadeError as error:
        outcome.code = _fail(error)
    except BrokenPipeError:
        outcome.code = 0  # the reader (head, less) has gone; nothing is left to say
    except SystemExit as error:
        if not isinstance(
            error.__context__, BrokenPipeError
        ):  # the same, noticed by rich, which prints the help
            raise
    except Exception as error:
        if os.environ.get("SACCADE_TRACEBACK"):
            raise
        outcome.code = _fail(_described(error, words))


def _say_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    """A Python warning of any library, as the command line says it."""
    say_problem("warning", " ".join(str(message).split()))


def _fail(error: SaccadeError) -> int:
    say_problem("error", *map(str, error.args), hint=error.hint)
    return 2


def _described(error: Exception, words: Sequence[str]) -> SaccadeError:
    """What the system refused (a full disk, memory), what is not installed, or a defect of ours, in words."""
    if isinstance(error, OSError):
        where = f"{error.filename} cannot be used ({error.strerror})" if error.filename else str(error)
        return SaccadeError(where, hint="check the path, its permissions and the space left there")
    if isinstance(error, ModuleNotFoundError) and (error.name or "").partition(".")[0] in OF_TRAINING:
        return MissingExtraError(str(error.name), "train", f"`saccade {words[0]}`")
    if isinstance(error, MemoryError) or any(text in str(error).lower() for text in NO_MEMORY):
        return SaccadeError("out of memory", hint=SMALLER)
    places = [frame for frame in traceback.extract_tb(error.__traceback__) if "saccade" in frame.filename]
    place = f" at {os.path.basename(places[-1].filename)}:{places[-1].lineno}" if places else ""
    return SaccadeError(
        f"this is a defect of saccade {__version__}{place}: {type(error).__name__}: {error}",
        hint="please report it; SACCADE_TRACEBACK=1 shows more",
    )


def _open_standard_files() -> None:
    """Put the null device where the process was started without an input or output (`saccade ... >&-`).

    Otherwise the next file that is opened would take the number of the missing output, and get what is
    written there.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number: this one
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115  # for as long as the process lives
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115


def _settle() -> None:
    """Write out what is left; where nobody takes it, drop it, so that the interpreter's end is quiet."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        with contextlib.suppress(OSError, ValueError):
            drop_output(sys.stdout)
