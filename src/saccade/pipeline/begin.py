"""How a run begins: images read and audited, data divided, network built, and the plan written down."""

from __future__ import annotations

import importlib.util
import platform
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from saccade._version import __version__
from saccade.images.plugins import decoder_versions
from saccade.part_files import Cluster
from saccade.pipeline import mending, prepare
from saccade.pipeline.ahead import Ahead, may_be_refused
from saccade.pipeline.continuing import say_unfinished
from saccade.pipeline.division import (
    divide_before_search,
    divide_searched,
    search_can_wait,
    split_as_json,
    write_audit,
)
from saccade.pipeline.evidence import watching_test
from saccade.pipeline.hints import (
    method_worked_out,
    say_classes_nobody_can_judge,
    small_images_hint,
    usual_side,
    warn_of_small_input,
)
from saccade.pipeline.work import Ready, Work
from saccade.recipe import AUTO_BACKBONE, Recipe
from saccade.records import Dataset
from saccade.run_folder import RunFolder
from saccade.run_record import USUAL_SIDE, RunRecord, time_of_day
from saccade.sources.addresses import root_as_text
from saccade.terminal import Terminal

if TYPE_CHECKING:
    from saccade.plan import Plan
    from saccade.training import Callback

PACKAGES = ("torch", "torchvision", "timm", "lightning-fabric", "numpy", "onnx", "onnxruntime")


def _say_what_begins(run: RunFolder, data: str, recipe: Recipe, terminal: Terminal) -> None:
    terminal.say(f"Run       {run.root}")
    say_unfinished(run, data, terminal)
    if method := method_worked_out(recipe):
        terminal.say(f"Method    {method}")


def begin(
    run: RunFolder,
    location: str,
    recipe: Recipe,
    terminal: Terminal,
    command: Sequence[str],
    data: str,
    began: float,
    callbacks: tuple[Callback, ...] = (),
    cluster: Cluster | None = None,
) -> Work:
    """Audit and split; all is written last, the recipe after the rest, so that a refusal leaves nothing."""
    if importlib.util.find_spec("torch") is None:  # known before anything is said
        raise ModuleNotFoundError("training needs torch", name="torch")
    listed = prepare.list_data(location, recipe)
    prepare.require_validation_to_come(listed, recipe)
    prepare.refuse_small_classes(listed, recipe)
    prepare.refuse_unknown_weights(listed, recipe)
    chooses = recipe.model.backbone == AUTO_BACKBONE
    choose = _backbone_chooser(listed, recipe, terminal, began) if chooses else None
    ahead = Ahead(listed, recipe)
    try:
        if may_be_refused(recipe):
            ahead.approved()
            warn_of_small_input(recipe, terminal)
        _say_what_begins(run, data, recipe, terminal)
        read = prepare.read_images(listed, recipe, terminal, watch=ahead.check, cluster=cluster)
        waits = search_can_wait(read, recipe)
        audited, made = (divide_before_search if waits else divide_searched)(read, recipe, terminal)
        prepare.require_validation(made.dataset, recipe)
        dataset = watching_test(made.dataset)
        say_classes_nobody_can_judge(dataset, terminal)
        if hint := small_images_hint(dataset, recipe):
            terminal.say(f"          {hint}")
    finally:
        ahead.give_up()
    ready = ahead.result()
    choice = choose(dataset) if choose else {}
    own = settled(recipe, choice, dataset)
    ready, plan = _planned(ready, dataset, own)
    record = RunRecord(
        data=data,
        root=root_as_text(dataset.root),
        command=tuple(command),
        began=time_of_day(),
        platform=platform.platform(),
        versions=versions(),
        **ready.runtime.describe(),
        resolved={**plan.as_json(), USUAL_SIDE: usual_side(own)},
        classes=dataset.classes,
        split=split_as_json(made),
        without_effect=_without_effect(ready, plan, dataset, own, recipe.given, terminal),
        choice=choice,
    )
    mending.refuse_other_data(run, dataset)
    with run.begun():
        run.note_command(command)
        run.write_dataset(dataset.records)
        write_audit(run, audited, made, searched=not waits and recipe.split.near_duplicates)
        run.write_record(record)
        run.write_recipe(recipe, comment=_watched_by(callbacks))
    return Work(run, listed, dataset, own, terminal, began, ready, read if waits else None)


def _watched_by(callbacks: Sequence[Callback]) -> str:
    """What recipe.toml says of callbacks, which are no part of it."""
    if not callbacks:
        return ""
    from saccade.training import callback_name

    return f"Watched by {', '.join(map(callback_name, callbacks))}, which changed nothing."


def settled(recipe: Recipe, choice: Mapping[str, Any], dataset: Dataset) -> Recipe:
    """The recipe with the backbone that was chosen when the run began, and a batch that fits the images."""
    if recipe.model.backbone == AUTO_BACKBONE:
        from saccade.selection.choosing import settled as with_choice

        recipe = with_choice(recipe, choice)
    return recipe.with_batch_size(len(dataset.used("train")))


def _backbone_chooser(
    listed: Dataset, recipe: Recipe, terminal: Terminal, began: float
) -> Callable[[Dataset], dict[str, Any]]:
    """Times the backbones at hand now, while nothing else runs; scores them when the data are divided."""
    from saccade.selection.choosing import choose_backbone, time_backbones

    field = time_backbones(listed, recipe, terminal)
    return lambda dataset: choose_backbone(field, dataset, recipe, terminal, began=began)


def _planned(ready: Ready, dataset: Dataset, recipe: Recipe) -> tuple[Ready, Plan]:
    """The network and the plan of the run; raises SaccadeError for what cannot be trained."""
    from saccade.building import build_network, check_network
    from saccade.methods import make_plan

    network = ready.network_for(dataset)
    if network is None:
        network = build_network(dataset, recipe)
        check_network(network, recipe)
        ready = Ready(ready.runtime, dataset.classes, network)
    return ready, make_plan(recipe, network)


def _without_effect(
    ready: Ready, plan: Plan, dataset: Dataset, recipe: Recipe, given: Iterable[str], terminal: Terminal
) -> dict[str, str]:
    """Say which of the `given` fields change nothing in this run, and why."""
    from saccade.pipeline.effects import Situation, as_sentence, without_effect

    found = without_effect(Situation.of(recipe, plan, dataset, ready.runtime.device.type), given)
    if found:
        terminal.say(as_sentence(found))
    return found


def versions() -> dict[str, str]:
    """Versions of what the result depends on; absent packages are left out."""
    found = {"saccade": __version__, "python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found | decoder_versions()
