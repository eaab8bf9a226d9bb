"""A run that continues computes as it began: on a CPU the number of threads decides the last bits."""

from __future__ import annotations

import contextlib
import re
import shlex
from collections.abc import Iterator, Mapping
from typing import Any

from saccade.errors import RunError
from saccade.recipe import Recipe
from saccade.run_folder import RunFolder
from saccade.run_record import RunRecord
from saccade.terminal import Terminal


def say_unfinished(run: RunFolder, data: str, terminal: Terminal) -> None:
    """Where a numbered run begins: that an earlier one of the same data was stopped, and how it goes on."""
    numbered = re.fullmatch(r"(.+-)(\d+)", run.root.name)
    if not numbered:
        return
    for number in range(int(numbered[2]) - 1, 0, -1):
        other = RunFolder(run.root.with_name(f"{numbered[1]}{number}"))
        if _was_stopped(other, data):
            terminal.say(
                f"          {other.root}, a run of the same data, was stopped before its end; "
                f"to go on there: saccade train --resume {shlex.quote(str(other.root))}"
            )
            return


def _was_stopped(run: RunFolder, data: str) -> bool:
    if not run.recipe.is_file() or run.in_use():
        return False
    try:
        record = run.read_record()
    except RunError:
        return False  # a damaged run is no one to go on with
    return record.data == data and not record.finished


@contextlib.contextmanager
def as_it_began(run: RunFolder, recipe: Recipe, terminal: Terminal, processes: int = 1) -> Iterator[None]:
    """Within it torch computes with as many threads as when the run began; says what is another by now.

    With another number of processes, threads are as they are: they cannot give the same bits.
    """
    from saccade.runtime import Runtime, in_threads

    began, now = run.read_record(), Runtime.create(recipe.device, recipe.precision).describe()
    threads = (began.threads if _ranks(began) == processes else 0) or now["threads"]
    if threads != now["threads"]:
        terminal.say(
            f"Threads   {threads}, as when this run began (now {now['threads']}), because another number "
            "changes the last bits"
        )
    if other := _others(began, {**now, "ranks": processes}):
        terminal.say(f"          this run began with {other}: the result will differ in the last bits")
    with in_threads(threads):
        yield


def _ranks(record: RunRecord) -> int:
    return record.ranks or 1


def _others(began: RunRecord, now: Mapping[str, Any]) -> str:
    """What decides the last bits and is another by now, in words."""
    then: dict[str, tuple[Any, Any]] = {
        "device name": (began.device_name, now["device_name"]),
        "torch": (began.torch, now["torch"]),
        "number of processes": (_ranks(began), now["ranks"]),
    }
    changed = {name: pair for name, pair in then.items() if pair[0] and pair[0] != pair[1]}
    return ", ".join(f"{name} {before} (now {after})" for name, (before, after) in changed.items())
