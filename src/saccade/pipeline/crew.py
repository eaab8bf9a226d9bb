"""The processes of one training, from the side of the one that leads.

Process 0 does all that one process does; the helpers only take part in training steps and in the validation
after each epoch. So nothing else had to be made parallel, and nothing is written twice. Why, and what is
exactly equal: docs/several-processes.md.
"""

from __future__ import annotations

import contextlib
import functools
import multiprocessing
import multiprocessing.connection
import os
import shlex
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any

from saccade.errors import Interrupted
from saccade.pipeline.helping import FAILED, Meeting, local_helper, settled_device
from saccade.processes import Place, threads_each
from saccade.run_folder import RunFolder
from saccade.terminal import Terminal, counted, say_problem
from saccade.workers import hidden_main

if TYPE_CHECKING:
    from multiprocessing.context import SpawnProcess

    from saccade.training.team import Team

ENDING_SECONDS = 3.0  # for helpers to end by themselves
NOTICE_SECONDS, LOOK_SECONDS = 10.0, 0.2  # until process 0 has to see that a helper is gone


class Crew:
    """The helpers of process 0: those that a launcher started, or its own, started when they are needed.

    `code` is the exit code with which all end.
    """

    def __init__(self, place: Place, run: RunFolder, device: str, terminal: Terminal) -> None:
        self.place, self.code = place, 0
        self._run, self._terminal = run, terminal
        self._device = device
        _, self._backend = settled_device(place, device)
        self._team: Team | None = None
        self._helpers: list[SpawnProcess] = []
        self._closing = threading.Event()
        self._folder = ""

    def __enter__(self) -> Crew:
        if self.place.launcher:  # they wait from the beginning
            self._team = self._joined(Meeting.of_launcher(self.place, self._backend))
            self._terminal.say(f"Processes {self.place.count}, started by {self.place.launcher}")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if isinstance(error, Interrupted):
            self.code = error.exit_code
        elif error is not None:
            self.code = FAILED
        self._end()

    @property
    def flags(self) -> tuple[str, ...]:
        """With what the same number of processes is asked for again."""
        return () if self.place.launcher else ("--devices", str(self.place.count))

    @contextlib.contextmanager
    def on(self, facts: dict[str, Any]) -> Iterator[Callable[[], Team]]:
        """What starts the helpers on a training when it is first asked for; afterwards they are free again.

        `facts`, of plan and data, must be the same on each of them.
        """

        @functools.cache
        def team() -> Team:
            self._team = self._team or self._started()
            self._team.tell({"do": "job", **facts})
            begun.append(self._team)
            return self._team

        begun: list[Team] = []
        yield team
        if begun and begun[0].clean:
            begun[0].tell({"do": "job over"})

    # -- beginning and ending ----------------------------------------------------------------------------

    def _started(self) -> Team:
        """Helpers of our own, on this machine, which end with this process however it ends."""
        from saccade.runtime import device_of

        self._folder = tempfile.mkdtemp(prefix="saccade-")  # nccl looks into it until the end
        threads = threads_each(self.place.count)
        self._terminal.say(
            f"Processes {self.place.count} train together, with {counted(threads, 'thread')} each"
        )
        meeting = Meeting(self._backend, store=os.path.join(self._folder, "store"), threads=threads)
        context = multiprocessing.get_context("spawn")
        for number in range(1, self.place.count):
            place = Place(number, self.place.count, number)
            given = (place, meeting, device_of(self._device, place))
            helper = context.Process(target=local_helper, args=given, name=f"saccade-{number}")
            with hidden_main():
                helper.start()
            self._helpers.append(helper)
        return self._joined(meeting)

    def _joined(self, meeting: Meeting) -> Team:
        from saccade.training.team import Team

        team = Team(self.place, threads=meeting.threads)
        team.who_is_gone = self._who_is_gone
        team.remedy = (
            "finished work is kept; give the same command again, or continue with any number of processes: "
            f"saccade train --resume {shlex.quote(str(self._run.root))}"
        )
        if self._helpers:
            threading.Thread(target=self._watch, args=(team,), name="helpers", daemon=True).start()
        meeting.join(team)
        return team

    def _end(self) -> None:
        """Let the helpers end with this exit code; end those that do not."""
        self._closing.set()
        team = self._team
        if team is not None and team.clean:
            with contextlib.suppress(Exception):
                team.tell({"do": "end", "code": self.code})
        patient = team is not None and team.clean
        deadline = time.monotonic() + (ENDING_SECONDS if patient else 0.0)
        for helper in self._helpers:
            helper.join(max(0.0, deadline - time.monotonic()))
            if helper.is_alive():
                helper.kill()
                helper.join()
        if team is not None:
            with contextlib.suppress(Exception):
                team.leave()
        self._forget_folder()

    def _forget_folder(self) -> None:
        if self._folder:
            shutil.rmtree(self._folder, ignore_errors=True)

    # -- a helper that ends too early --------------------------------------------------------------------

    def _who_is_gone(self) -> str:
        """The first helper that has ended, in words; one that is just ending is waited for."""
        give_up = time.monotonic() + 2.0
        while self._helpers and time.monotonic() < give_up:
            for helper in self._helpers:
                if helper.exitcode is not None:
                    return _ended(helper, self.place.count)
            time.sleep(LOOK_SECONDS)
        return ""

    def _watch(self, team: Team) -> None:
        """End this process where a helper is gone and it does not see that: over nccl it would wait on."""
        multiprocessing.connection.wait([helper.sentinel for helper in self._helpers])
        while not self._closing.wait(LOOK_SECONDS):
            since = team.busy_since
            if since and time.monotonic() - since > NOTICE_SECONDS:
                say_problem("error", f"{self._who_is_gone()}: {self.place} cannot go on", hint=team.remedy)
                for helper in self._helpers:
                    with contextlib.suppress(OSError):
                        helper.kill()
                self._forget_folder()
                os._exit(FAILED)


def _ended(helper: SpawnProcess, count: int) -> str:
    number, code = int(helper.name.rpartition("-")[2]), helper.exitcode or 0
    who = f"process {number + 1} of {count}"
    if code < 0:
        return f"{who} was killed ({signal.Signals(-code).name})"
    return f"{who} ended with exit code {code}"
