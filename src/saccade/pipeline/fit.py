"""The stage that trains: build the network, make the plan, go through its method, keep the bundle."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from saccade import extensions
from saccade.building import build_network
from saccade.caches.endings import kind_of_run
from saccade.caches.pixels import PixelCache
from saccade.errors import ModelError
from saccade.features.compute import Engines
from saccade.features.engines import engines_of
from saccade.methods import METHODS, make_plan
from saccade.methods.probe import HELD_OUT, SERIES, Probe
from saccade.models import BuiltModel
from saccade.pipeline import mending
from saccade.pipeline.batches import ValidationBatches, make_probe, noted, pixel_cache, training_data
from saccade.pipeline.evidence import choices_made
from saccade.pipeline.helping import facts_of
from saccade.pipeline.judge import judging
from saccade.pipeline.keep import keep_bundle
from saccade.pipeline.larger import choose_size, validations_at
from saccade.pipeline.work import Work
from saccade.plan import WEIGHTS_SHA256, Plan
from saccade.processes import require_divisible
from saccade.run_folder import RunFolder
from saccade.runtime import Runtime, imitates_bfloat16
from saccade.terminal import Terminal
from saccade.tracking import Tracker
from saccade.training import (
    Callback,
    Callbacks,
    Clock,
    TerminalProgress,
    Watch,
    callback_name,
    check_callbacks,
    predict_logits,
    stop_on_signals,
    training_job,
)
from saccade.training.clock import without_time
from saccade.training.job import TrainingJob
from saccade.training.loop import FitResult
from saccade.training.wise import average_with_start, shares_tried

if TYPE_CHECKING:
    from saccade.training.team import Team


def fit(work: Work) -> None:
    """Train (or continue), fit the temperature on the validation part, and write the bundle."""
    run, dataset, terminal, ready = work.run, work.dataset, work.terminal, work.ready
    work.watching = tuple(watchers(work))
    if run.has(run.model_json):
        begin_watching(work)
        if not run.has(run.history):
            mending.restore_history(run)
        return
    # Nobody watched what was read before a checkpoint that this process did not write.
    continued = ready is None or mending.has_checkpoint(run)
    runtime = ready.runtime if ready else Runtime.create(work.recipe.device, work.recipe.precision)
    made = ready.network_for(dataset) if ready else None
    network = made or build_network(dataset, work.recipe)
    plan = make_plan(work.recipe, network)
    refuse_other_weights(run, plan)
    say_network(network, runtime, terminal)
    validation = ValidationBatches(dataset, plan, noted(terminal))
    clock = clock_of(work, plan, network, runtime)
    if late := without_time(plan.time_limit, clock):
        terminal.say(f"          {late}")
    callbacks = Callbacks([TerminalProgress(terminal), *work.watching])
    begin_watching(work)
    with (
        pixel_cache(plan, terminal) as pixels,
        stop_on_signals() as stop,
        together(work, plan) as team,
    ):
        probe = _probe_of(work, plan, network, runtime, pixels)
        processes = work.crew.place.count if work.crew else 1
        data = training_data(dataset, plan, validation, runtime.device, pixels, terminal, processes)
        watch = Watch(callbacks, stop, clock, work.finish)
        job = training_job(network.module, plan, data, runtime=runtime, run=run, watch=watch)
        job = dataclasses.replace(job, team=team)
        result = METHODS[plan.method].train(job, probe)
        record_findings(job, result)
        network.module.flip = work.recipe.evaluate.flip

        def answers() -> tuple[NDArray[np.float32], NDArray[Any]]:
            if probe and result.head_alone:  # by the engine of its features
                return probe.validation_logits(network.module)
            return predict_logits(network.module, validation, runtime)[:2]

        result = average_with_start(job, result, answers)
        sized = choose_size(work, network, plan, answers, runtime)
        for note in (*(result.notes[-1:] if result.averaged else ()), *filter(None, [sized.note])):
            terminal.say(f"          {note}")
        keep_bundle(work, result, sized, late)
    work.dataset = choices_made(run, dataset, continued=continued)


def _probe_of(
    work: Work, plan: Plan, network: BuiltModel, runtime: Runtime, pixels: PixelCache | None
) -> Probe | None:
    """Frozen features, where the first phase fits a head on them; by the engines that were made ready."""
    if not plan.phases[0].fitted:
        return None
    ready = work.ready
    made = ready.engines if ready and ready.network is network else None
    engines = _engines(work, lambda: made or engines_of(network, runtime))
    return make_probe(work.dataset, plan, work.terminal, engines, pixels, work.features, work.cluster)


def record_findings(job: TrainingJob, result: FitResult) -> None:
    """What training found out about data and arithmetic, into `environment.json`."""
    if result.switches:
        job.run.update_record(in_float32=tuple(map(dataclasses.asdict, result.switches)))
    if held_out := job.checkpoints.choice(HELD_OUT):
        job.run.update_record(held_out=held_out)
    if found := job.checkpoints.choice(SERIES):
        job.run.update_record(series={key: value for key, value in found.items() if key != "groups"})


def clock_of(work: Work, plan: Plan, network: BuiltModel, runtime: Runtime) -> Clock:
    """The clock of the run, which knows what comes after training."""
    dataset, preprocess = work.dataset, network.preprocess
    # validation twice: at the end of training, and as a part; the test part once
    judged = 2 * len(dataset.used("validation")) + len(dataset.used("test"))
    clock = Clock.of(plan.time_limit, work.began, judged_images=judged, side=preprocess.size)
    kind = kind_of_run(runtime.device.type, network.architecture["backbone"], preprocess.size)
    choosing = shares_tried(plan.average_with_pretrained) + validations_at(work.recipe, preprocess.size)
    clock.judging = judging(dataset, work.recipe, kind, validations=choosing)
    return clock


def together(work: Work, plan: Plan) -> contextlib.AbstractContextManager[Callable[[], Team] | None]:
    """Within it, what starts the helpers on this training; None where one process trains."""
    if work.crew is None:
        return contextlib.nullcontext()
    require_divisible(plan.batch_size, work.crew.place.count)
    return work.crew.on(facts_of(work.run, work.dataset, work.recipe, plan))


def _engines(work: Work, make: Callable[[], Engines]) -> Callable[[], Engines]:
    """What computes features, made when it is first asked for, once for all trainings that share them."""

    def engines() -> Engines:
        if work.features is None:
            return make()
        work.features.engines = work.features.engines or make()
        return work.features.engines

    return engines


def watchers(work: Work) -> list[Callback]:
    """Callbacks that were given and those from outside, once `environment.json` names them.

    A run that continues says which of its callbacks are not here now.
    """
    found = [*work.callbacks, *(make() for make in extensions.callbacks())]
    check_callbacks(found)
    names, before = [callback_name(callback) for callback in found], work.run.read_record().callbacks
    if gone := [name for name in before if name not in names]:
        work.terminal.say(f"          without {', '.join(gone)}, which watched when this run began")
    if new := [name for name in names if name not in before]:
        work.run.update_record(callbacks=(*before, *dict.fromkeys(new)))
    return found


def begin_watching(work: Work) -> None:
    """Tell the callbacks where the run lies, and the user where trackers write."""
    Callbacks(work.watching).on_begin(work.run.root)
    for place in (callback.where for callback in work.watching if isinstance(callback, Tracker)):
        if place:
            work.terminal.say(f"Tracking  {place}")


def refuse_other_weights(run: RunFolder, plan: Plan) -> None:
    """Raise ModelError where the weights file was replaced since the run began."""
    now = plan.network.weights_sha256
    began_with = run.read_record().resolved.get(WEIGHTS_SHA256, now)
    if began_with != now:
        raise ModelError(
            f"--weights {plan.network.weights} holds other bytes than when {run.root} began (SHA-256 "
            f"{now[:12]}, not {began_with[:12]})",
            hint="put that file back, or train with this one in a new folder (--out)",
        )


def say_network(network: BuiltModel, runtime: Runtime, terminal: Terminal) -> None:
    """What is trained, on what, and what is to be known about it."""
    parameters = sum(parameter.numel() for parameter in network.module.parameters())
    start = "pretrained" if network.pretrained else "from scratch"
    size = network.preprocess.size
    terminal.say(
        f"Model     {network.architecture['backbone']}, {start}, {parameters:,} parameters, "
        f"{size} x {size} pixels, on {runtime.device} in {runtime.precision}"
    )
    for note in network.notes:
        terminal.say(f"          {note}")
    if imitates_bfloat16(runtime):
        terminal.warn(
            "this processor has no instructions for bfloat16 and emulates it, about 20 times slower",
            hint="leave --precision at auto, or use float32",
        )
