"""One model out of the models of k folds: their weights averaged where that holds up, else all in one graph.

Which of the two is decided on images outside of the test part, and none of them is new to all models: each
was held out by one fold and learnt by the others. So what is measured is not how good a model is, which the
held-out predictions and the test part say, but whether the averaged weights answer as the models do together.
Where averaging fails (models in different basins, BatchNorm statistics that do not mix) it fails on images
that were learnt as well, and there a rise of the loss is the easier to see, since the loss is small. The loss
alone would flatter the average, in which the one model that has not learnt an image has less of a say than in
the mean of probabilities; so the two must name the same class, too.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from saccade.answer import Answer
from saccade.bundle import Bundle, load_bundle, load_exactly, save_bundle, weights_sha256
from saccade.images.decoder import Limits
from saccade.models import rebuild
from saccade.models.build import MEMBERS
from saccade.pipeline.work import Work
from saccade.records import ImageRecord
from saccade.run_folder import RunFolder
from saccade.runtime import Runtime
from saccade.training import predict_logits
from saccade.transforms import evaluation_batches

AVERAGE, ENSEMBLE = "average", "ensemble"
COMPARED_IMAGES = 400
BATCH = 32
# The averaged weights may have so much more log loss than the models together: a share of it, and a little
# for losses near 0.
LOSS_SHARE, LOSS_MARGIN = 0.05, 0.005
LEAST_AGREEMENT = 0.97  # of first classes; the loss alone flatters the average, which learnt every image
Probabilities = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Averaged weights beside the models together, on `images` images that most of the models have learnt."""

    images: int
    log_loss_average: float
    log_loss_ensemble: float
    agreement: float

    @property
    def holds_up(self) -> bool:
        most = self.log_loss_ensemble * (1 + LOSS_SHARE) + LOSS_MARGIN
        return self.log_loss_average <= most and self.agreement >= LEAST_AGREEMENT


def join_folds(work: Work, folds: Sequence[RunFolder]) -> None:
    """Write the bundle of the run, and in its record which of the two it is and why."""
    bundles = [load_bundle(fold.bundle) for fold in folds]
    assert len({bundle.preprocess for bundle in bundles}) == 1, "one preprocessing for all folds"
    kind, reason, compared = _choose(work, bundles)
    joined = averaged(bundles) if kind == AVERAGE else together(bundles)
    training = {
        "stopped": f"made of the models of {len(bundles)} folds",
        "frozen": [],
        "frozen_in_bundle": "",
        "continued": [],
        "weights": bundles[0].training.get("weights", {}),
        "notes": [reason],
    }
    bundle = dataclasses.replace(
        joined, data_fingerprint=work.dataset.fingerprint(), training=training, thresholds={}
    )
    told = {"models": len(bundles), "kind": kind, "reason": reason}
    work.run.update_record(folds=told | (dataclasses.asdict(compared) if compared else {}))
    save_bundle(bundle, work.run.bundle, write=work.run.write)
    work.terminal.say(f"Model     {reason}")


def _choose(work: Work, bundles: Sequence[Bundle]) -> tuple[str, str, Comparison | None]:
    count = len(bundles)
    if only_heads_differ(bundles):
        return (
            AVERAGE,
            f"the {count} folds share a frozen backbone and differ in a linear head: the mean of the heads "
            "gives the mean of their logits exactly, whose log loss on any image is at most their mean loss",
            None,
        )
    records = work.dataset.used("train")
    chosen = records[:: -(-len(records) // COMPARED_IMAGES)]
    compared = compare(work, bundles, chosen)
    figures = (
        f"log loss {compared.log_loss_average:.3f} of the averaged weights and "
        f"{compared.log_loss_ensemble:.3f} of the models together on {compared.images} images, each learnt "
        f"by {count - 1} of the {count} models, same answer on {compared.agreement:.1%}"
    )
    if compared.holds_up:
        return AVERAGE, f"the weights of the {count} folds averaged: {figures}", compared
    return (
        ENSEMBLE,
        f"the {count} folds' networks in one graph, their probabilities averaged, because averaging weights "
        f"does not hold up: {figures}",
        compared,
    )


def only_heads_differ(bundles: Sequence[Bundle]) -> bool:
    """Whether all have the same backbone, bit for bit, and one dense layer on it."""
    heads = [bundle.module.get_submodule("head") for bundle in bundles]
    linear = all(sum(isinstance(m, nn.Linear) for m in head.modules()) == 1 for head in heads)
    return (
        linear and len({weights_sha256(bundle.module.get_submodule("backbone")) for bundle in bundles}) == 1
    )


def averaged(bundles: Sequence[Bundle]) -> Bundle:
    """One network with the mean of the weights; whole numbers (of batches seen) are the first one's.

    Its temperature is the geometric mean of theirs. Each was fitted on images that its model had not learnt,
    and no image is left on which another could be.
    """
    states = [bundle.module.state_dict() for bundle in bundles]
    mean = {name: _mean([state[name] for state in states]) for name in states[0]}
    module = rebuild(dict(bundles[0].architecture))
    load_exactly(module, mean, where="the averaged weights")
    return dataclasses.replace(
        bundles[0], module=module.eval(), answer=mean_answer([bundle.answer for bundle in bundles])
    )


def mean_answer(answers: Sequence[Answer]) -> Answer:
    """Geometric mean of temperatures, mean of offsets, class by class."""
    classes = max(max(len(answer.temperatures), len(answer.offsets)) for answer in answers)
    temperatures = [np.broadcast_to(np.log(answer.temperatures), classes) for answer in answers]
    offsets = [np.broadcast_to(answer.offsets or (0.0,), classes) for answer in answers]
    one = all(len(answer.temperatures) == 1 for answer in answers)
    mean = np.exp(np.mean(temperatures, axis=0))
    shift = np.mean(offsets, axis=0) if any(answer.offsets for answer in answers) else np.empty(0)
    return Answer(
        answers[0].activation, tuple(map(float, mean[:1] if one else mean)), tuple(map(float, shift))
    )


def _mean(tensors: Sequence[Tensor]) -> Tensor:
    first = tensors[0]
    if not first.is_floating_point():
        return first
    return torch.stack([tensor.double() for tensor in tensors]).mean(dim=0).to(first.dtype)


def together(bundles: Sequence[Bundle]) -> Bundle:
    """All networks behind one preprocessing, probabilities averaged, each with its own temperature."""
    answers = [bundle.answer for bundle in bundles]
    architecture = {**bundles[0].architecture, MEMBERS: [answer.as_json() for answer in answers]}
    module: Any = rebuild(architecture)
    for member, bundle in zip(module.members, bundles, strict=True):
        load_exactly(member, bundle.module.state_dict(), where="a fold's model")
    answer = Answer(answers[0].activation)
    return dataclasses.replace(bundles[0], module=module.eval(), architecture=architecture, answer=answer)


def compare(work: Work, bundles: Sequence[Bundle], records: Sequence[ImageRecord]) -> Comparison:
    """The averaged weights and the mean of all models' probabilities, on the same images."""
    answers = [
        _probabilities(work, bundle, records, f"asking fold {n}") for n, bundle in enumerate(bundles, start=1)
    ]
    ensemble: Probabilities = np.mean(answers, axis=0)
    average = _probabilities(work, averaged(bundles), records, "asking the average")
    column = {label: number for number, label in enumerate(bundles[0].classes)}
    labels = np.array([column[record.label] for record in records])
    return Comparison(
        images=len(records),
        log_loss_average=_log_loss(average, labels),
        log_loss_ensemble=_log_loss(ensemble, labels),
        agreement=float((average.argmax(axis=1) == ensemble.argmax(axis=1)).mean()),
    )


def _log_loss(probabilities: Probabilities, labels: NDArray[np.int64]) -> float:
    right = probabilities[np.arange(len(labels)), labels]
    return float(-np.log(np.maximum(right, 1e-15)).mean())


def _probabilities(work: Work, bundle: Bundle, records: Sequence[ImageRecord], what: str) -> Probabilities:
    runtime = Runtime.create(work.recipe.device, "float32")
    runtime.place(bundle.module)
    batches = evaluation_batches(
        work.dataset.storage,
        tuple(records),
        bundle.classes,
        bundle.preprocess,
        BATCH,
        limits=Limits.of(work.recipe.data, bundle.preprocess.pixels),
    )
    with work.terminal.progress(what) as progress:
        logits, _, _ = predict_logits(bundle.module, batches, runtime, progress=progress, images=len(records))
    bundle.module.to("cpu")
    return bundle.answer.probabilities(logits)
