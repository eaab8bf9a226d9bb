"""Activations at the freeze boundary: what the frozen first layers make of a view of an image never changes.

So it is computed once, in the epoch that first needs it, and kept in memory; later epochs go through the
views in turn and cost only the layers that learn. Which views there are is a function of (seed, epoch), so a
run that continues computes the same ones again.
"""

from __future__ import annotations

import contextlib
import copy
import itertools
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from saccade.models.finetune import stages
from saccade.models.network import Classifier
from saccade.plan import Phase
from saccade.runtime import Runtime, draw_seed, knows_bfloat16
from saccade.threads import memory_bytes
from saccade.training.inference import evaluation_mode, predict_logits
from saccade.training.job import TrainingJob, TrainingSource, freeze_for, noted
from saccade.training.loop import fit_phase
from saccade.training.state import Checkpoint, FitState
from saccade.training.stop import StopRequest
from saccade.transforms.batches import Batch

MOST_BYTES, MEMORY_SHARE = 8_000_000_000, 4  # of all views together; one part in so many of the memory
TOLERANCE = 1e-5  # of the largest logit, in float32
EXACT_BYTES = 4  # a number of a validation activation: float32, so that its figures are the network's own
CHECKED_IMAGES = 2
TIMED_BATCHES = 2  # a GPU's first one also begins


@dataclass(frozen=True, slots=True)
class Boundary:
    """The end of the last stage in which nothing learns.

    Modules are named within the backbone. `passed`: the outermost modules that are done once `module` is,
    itself included, with the shapes of what they give of one image. `shape` of one image's activation:
    (C, H, W), or (tokens, C).
    """

    module: str
    passed: Mapping[str, tuple[int, ...]]
    shape: tuple[int, ...]

    @property
    def numbers(self) -> int:
        """Numbers in one image's activation."""
        return int(torch.Size(self.shape).numel())


def fit_phases(job: TrainingJob, state: FitState, checkpoint: Checkpoint | None) -> FitState:
    """Go through the phases that are left, on kept activations where a phase asks for them.

    `checkpoint` is the newest; it belongs to the phase in which training was stopped.
    """
    while not state.finished:
        phase = job.plan.phases[state.phase]
        if checkpoint and checkpoint.state.phase != state.phase:
            checkpoint = None  # only the phase that was interrupted has an optimizer to continue
        freeze_for(job.classifier, phase)
        with kept_activations(job, phase, state) as (learning, note):
            state = fit_phase(learning, phase, noted(job, state, note), checkpoint)
    return state


@contextlib.contextmanager
def kept_activations(
    job: TrainingJob, phase: Phase, state: FitState, *, recorded: bool = True
) -> Iterator[tuple[TrainingJob, str]]:
    """The job as it learns from activations, and what to say of that; as it is where it cannot.

    Within it the classifier takes activations for images: its frozen stages hand on what they are given.
    Not `recorded`, as in a trial, the number of views is not written down for a run that continues.
    """
    if not phase.kept_views:
        yield job, ""
        return
    first = state.epoch - state.phase_epoch + 1
    images = next(iter(job.data.train.epoch(first))).images[:CHECKED_IMAGES]
    boundary, reason = _usable_boundary(job, images)
    views = _views(job, phase, boundary, recorded=recorded) if boundary else 0
    if boundary is None or not views:
        why = reason or "they do not fit into a quarter of the memory"
        yield job, f"{phase.name}: activations are not cached, so each epoch runs the whole network: {why}"
        return
    trunk = Trunk.of(job.classifier, boundary, job.runtime)
    validation = KeptValidation(job.data.validation, trunk)
    images_a_view, seed = job.data.images, job.plan.seed
    train = KeptViews(job.data.train, trunk, first, views, images_a_view, seed, _reduced(job), job.watch.stop)
    size = train.bytes_a_view * views / 1e6
    said = (
        f"{phase.name}: trains on activations cached at the end of {boundary.module}, of {views} "
        f"view{'s' * (views > 1)} of each training image, {size:,.0f} MB"
    )
    measure_ending(job)
    with only_the_tail(job.classifier, boundary):
        data = replace(job.data, train=train, validation=lambda: validation)
        yield replace(job, data=data), said


def measure_ending(job: TrainingJob) -> None:
    """Tell the clock what the whole network takes on validation, which the epochs to come do not show.

    That is by the quickest of the first batches, once it is decoded.
    """
    clock, least = job.watch.clock, math.inf
    if not (clock.limited and job.data.validation_images):
        return
    for batch in itertools.islice(job.data.validation(), TIMED_BATCHES):
        began = time.monotonic()
        predict_logits(job.classifier, [batch], job.runtime)
        least = min(least, (time.monotonic() - began) / len(batch.paths))
    clock.measure_ending(least * job.data.validation_images)


def _usable_boundary(job: TrainingJob, images: Tensor) -> tuple[Boundary | None, str]:
    """The boundary, or None and why there is none that could be used."""
    if job.plan.mixing.on:
        return None, "images are mixed in each step (mix_up, cut_mix)"
    boundary = find_boundary(job.classifier, job.runtime.images(images))
    if boundary is None:
        return None, "no whole stage is frozen"
    if not tail_is_exact(job.classifier, boundary, job.runtime, images):
        return (
            None,
            f"this backbone does more between its stages than pass on the output of {boundary.module}",
        )
    return boundary, ""


def _views(job: TrainingJob, phase: Phase, boundary: Boundary, *, recorded: bool) -> int:
    """How many views are kept: as the phase has it, less where memory is short; recorded once chosen."""
    name = f"views of {phase.name}"
    if recorded and (earlier := job.checkpoints.choice(name)):
        return int(earlier["views"])
    room = min(MOST_BYTES, memory_bytes() // MEMORY_SHARE)
    room -= job.data.validation_images * boundary.numbers * EXACT_BYTES
    size = 2 if _reduced(job) else 4
    fitting = room // max(1, job.data.images * boundary.numbers * size)
    views = max(0, min(phase.kept_views, phase.epochs, fitting))
    if recorded:
        job.checkpoints.keep_choice(name, {"views": views})
    return views


def _reduced(job: TrainingJob) -> bool:
    """Whether training activations are computed and kept in bfloat16."""
    if job.plan.precision == "float32":
        return False
    # where bfloat16 is imitated, it is slow
    return job.runtime.precision == "bfloat16" or (job.runtime.device.type == "cpu" and knows_bfloat16())


# -- the two parts of a network ---------------------------------------------------------------------------


def find_boundary(classifier: Classifier, images: Tensor) -> Boundary | None:
    """Where the first part that learns begins; None where that is the very first stage.

    `images` (B, 3, S, S) on the device are sent through once, to see in which order modules work.
    """
    name = _last_frozen(classifier)
    if not name:
        return None
    ended: list[str] = []
    shapes: dict[str, tuple[int, ...]] = {}

    def note(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            ended.append(name)
            shapes[name] = tuple(output.shape[1:]) if isinstance(output, Tensor) else ()

        return hook

    named = [(inner, module) for inner, module in classifier.backbone.named_modules() if inner]
    handles = [module.register_forward_hook(note(inner)) for inner, module in named]
    try:
        with torch.no_grad(), evaluation_mode(classifier):
            classifier(images)
    finally:
        for handle in handles:
            handle.remove()
    if ended.count(name) != 1 or not shapes[name]:  # used twice, or no tensor
        return None
    done = set(ended[: ended.index(name) + 1])
    passed = {inner: shapes[inner] for inner, _ in named if _outermost(inner, done)}
    return Boundary(name, passed, shapes[name])


def _outermost(name: str, done: set[str]) -> bool:
    parts = name.split(".")
    return name in done and not any(".".join(parts[:end]) in done for end in range(1, len(parts)))


def _last_frozen(classifier: Classifier) -> str:
    """Name within the backbone of the module that ends the last stage before anything learns, or ""."""
    last = ""
    for stage, layers in stages(classifier).items():
        for layer in layers:
            if any(p.requires_grad for p in classifier.get_submodule(layer).parameters(recurse=False)):
                return last
        end = layers[-1].removeprefix("backbone.")
        last = stage if end == stage or end.startswith(f"{stage}.") else end
    return ""


@contextlib.contextmanager
def only_the_tail(classifier: Classifier, boundary: Boundary) -> Iterator[None]:
    """Within it the classifier takes activations (B, *shape) of the boundary and gives logits.

    The module at the boundary gives what the classifier was given. Those before it give zeros, so that what a
    network does between them, such as adding positions to tokens, goes on and is for nothing.
    """
    given: list[Tensor] = []
    handle = classifier.backbone.register_forward_pre_hook(
        lambda _, inputs: given.__setitem__(slice(1), inputs)
    )
    passed = {classifier.backbone.get_submodule(name): shape for name, shape in boundary.passed.items()}
    for module, shape in passed.items():
        module.forward = partial(_zeros, given, shape)
    classifier.backbone.get_submodule(boundary.module).forward = lambda *_, **__: given[0]
    try:
        yield
    finally:
        handle.remove()
        for module in passed:
            module.__dict__.pop("forward", None)


def _zeros(given: list[Tensor], shape: tuple[int, ...], *others: Any, **named: Any) -> Tensor:
    """(B, *shape), of one number in memory."""
    return given[0].new_zeros(()).expand(len(given[0]), *shape)


def tail_is_exact(classifier: Classifier, boundary: Boundary, runtime: Runtime, images: Tensor) -> bool:
    """Whether trunk and tail together give the whole network's logits, in float32."""
    trunk = Trunk.of(classifier, boundary, runtime)
    with runtime.evaluation_arithmetic(), evaluation_mode(classifier):
        whole = classifier(runtime.images(images))
        try:
            with only_the_tail(classifier, boundary):
                parts = classifier(trunk(images))
        except (RuntimeError, ValueError, AssertionError, IndexError, TypeError, AttributeError):
            return False  # a form that only images have
    return bool((whole - parts).abs().max() <= TOLERANCE * whole.abs().max().clamp(min=1))


class _Reached(Exception):
    """The boundary's output; the rest of the network need not be computed."""

    def __init__(self, output: Tensor) -> None:
        super().__init__("the boundary is reached")
        self.output = output


@dataclass(frozen=True)
class Trunk:
    """A copy of the frozen stages, in evaluation mode: images (B, 3, S, S) -> activations (B, *shape)."""

    backbone: nn.Module
    runtime: Runtime
    shape: tuple[int, ...]

    @classmethod
    def of(cls, classifier: Classifier, boundary: Boundary, runtime: Runtime) -> Trunk:
        copied = copy.deepcopy(classifier.backbone).eval().requires_grad_(False)

        def reached(module: nn.Module, inputs: Any, output: Tensor) -> None:
            raise _Reached(output)

        copied.get_submodule(boundary.module).register_forward_hook(reached)
        return cls(copied, runtime, boundary.shape)

    def __call__(self, images: Tensor) -> Tensor:
        try:
            self.backbone(self.runtime.images(images))
        except _Reached as found:
            return found.output
        raise AssertionError("every image passes the boundary")


# -- what is kept ------------------------------------------------------------------------------------------


@dataclass
class KeptViews:
    """Batches of activations: view after view as the epochs ask, each computed in the batches of its epoch.

    The first `views` epochs from `first` on are those of `source`; then each view comes again in an order of
    its own, a function of (seed, epoch). `reduced`: in bfloat16.
    """

    source: TrainingSource
    trunk: Trunk
    first: int
    views: int
    images: int
    seed: int
    reduced: bool
    stop: StopRequest
    _kept: dict[int, list[Batch]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.source)

    @property
    def bytes_a_view(self) -> int:
        """What one view of all training images takes."""
        return self.images * int(torch.Size(self.trunk.shape).numel()) * (2 if self.reduced else 4)

    def epoch(self, epoch: int, *, start_batch: int = 0) -> Iterator[Batch]:
        """Batches (B, *shape) float32 of an epoch of the phase, from `start_batch` on."""
        view = (epoch - self.first) % self.views
        if view not in self._kept and epoch == self.first + view:  # all are computed, for later epochs
            yield from itertools.islice(self._computed(view), start_batch, None)
            return
        if view not in self._kept:  # a run that continues
            for _ in self._computed(view):
                pass
        yield from itertools.islice(self._again(view, epoch), start_batch, None)

    def _computed(self, view: int) -> Iterator[Batch]:
        kept: list[Batch] = []
        for batch in self.source.epoch(self.first + view):
            self.stop.check()
            kept.append(batch._replace(images=self._activations(batch.images)))
            yield kept[-1]._replace(images=kept[-1].images.float())
        self._kept[view] = kept

    def _activations(self, images: Tensor) -> Tensor:
        """As they are kept, on the CPU."""
        device = self.trunk.runtime.device.type
        with torch.no_grad(), torch.autocast(device, torch.bfloat16, enabled=self.reduced):
            found = self.trunk(images)
        return found.to("cpu", torch.bfloat16 if self.reduced else torch.float32)

    def _again(self, view: int, epoch: int) -> Iterator[Batch]:
        kept = self._kept[view]
        places = [(batch, row) for batch, found in enumerate(kept) for row in range(len(found.paths))]
        generator = torch.Generator().manual_seed(draw_seed(self.seed, "kept views", epoch))
        order = iter(torch.randperm(len(places), generator=generator).tolist())
        for found in kept:  # as many batches, of the same sizes
            chosen = [places[next(order)] for _ in found.paths]
            yield Batch(
                torch.stack([kept[batch].images[row] for batch, row in chosen]).float(),
                torch.stack([kept[batch].targets[row] for batch, row in chosen]),
                tuple(kept[batch].paths[row] for batch, row in chosen),
            )


@dataclass
class KeptValidation:
    """The validation part's activations in float32, computed when they are first asked for."""

    source: Callable[[], Iterable[Batch]]
    trunk: Trunk
    _kept: list[Batch] = field(default_factory=list)
    _whole: bool = False

    def __iter__(self) -> Iterator[Batch]:
        if self._whole:
            yield from self._kept
            return
        self._kept = []
        for batch in self.source():
            with self.trunk.runtime.evaluation_arithmetic():
                found = self.trunk(batch.images).cpu()
            self._kept.append(batch._replace(images=found))
            yield self._kept[-1]
        self._whole = True
