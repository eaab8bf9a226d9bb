"""One training on several processes: which of them this is, and what is refused before anything begins.

`saccade train --devices N` starts the others itself; torchrun and srun start them all and say in the
environment which is which. No torch here: the answer is known before anything is loaded.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from saccade.errors import RecipeError
from saccade.threads import usable_cores

TORCHRUN, SRUN = "torchrun", "srun"
FIRST_PORT, PORTS = 15_000, 10_000  # of steps of SLURM


@dataclass(frozen=True, slots=True)
class Place:
    """This process among those of one training.

    Process 0 leads: it reads, decides and writes. The others help. `local`: its number on its machine.
    `launcher` is "" where saccade itself starts the helpers. `near`: all are on this machine.

    >>> Place(1, 2).leads, Place().alone
    (False, True)
    """

    number: int = 0
    count: int = 1
    local: int = 0
    launcher: str = ""
    near: bool = True

    @property
    def leads(self) -> bool:
        return self.number == 0

    @property
    def alone(self) -> bool:
        return self.count == 1

    def __str__(self) -> str:
        return f"process {self.number + 1} of {self.count}"


ALONE = Place()


class _Asked:
    """Whether the command of this process knows that others were started with it."""

    place = False


def place(devices: int = 0) -> Place:
    """Where this process stands among those of its training; `devices` is the flag, 0 where it was not given.

    Raises RecipeError for a number that cannot be, another one than torchrun or srun started, or processes
    that could not meet.
    """
    if devices < 0:
        raise RecipeError(f"--devices {devices} is no number of processes", hint="use 1 or more")
    _Asked.place = True
    launched = of_launcher()
    if launched.alone:
        return Place(0, devices or 1)
    if launched.launcher == TORCHRUN and not ("MASTER_ADDR" in os.environ and _number("MASTER_PORT")):
        raise RecipeError(
            f"RANK and WORLD_SIZE are set, but MASTER_ADDR or MASTER_PORT is not: {launched.count} processes "
            "cannot meet",
            hint="start them with torchrun, which sets all four; unset RANK and WORLD_SIZE to train with one",
        )
    if devices not in (0, launched.count):
        raise RecipeError(
            f"--devices {devices}, but {launched.launcher} has started {launched.count} processes",
            hint=f"leave --devices out: {launched.launcher} says how many there are",
        )
    return launched


def of_launcher() -> Place:
    """Where torchrun or srun put this process; `ALONE` where neither started several."""
    if _number("WORLD_SIZE") > 1 and "RANK" in os.environ:
        count = _number("WORLD_SIZE")
        near = _number("LOCAL_WORLD_SIZE") == count
        return Place(_number("RANK"), count, _number("LOCAL_RANK"), TORCHRUN, near)
    if _number("SLURM_STEP_NUM_TASKS") > 1 and "SLURM_PROCID" in os.environ:  # only srun names the step
        number, count = _number("SLURM_PROCID"), _number("SLURM_STEP_NUM_TASKS")
        near = _number("SLURM_STEP_NUM_NODES") == 1
        return Place(number, count, _number("SLURM_LOCALID"), SRUN, near)
    return ALONE


def unforeseen() -> int:
    """How many processes were started for a command that runs in one; 0 where all is well."""
    started = max(_number("WORLD_SIZE"), of_launcher().count)
    return started if started > 1 and not _Asked.place else 0


def started_again() -> bool:
    """Whether the launcher starts the same command again, after a failure or a new place in the queue."""
    return _number("TORCHELASTIC_RESTART_COUNT") > 0 or _number("SLURM_RESTART_COUNT") > 0


def meeting_port() -> int:
    """On which port the processes of a step of SLURM find each other: a function of job and step."""
    if given := _number("MASTER_PORT"):
        return given
    return FIRST_PORT + (7 * _number("SLURM_JOB_ID") + _number("SLURM_STEP_ID")) % PORTS


def threads_each(processes: int) -> int:
    """Threads of each of so many processes on the cores of this machine."""
    return max(1, usable_cores() // processes)


def require_divisible(batch_size: int, processes: int) -> None:
    """Raise RecipeError, naming what would fit, where a batch is not the same number of images for each.

    >>> require_divisible(32, 3)
    Traceback (most recent call last):
    saccade.errors.RecipeError: train.batch_size = 32 cannot be divided among 3 processes
    hint: use 1, 2, 4, 8, 16 or 32 processes, or train.batch_size = 33
    """
    if batch_size % processes == 0:
        return
    divisors = [str(number) for number in range(1, batch_size + 1) if batch_size % number == 0]
    *first, last = divisors
    fitting = f"{', '.join(first)} or {last}" if first else last
    nearest = max(1, round(batch_size / processes)) * processes
    raise RecipeError(
        f"train.batch_size = {batch_size} cannot be divided among {processes} processes",
        hint=f"use {fitting} processes, or train.batch_size = {nearest}",
    )


def _number(name: str) -> int:
    text = os.environ.get(name, "")
    return int(text) if text.isdecimal() else 0
