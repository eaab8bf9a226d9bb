"""`saccade replay`: take the step again that ended a run, and say where NaN or infinite values begin."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from saccade.errors import ModelError, RecipeError
from saccade.run_folder import RunFolder
from saccade.terminal import Terminal

if TYPE_CHECKING:
    from saccade.models.network import Classifier
    from saccade.runtime import Runtime
    from saccade.training.replay import KeptStep


def replay(path: str, terminal: Terminal) -> bool:
    """Take the step that `path` kept again; whether its loss or gradient is not finite again.

    `path` is a run, or the folder in it that holds the step. Raises RunError where there is none.
    """
    folder = RunFolder(Path(path)).kept_step()  # before torch is loaded, which takes seconds
    from saccade.models.build import rebuild_classifier
    from saccade.training import replay as steps

    step = steps.read_step(folder)
    facts, runtime = step.facts, _runtime(step, terminal)
    classifier = rebuild_classifier(facts["architecture"])
    terminal.say(
        f"Step      {facts['step']} (from 0), in epoch {facts['epoch']}, phase {step.phase.name}: "
        f"{len(step.images)} images, on {runtime.device} in {runtime.precision}"
    )
    with _as_it_learnt(step, classifier, runtime):
        found = steps.replay(step, classifier, runtime)
    terminal.say(*found.lines())
    if not found.again:
        terminal.say(f"          loss and gradient are finite this time{_what_differs(step, runtime)}")
    return found.again


def _runtime(step: KeptStep, terminal: Terminal) -> Runtime:
    """The device and arithmetic of the step, or the CPU where there is no such device."""
    from saccade.runtime import Runtime

    device, precision = step.facts["device"], step.facts["precision"]
    try:
        return Runtime.create(device, precision)
    except RecipeError as error:
        terminal.say(f"          {error.problem}: the step is taken again on the CPU")
        return Runtime.create("cpu", precision)


def _what_differs(step: KeptStep, runtime: Runtime) -> str:
    """Of device and torch, now and then."""
    import torch

    now = {"device": str(runtime.device), "torch": torch.__version__}
    then = {name: step.facts[name] for name in now}
    return "".join(f"; {name} is {now[name]}, was {then[name]}" for name in now if now[name] != then[name])


@contextlib.contextmanager
def _as_it_learnt(step: KeptStep, classifier: Classifier, runtime: Runtime) -> Iterator[None]:
    """Within it the classifier takes what was kept: images, or activations of its frozen stages."""
    if not step.facts["activations"]:
        yield
        return
    import torch

    from saccade.methods.activations import find_boundary, only_the_tail
    from saccade.training.job import freeze_for

    runtime.place(classifier)
    freeze_for(classifier, step.phase)
    side, channels = step.facts["side"], step.facts["channels"]
    boundary = find_boundary(classifier, runtime.images(torch.zeros(1, channels, side, side)))
    if boundary is None:
        raise ModelError(
            "the network has no frozen stages, on whose activations it learnt", hint="train the run again"
        )
    with only_the_tail(classifier, boundary):
        yield
