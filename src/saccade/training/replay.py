"""A step that ended a training, taken again: where NaN or infinite values begin."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from saccade.bundle import load_exactly
from saccade.errors import RunError
from saccade.models.finetune import set_training_mode
from saccade.models.network import Classifier
from saccade.models.weights import MAX_IMAGE_SIZE, shortened
from saccade.plan import FINETUNE, HEAD, MAIN, Phase
from saccade.preprocess import MOST_CHANNELS
from saccade.run_folder import STEP, read_json
from saccade.runtime import Runtime, draw_seed
from saccade.training.cpu.depthwise import fast_depthwise_backward
from saccade.training.job import freeze_for
from saccade.training.learner import even_parts
from saccade.training.losses import LOSSES, Loss
from saccade.training.memory import out_of_memory
from saccade.training.not_finite import BATCH, STATE
from saccade.training.state import load_tensors

WEIGHTS = "weights/"
ANEW = "train again: the step is written anew"
FACTS: dict[str, type] = {
    **dict.fromkeys(("epoch", "step", "seed", "images_at_once", "side", "channels"), int),
    **dict.fromkeys(("phase", "loss", "architecture", "sha256"), dict),
    **dict.fromkeys(("precision", "device", "torch"), str),
    "activations": bool,
    "paths": list,
}


@dataclass(frozen=True, slots=True)
class KeptStep:
    """What `not_finite.write_down` kept of a step."""

    facts: Mapping[str, Any]
    images: Tensor
    targets: Tensor
    weights: Mapping[str, Tensor]
    loss: Loss
    phase: Phase

    @property
    def paths(self) -> list[str]:
        return [str(path) for path in self.facts["paths"]]


@dataclass(slots=True)
class Replayed:
    """Where values that are NaN or infinite were found; "" and empty where they were not.

    `layer` is the first to give one, with its kind; `layer_images` are those for which it did. `loss` are
    images whose loss is one. `gradients` are weights with such a gradient, that nearest to the loss first.
    """

    images: list[str] = field(default_factory=list)
    weights: list[str] = field(default_factory=list)
    layer: str = ""
    layer_images: list[str] = field(default_factory=list)
    loss: list[str] = field(default_factory=list)
    gradients: list[str] = field(default_factory=list)

    @property
    def again(self) -> bool:
        """Whether the step went wrong again."""
        return bool(self.loss or self.gradients)

    def lines(self) -> list[str]:
        """For people."""
        found = f"{self.layer}, for {_counted(self.layer_images)}" if self.layer else ""
        rows = {
            "Images": _counted(self.images),
            "Weights": f"{shortened(self.weights, 3)}, before the step" if self.weights else "",
            "Layer": f"{found} (the first)" if found else "",
            "Loss": _counted(self.loss),
            "Gradient": f"NaN or infinite: {shortened(self.gradients, 5)}" if self.gradients else "",
        }
        return [f"{name:<10}{text or 'finite'}" for name, text in rows.items()]


def read_step(folder: Path) -> KeptStep:
    """What lies in `folder`, as `RunFolder.kept_step` gives it; raises RunError where that is damaged."""
    facts = read_json(folder / STEP)
    try:
        _refuse_unknown(facts)
        batch, state = (load_tensors(folder / name, facts["sha256"][name]) for name in (BATCH, STATE))
        _refuse_uneven(batch["images"], batch["targets"], facts["paths"])
        loss = Loss(
            **facts["loss"], class_weights=batch.get("class_weights"), adjustment=batch.get("adjustment")
        )
        phase = Phase(**facts["phase"])
        weights = {n.removeprefix(WEIGHTS): t for n, t in state.items() if n.startswith(WEIGHTS)}
        return KeptStep(facts, batch["images"], batch["targets"], weights, loss, phase)
    except RunError as error:
        problem = error.problem
    except (TypeError, KeyError, ValueError) as error:
        problem = f"{folder / STEP} is damaged ({error})"
    raise RunError(problem, hint=ANEW)


def _refuse_unknown(facts: Mapping[str, Any]) -> None:
    """Raises ValueError that names what no step of ours could have."""
    wrong = [name for name, kind in FACTS.items() if not isinstance(facts.get(name), kind)]
    if not wrong:
        most = {"side": MAX_IMAGE_SIZE, "channels": MOST_CHANNELS}
        wrong = [name for name, value in most.items() if not facts["activations"] <= facts[name] <= value]
        known = {"loss": LOSSES, "phase": (HEAD, FINETUNE, MAIN)}
        wrong += [name for name, names in known.items() if facts[name].get("name") not in names]
    if wrong:
        raise ValueError(wrong[0])


def _refuse_uneven(images: Tensor, targets: Tensor, paths: list[Any]) -> None:
    """Raises ValueError unless each image has its target and path."""
    if not (images.is_floating_point() and targets.is_floating_point() and targets.ndim == 2):
        raise ValueError("images and targets must be numbers, a row each")
    if not 0 < len(images) == len(targets) == len(paths):
        raise ValueError(f"{len(images)} images, {len(targets)} targets, {len(paths)} paths")


def replay(step: KeptStep, classifier: Classifier, runtime: Runtime) -> Replayed:
    """Take the step again with the classifier, up to its gradient, and note where values are not finite.

    The classifier is that of the run, as it takes what was kept as images. Raises ModelError where the
    weights do not fit, and RunError where the rest does not.
    """
    found = Replayed(images=_of(step.paths, spoilt_rows(step.images)))
    load_exactly(classifier, step.weights, where=STATE)
    found.weights = [name for name, tensor in step.weights.items() if not _finite(tensor)]
    runtime.place(classifier)
    freeze_for(classifier, step.phase)
    set_training_mode(classifier, keep_statistics=step.phase.keep_statistics)
    try:
        # the quick backward is that of training; it acts in bfloat16 on a CPU
        with runtime.training_arithmetic(), fast_depthwise_backward(classifier):
            _backward(step, classifier, runtime, found)
    except (RuntimeError, TypeError, ValueError) as error:
        if out_of_memory(error):
            raise
        what = str(error).partition("\n")[0]
        raise RunError(f"the step does not fit the network it names ({what})", hint=ANEW) from None
    if found.loss:
        return found
    learnt = [(name, p.grad) for name, p in classifier.named_parameters() if p.grad is not None]
    found.gradients = [name for name, gradient in reversed(learnt) if not _finite(gradient)]
    return found


def _backward(step: KeptStep, classifier: Classifier, runtime: Runtime, found: Replayed) -> None:
    """The gradient of the step, unless a loss is not finite."""
    torch.manual_seed(draw_seed(step.facts["seed"], "step", step.facts["step"]))
    for part in even_parts(len(step.images), max(1, step.facts["images_at_once"])):
        losses = _losses(step, part, classifier, runtime, found)
        found.loss += _of(step.paths[part], spoilt_rows(losses[:, None]))
        if found.loss:
            return
        (losses.sum() / len(step.images)).backward()  # type: ignore[no-untyped-call]


def _losses(step: KeptStep, part: slice, classifier: Classifier, runtime: Runtime, found: Replayed) -> Tensor:
    """(b,) of some of the images; the first layer that gives a bad value is noted in `found`."""
    device, reduced = runtime.device, runtime.precision == "bfloat16"
    loss, targets = step.loss.to(device), step.targets[part].to(device)
    with (
        first_spoilt_layer(classifier, step.paths[part], found),
        torch.autocast(device.type, torch.bfloat16, enabled=reduced),
    ):
        logits = classifier(runtime.images(step.images[part]))
    if logits.shape != targets.shape:
        raise ValueError(f"targets of {targets.shape[1]} classes")
    return loss(logits, targets)


@contextlib.contextmanager
def first_spoilt_layer(module: nn.Module, paths: list[str], found: Replayed) -> Iterator[None]:
    """Within it the first layer whose output is not finite is noted in `found`, innermost first."""

    def look(name: str, layer: nn.Module, output: Any) -> None:
        outputs = output if isinstance(output, tuple | list) else (output,)
        bad = [row for one in outputs if isinstance(one, Tensor) for row in spoilt_rows(one)]
        if bad and not found.layer:
            found.layer = f"{name or 'the network'} ({type(layer).__name__})"
            found.layer_images = _of(paths, sorted(set(bad)))

    def hook(name: str) -> Any:
        return lambda layer, inputs, output: look(name, layer, output)

    handles = [layer.register_forward_hook(hook(name)) for name, layer in module.named_modules()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def spoilt_rows(values: Tensor) -> list[int]:
    """Rows of values (B, ...) that hold a NaN or infinite one.

    >>> spoilt_rows(torch.tensor([[1.0, 2.0], [torch.nan, 0.0], [0.0, torch.inf]]))
    [1, 2]
    """
    if not values.is_floating_point() or not values.ndim or not values.numel():
        return []
    rows: list[int] = (~values.detach().reshape(len(values), -1).isfinite().all(1)).nonzero()[:, 0].tolist()
    return rows


def _finite(tensor: Tensor) -> bool:
    return not tensor.is_floating_point() or bool(tensor.isfinite().all())


def _of(paths: list[str], rows: list[int]) -> list[str]:
    """Paths of rows; where a layer gives more rows than there are images, its own rows are no images."""
    return [paths[row] if row < len(paths) else f"row {row}" for row in rows]


def _counted(paths: list[str]) -> str:
    return f"{len(paths)} NaN or infinite: {shortened(paths, 5)}" if paths else ""
