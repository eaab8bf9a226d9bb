"""A run that continues computes as it began: on a CPU the number of threads decides the last bits."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

from saccade.recipe import Recipe
from saccade.run_folder import RunFolder
from saccade.run_record import RunRecord
from saccade.terminal import Terminal


@contextlib.contextmanager
def as_it_began(run: RunFolder, recipe: Recipe, terminal: Terminal) -> Iterator[None]:
    """Within it torch computes with as many threads as when the run began; says what is another by now."""
    from saccade.runtime import Runtime, in_threads

    began, now = run.read_record(), Runtime.create(recipe.device, recipe.precision).describe()
    threads = began.threads or now["threads"]
    if threads != now["threads"]:
        terminal.say(
            f"Threads   {threads}, as when this run began (now {now['threads']}), because another number "
            "changes the last bits"
        )
    if other := _others(began, now):
        terminal.say(f"          this run began with {other}: the result will differ in the last bits")
    with in_threads(threads):
        yield


def _others(began: RunRecord, now: Mapping[str, Any]) -> str:
    """What decides the last bits and is another by now, in words."""
    then = {"device name": (began.device_name, now["device_name"]), "torch": (began.torch, now["torch"])}
    changed = {name: pair for name, pair in then.items() if pair[0] and pair[0] != pair[1]}
    return ", ".join(f"{name} {before} (now {after})" for name, (before, after) in changed.items())
