"""A run that continues computes as it began: on a CPU the number of threads decides the last bits."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

from saccade.recipe import Recipe
from saccade.run_folder import RunFolder
from saccade.terminal import Terminal

DECIDE_LAST_BITS = ("device_name", "torch")  # keys of environment.json, besides "threads"


@contextlib.contextmanager
def as_it_began(run: RunFolder, recipe: Recipe, terminal: Terminal) -> Iterator[None]:
    """Within it torch computes with as many threads as when the run began; says what is another by now."""
    from saccade.runtime import Runtime, in_threads

    began, now = run.read_environment(), Runtime.create(recipe.device, recipe.precision).describe()
    threads = began.get("threads", now["threads"])
    if threads != now["threads"]:
        terminal.say(
            f"Threads   {threads}, as when this run began (now {now['threads']}): it decides the last bits"
        )
    if other := _others(began, now):
        terminal.say(f"          this run began with {other}: its result will differ in the last bits")
    with in_threads(threads):
        yield


def _others(began: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """What decides the last bits and is another by now, in words."""
    changed = (key for key in DECIDE_LAST_BITS if key in began and began[key] != now[key])
    return ", ".join(f"{key.replace('_', ' ')} {began[key]} (now {now[key]})" for key in changed)
