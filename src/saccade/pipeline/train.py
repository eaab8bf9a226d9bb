"""`saccade train`: audit, split, build, fit, judge, export, report; run again to continue."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from saccade.pipeline import judge, mending, prepare, ship
from saccade.pipeline.ahead import Ahead
from saccade.pipeline.continuing import as_it_began
from saccade.pipeline.division import (
    LateSearch,
    divide_before_search,
    divide_searched,
    search_can_wait,
    search_left,
    split_as_json,
    stored_data,
    write_audit,
)
from saccade.pipeline.environment import environment
from saccade.pipeline.evidence import choices_made, watching_test
from saccade.pipeline.hints import small_images_hint
from saccade.pipeline.ready import Ready
from saccade.recipe import AUTO_BACKBONE, Recipe
from saccade.records import Dataset
from saccade.run_folder import RunFolder
from saccade.terminal import Terminal


@dataclass(frozen=True, slots=True)
class TrainResult:
    """A finished run; `exit_code` is 1 when its exported file failed the certificate."""

    run: RunFolder
    exit_code: int


def train(
    location: str,
    recipe: Recipe,
    terminal: Terminal,
    *,
    out: str,
    command: Sequence[str] = (),
    started: float | None = None,
) -> TrainResult:
    """Train in the folder `out`, or continue there; a finished run only prints its result.

    Raises SaccadeError when it cannot go on. `started` is `time.monotonic()` when the command began.
    """
    began = time.monotonic() if started is None else started
    run = RunFolder(Path(out))
    ready: Ready | None = None
    with run.locked(), contextlib.ExitStack() as while_continuing:
        mended = mending.remove_damaged(run, recipe, terminal, command)
        if not (run.continues(recipe, identity(location)) and mending.beginning_is_whole(run)):
            dataset, ready, late = _begin(run, location, recipe, terminal, command, began)
        elif run.read_environment().get("finished") and not mended:
            terminal.say(f"{run.root} is finished; this is its result.")
            judge.say_result(run, terminal)
            return _result(run)
        else:
            dataset = watching_test(stored_data(run, location, recipe))
            late = search_left(run, location, recipe, terminal)
            terminal.say(f"{run.root} continues where it was stopped")
            while_continuing.enter_context(as_it_began(run, recipe, terminal))
        choice = run.read_environment().get("choice", {})
        _carry_out(run, dataset, _settled(recipe, choice, dataset), terminal, began, ready, late)
        return _result(run)


def identity(location: str) -> dict[str, str]:
    """What besides the recipe makes two commands the same run: the data."""
    named = ":" in location and not Path(location).exists()  # torchvision:NAME is no path
    return {"data": location if named else os.path.abspath(Path(location).expanduser())}


def _begin(
    run: RunFolder,
    location: str,
    recipe: Recipe,
    terminal: Terminal,
    command: Sequence[str],
    began: float,
) -> tuple[Dataset, Ready, LateSearch | None]:
    """Audit and split; all is written last, the recipe after the rest, so that a refusal leaves nothing."""
    listed = prepare.list_data(location, recipe)
    chooses = recipe.model.backbone == AUTO_BACKBONE
    choose = _backbone_chooser(listed, recipe, terminal, began) if chooses else None
    ahead = Ahead(listed, recipe)
    try:
        read = prepare.read_images(listed, recipe, terminal, watch=ahead.check)
        late = LateSearch(run, listed, recipe, terminal, read) if search_can_wait(read, recipe) else None
        divide = divide_before_search if late else divide_searched
        audited, made = divide(read, recipe, terminal)
        prepare.require_validation(made.dataset, recipe)
        made = replace(made, dataset=watching_test(made.dataset))
        if hint := small_images_hint(made.dataset, recipe):
            terminal.say(f"          {hint}")
    finally:
        ahead.give_up()
    ready = ahead.result()
    choice = choose(made.dataset) if choose else {}
    settled = _settled(recipe, choice, made.dataset)
    ready, resolved = _resolved(ready, made.dataset, settled)
    idle = _without_effect(ready, made.dataset, settled, recipe.given, terminal)
    values = environment(
        command=command,
        identity={**identity(location), "root": str(made.dataset.root)},
        runtime=ready.runtime.describe(),
        resolved=resolved,
    )
    values |= {"classes": made.dataset.classes, "split": split_as_json(made), "without_effect": idle}
    mending.refuse_other_data(run, made.dataset)
    with run.begun():
        run.note_command(command)
        run.write_dataset(made.dataset.records)
        write_audit(run, audited, made, searched=late is None and recipe.split.near_duplicates)
        run.write_environment(values | ({"choice": choice} if choice else {}))
        run.write_recipe(recipe)
    return made.dataset, ready, late


def _backbone_chooser(
    listed: Dataset, recipe: Recipe, terminal: Terminal, began: float
) -> Callable[[Dataset], dict[str, Any]]:
    """Times the backbones at hand now, while nothing else runs; scores them when the data are divided."""
    from saccade.selection.choosing import choose_backbone, time_backbones

    field = time_backbones(listed, recipe, terminal)
    return lambda dataset: choose_backbone(field, dataset, recipe, terminal, began=began)


def _resolved(ready: Ready, dataset: Dataset, recipe: Recipe) -> tuple[Ready, dict[str, Any]]:
    """What every "auto" of the recipe became; raises SaccadeError for a network that cannot be trained."""
    from saccade.building import build_network, check_network
    from saccade.pipeline.fitting import resolved_values

    network = ready.network_for(dataset)
    if network is None:
        network = build_network(dataset, recipe)
        check_network(network, recipe)
        ready = Ready(ready.runtime, dataset.classes, network)
    return ready, resolved_values(network, recipe)


def _without_effect(
    ready: Ready, dataset: Dataset, recipe: Recipe, given: Iterable[str], terminal: Terminal
) -> dict[str, str]:
    """Say which of the `given` fields change nothing in this run, and why."""
    from saccade.pipeline.effects import Situation, as_sentence, without_effect

    assert ready.network is not None, "built by now"
    situation = Situation.of(recipe, ready.network, dataset, ready.runtime.device.type)
    found = without_effect(situation, given)
    if found:
        terminal.say(as_sentence(found))
    return found


def _settled(recipe: Recipe, choice: Mapping[str, Any], dataset: Dataset) -> Recipe:
    """The recipe with the backbone that was chosen when the run began, and a batch that fits the images."""
    if recipe.model.backbone == AUTO_BACKBONE:
        from saccade.selection.choosing import settled

        recipe = settled(recipe, choice)
    return recipe.with_batch_size(len(dataset.used("train")))


def _carry_out(
    run: RunFolder,
    dataset: Dataset,
    recipe: Recipe,
    terminal: Terminal,
    began: float,
    ready: Ready | None,
    late: LateSearch | None,
) -> None:
    """Everything after the split; each step is skipped when its files are there already."""
    if not run.has(run.model_json):
        from saccade.pipeline.fitting import fit_network

        # Nobody watched what was read before a checkpoint that this process did not write.
        continued = ready is None or mending.has_checkpoint(run)
        fit_network(run, dataset, recipe, terminal, began, ready, late)
        dataset = choices_made(run, dataset, continued=continued)
    elif not run.has(run.history):
        mending.restore_history(run)
    if late:
        late.dataset()
    judge.judge_parts(run, dataset, recipe, terminal)
    if recipe.export.onnx:
        ship.export_and_certify(run, dataset, recipe, terminal)
    judge.conclude(run, dataset, terminal, seconds=time.monotonic() - began)
    judge.say_result(run, terminal)


def _result(run: RunFolder) -> TrainResult:
    certificate: Mapping[str, Any] = (
        run.read_certificate() if run.has(run.certificate()) else {"passed": True}
    )
    return TrainResult(run, 0 if certificate["passed"] else 1)
