"""A step whose loss or gradient is NaN or infinite: taken again in float32, else written down and raised.

What is written down, in `debug/nan/` of the run, is all that the step had; `saccade replay RUN` takes it
again.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from saccade._version import __version__
from saccade.bundle import tensors_to_bytes
from saccade.errors import NotFiniteError, RunError
from saccade.files import replace_folder
from saccade.models.weights import shortened
from saccade.run_folder import PART, STEP, write_bytes, write_json, write_text
from saccade.training.job import TrainingJob
from saccade.training.learner import Learner
from saccade.training.state import FitState
from saccade.transforms.batches import Batch

BATCH, STATE, README = "batch.safetensors", "state.safetensors", "README.md"
FLOAT32 = "float32"
Step = Callable[[Learner, Batch, int], tuple[Tensor, Tensor]]


def finite_step(
    take: Step, job: TrainingJob, learner: Learner, batch: Batch, *, epoch: int, step: int
) -> tuple[Tensor, Tensor]:
    """What `take` gives of a step. Where it raises NotFiniteError in less than float32, the step is taken
    again in float32, and the phase goes on in that; else what the step had is written down."""
    learner.statistics.keep()
    before, problem, hint = learner.runtime.precision, "", ""
    for precision in dict.fromkeys((before, FLOAT32)):
        if precision != before:
            learner.go_on_in_float32(epoch=epoch, step=step)
        try:
            return take(learner, batch, step)
        except NotFiniteError as error:
            problem, hint = error.problem, error.hint  # the error itself holds on to the pass that failed
        learner.statistics.restore()
        learner.stepper.zero_grad()
    again = f"; in {before}, and again in {FLOAT32}" * (before != FLOAT32)
    spoilt = _spoilt_before(job)
    seen = learner.share.whole() if learner.share else batch
    written = write_down(job, learner, seen, epoch=epoch, step=step)
    raise NotFiniteError(f"{problem}{again}{spoilt}", hint=f"{hint}. {written}")


def noted_switch(job: TrainingJob, learner: Learner, state: FitState) -> FitState:
    """`with_switch`, which is said."""
    after = with_switch(learner, state)
    if after is not state:
        job.watch.callbacks.on_note(after.notes[-1])
    return after


def with_switch(learner: Learner, state: FitState) -> FitState:
    """The state with the step noted from which its phase went on in float32, where it did."""
    switch = learner.switch
    if switch is None or switch in state.switches:
        return state
    said = (
        f"{switch.phase}: in epoch {switch.epoch} the loss or gradient was NaN or infinite in bfloat16, "
        "finite in float32, and the phase went on in float32"
    )
    return replace(state.with_note(said), switches=(*state.switches, switch))


def write_down(job: TrainingJob, learner: Learner, batch: Batch, *, epoch: int, step: int) -> str:
    """Keep what the step had; returns where that lies and what to do with it, or why it is not kept."""
    folder = job.run.not_finite
    made = folder.with_name(f".{folder.name}.{os.getpid()}{PART}")
    try:
        _write_files(made, job, learner, batch, epoch=epoch, step=step)
        replace_folder(made, folder, folder.with_name(f".{folder.name}.{os.getpid()}.old{PART}"))
    except (RunError, OSError) as error:
        shutil.rmtree(made, ignore_errors=True)
        why = error.problem if isinstance(error, RunError) else f"{folder}: {error.strerror}"
        return f"What the step had could not be kept to look at ({why})"
    return (
        f"All that the step had lies in {folder}: `saccade replay {shlex.quote(str(job.run.root))}` says "
        "which layer was the first to give such a value"
    )


def _write_files(
    made: Path, job: TrainingJob, learner: Learner, batch: Batch, *, epoch: int, step: int
) -> None:
    images, targets = learner.inputs(batch, step)
    loss, classifier = learner.loss, job.classifier
    kept = {"images": images, "targets": targets}
    extra = {"class_weights": loss.class_weights, "adjustment": loss.adjustment}
    kept |= {name: tensor for name, tensor in extra.items() if tensor is not None}
    tensors, numbers = learner.optimizer_state()
    state = {f"weights/{name}": tensor for name, tensor in classifier.state_dict().items()}
    state |= {f"optimizer/{name}": tensor for name, tensor in tensors.items()}
    digests = {}
    for name, held in ((BATCH, kept), (STATE, state)):
        data = tensors_to_bytes(held)
        digests[name] = hashlib.sha256(data).hexdigest()
        write_bytes(made / name, data)
    facts = _facts(job, learner, images, epoch=epoch, step=step)
    write_json(made / STEP, {**facts, "sha256": digests, "optimizer": numbers, "paths": list(batch.paths)})
    write_text(made / README, _readme(job, learner, epoch=epoch, step=step))


def _facts(job: TrainingJob, learner: Learner, images: Tensor, *, epoch: int, step: int) -> dict[str, Any]:
    """What besides tensors the step rests on."""
    plan, loss, inputs = job.plan, learner.loss, job.plan.input_plan
    expected = None if inputs is None else inputs.preprocess.pixels.count
    return {
        "saccade": __version__,
        "torch": torch.__version__,
        "epoch": epoch,
        "step": step,
        "seed": plan.seed,
        "phase": asdict(learner.phase),
        "precision": learner.runtime.precision,
        "device": str(learner.runtime.device),
        "images_at_once": learner.micro_batch or len(images),
        "learning_rate": max(group["lr"] for group in learner.optimizer.param_groups),
        "loss": {"name": loss.name, "gamma": loss.gamma, "smoothing": loss.smoothing},
        "architecture": dict(plan.network.architecture),
        "side": 0 if inputs is None else inputs.preprocess.size,
        "channels": expected or 0,
        # the frozen stages were left out: the images are what they make of them
        "activations": expected is not None and (images.ndim != 4 or images.shape[1] != expected),
    }


def _readme(job: TrainingJob, learner: Learner, *, epoch: int, step: int) -> str:
    return (
        f"# A step whose loss or gradient was not finite\n\n"
        f"Step {step} (from 0), in epoch {epoch}, phase {learner.phase.name}. Here lies all that it had:\n\n"
        f"- `{BATCH}`: `images` as the network saw them, after preprocessing, augmentation and mixing, and\n"
        f"  their `targets`, in the order of `paths` in `{STEP}`\n"
        f"- `{STATE}`: `weights/...` and `optimizer/...` as they were before the step\n"
        f"- `{STEP}`: which step, the images' paths, seed, precision, loss, and how the network is built\n\n"
        f"    saccade replay {shlex.quote(str(job.run.root))}\n\n"
        "takes the step again, with the same random numbers, and says which layer is the first to give NaN\n"
        "or infinite values.\n"
    )


def _spoilt_before(job: TrainingJob) -> str:
    """What to say where it was not this step that spoilt the weights."""
    bad = [name for name, tensor in job.classifier.named_parameters() if not tensor.isfinite().all()]
    return f"; before this step weights were NaN or infinite already ({shortened(bad, 3)})" if bad else ""
