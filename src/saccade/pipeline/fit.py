"""The stage that trains: build the network, make the plan, go through its method, keep the bundle."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
from numpy.typing import NDArray

from saccade import extensions
from saccade.building import build_network
from saccade.bundle import Bundle, save_bundle
from saccade.errors import ModelError
from saccade.evaluation.calibration import Temperature, choose_temperature
from saccade.features.engines import engines_of
from saccade.methods import METHODS, make_plan
from saccade.methods.probe import Probe
from saccade.models import BuiltModel
from saccade.pipeline import mending
from saccade.pipeline.batches import ValidationBatches, make_probe, noted, pixel_cache, training_batches
from saccade.pipeline.evidence import choices_made
from saccade.pipeline.work import Work
from saccade.plan import WEIGHTS_SHA256, Plan
from saccade.records import Dataset
from saccade.run_folder import RunFolder
from saccade.runtime import Runtime, imitates_bfloat16
from saccade.terminal import Terminal
from saccade.training import FitResult, TerminalProgress, predict_logits
from saccade.training.callbacks import Callbacks
from saccade.training.clock import Clock, deadline, without_time
from saccade.training.job import TrainingData, Watch
from saccade.training.loop import training_job
from saccade.training.stop import stop_on_signals


def fit(work: Work) -> None:
    """Train (or continue), fit the temperature on the validation part, and write the bundle."""
    run, dataset, terminal, ready = work.run, work.dataset, work.terminal, work.ready
    if run.has(run.model_json):
        if not run.has(run.history):
            mending.restore_history(run)
        return
    # Nobody watched what was read before a checkpoint that this process did not write.
    continued = ready is None or mending.has_checkpoint(run)
    runtime = ready.runtime if ready else Runtime.create(work.recipe.device, work.recipe.precision)
    made = ready.network_for(dataset) if ready else None
    network = made or build_network(dataset, work.recipe)
    engines = ready.engines if ready and made else None
    plan = make_plan(work.recipe, network)
    refuse_other_weights(run, plan)
    say_network(network, runtime, terminal)
    say = noted(terminal)
    validation = ValidationBatches(dataset, plan, say)
    clock, late = _clock(work, plan)
    with pixel_cache(plan, terminal) as pixels, stop_on_signals() as stop:
        probe = None
        if plan.phases[0].fitted:
            probe = make_probe(
                dataset, plan, terminal, lambda: engines or engines_of(network, runtime), pixels
            )
        data = TrainingData(
            train=training_batches(dataset, plan, device=runtime.device, pixels=pixels, say=say),
            validation=lambda: validation,
            class_counts=dataset.counts("train"),
            validation_images=len(dataset.used("validation")),
        )
        callbacks = [TerminalProgress(terminal), *(make() for make in extensions.callbacks())]
        watch = Watch(Callbacks(callbacks), stop, clock)
        job = training_job(network.module, plan, data, runtime=runtime, run=run, watch=watch)
        result = METHODS[plan.method].train(job, probe)
        for note in result.notes:
            terminal.say(f"          {note}")
        network.module.flip = work.recipe.evaluate.flip
        temperature = Temperature(1.0)
        if work.recipe.evaluate.calibrate:
            solved = probe if result.head_alone else None
            temperature = _calibrated(network, validation, solved, runtime, dataset)
        if temperature.note:
            terminal.say(f"          {temperature.note}")
    save_bundle(_bundle(network, dataset, result, temperature, late), run.bundle, write=run.write)
    work.dataset = choices_made(run, dataset, continued=continued)


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
            "WARNING   this processor has no instructions for bfloat16 and imitates it, about 20 times "
            "slower: leave --precision at auto, or give float32"
        )


def _clock(work: Work, plan: Plan) -> tuple[Clock, str]:
    """The clock of the training, and what to say where no time is left for it."""
    assert plan.inputs is not None, "the plan of a run says how images become batches"
    # validation twice: at the end of training, and as a part; as many of the training sample
    judged = 2 * len(work.dataset.used("validation")) + len(work.dataset.used("test"))
    end = deadline(plan.time_limit, work.began, judged_images=judged, side=plan.inputs.preprocess.size)
    late = without_time(plan.time_limit, work.began, end)
    if late:
        work.terminal.say(f"          {late}")
    return Clock(started=work.began, deadline=math.inf if end is None else end), late


def _calibrated(
    network: BuiltModel,
    validation: ValidationBatches,
    probe: Probe | None,
    runtime: Runtime,
    dataset: Dataset,
) -> Temperature:
    """The temperature that the validation part asks for; where only a head was fitted, by its `probe`."""
    logits: NDArray[np.float32]
    if probe:
        logits, labels = probe.validation_logits(network.module)
    else:
        logits, labels, _ = predict_logits(network.module, validation, runtime)
    return choose_temperature(logits, labels, groups=[record.unit for record in dataset.used("validation")])


def _bundle(
    network: BuiltModel, dataset: Dataset, result: FitResult, temperature: Temperature, late: str
) -> Bundle:
    training = {
        "stopped": result.stopped,
        "best": dataclasses.asdict(result.best),
        "frozen": [dataclasses.asdict(evidence) for evidence in result.frozen],
        "frozen_in_bundle": result.frozen_at_end,
        "continued": [dataclasses.asdict(entry) for entry in result.continued],
        "finetune_ratio": result.finetune_ratio,
        "weights_sha256": result.weights_sha256,
        "notes": [*network.notes, *filter(None, (late, *result.notes, temperature.note))],
    }
    return Bundle(
        module=network.module,
        classes=dataset.classes,
        preprocess=network.preprocess,
        architecture=network.architecture,
        temperature=temperature.value,
        data_fingerprint=dataset.fingerprint(),
        training=training,
    )
