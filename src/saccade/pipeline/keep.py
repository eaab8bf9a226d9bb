"""What is kept of a training: the network with its answer's numbers, as the run's bundle."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from saccade.answer import Answer
from saccade.bundle import Bundle, save_bundle
from saccade.evaluation.adjustment import Adjustment, choose_adjustment, offsets
from saccade.evaluation.calibration import Temperature, choose_temperature
from saccade.evaluation.label_answers import Chosen, choose_temperatures, choose_thresholds
from saccade.pipeline.larger import EvaluationSize
from saccade.pipeline.shares import PRIORS, trained_priors
from saccade.pipeline.work import Work
from saccade.recipe import Recipe
from saccade.records import Dataset
from saccade.training import FitResult

Answers = Callable[[], tuple[NDArray[np.float32], NDArray[Any]]]


class Fitted(NamedTuple):
    """The answer, the strength of the logit adjustment in it, and what is to be said about both.

    `thresholds`, by class: of images that may have several labels, where each is named.
    """

    answer: Answer
    strength: float
    notes: tuple[str, ...]
    thresholds: Mapping[str, float] = MappingProxyType({})


def fitted_answer(recipe: Recipe, dataset: Dataset, answers: Answers) -> Fitted:
    """The temperature that validation images ask for, then the logit adjustment of what it gives."""
    if dataset.multi_label:
        return _fitted_to_labels(recipe, dataset, answers)
    evaluate, counts = recipe.evaluate, tuple(dataset.counts("train").values())
    groups = [record.unit for record in dataset.used("validation")]
    temperature = choose_temperature(*answers(), groups=groups) if evaluate.calibrate else Temperature(1.0)
    answer = Answer("softmax", (temperature.value,))
    if evaluate.logit_adjustment == "auto":
        logits, labels = answers()
        adjustment = choose_adjustment(answer.scaled(logits), labels, counts, groups)
    else:
        adjustment = Adjustment(evaluate.logit_adjustment)
    adjusted = replace(answer, offsets=offsets(adjustment.strength, counts))
    return Fitted(adjusted, adjustment.strength, tuple(filter(None, (temperature.note, adjustment.note))))


def _fitted_to_labels(recipe: Recipe, dataset: Dataset, answers: Answers) -> Fitted:
    """Of images with any number of labels: a temperature and a threshold for each."""
    groups = [record.unit for record in dataset.used("validation")]
    found, labels = answers()
    logits, truth, classes = found.astype(np.float64), labels > 0.5, dataset.classes
    usual = Chosen((1.0,) * len(classes))
    chosen = choose_temperatures(logits, truth, groups, classes) if recipe.evaluate.calibrate else usual
    answer = Answer("sigmoid", chosen.values)
    limits = choose_thresholds(
        answer.probabilities(logits), truth, groups, classes, precision=recipe.evaluate.precision
    )
    thresholds = dict(zip(classes, limits.values, strict=True))  # not rounded: a sharp head's lie near 0 or 1
    return Fitted(answer, 0.0, tuple(filter(None, (chosen.note, limits.note))), thresholds)


def keep_bundle(work: Work, result: FitResult, sized: EvaluationSize, late: str) -> None:
    """Fit temperature and logit adjustment on the validation part and write the bundle.

    `sized`: the network, and what it answers on validation images; `late` is a note on the time limit.
    """
    dataset, network = work.dataset, sized.network
    fitted = fitted_answer(work.recipe, dataset, functools.cache(sized.answers))
    for note in fitted.notes:
        work.terminal.say(f"          {note}")
    priors = trained_priors(work.recipe, dataset.counts("train"), fitted.strength)
    training = {
        "stopped": result.stopped,
        "best": dataclasses.asdict(result.best),
        "frozen": [dataclasses.asdict(evidence) for evidence in result.frozen],
        "frozen_in_bundle": result.frozen_at_end,
        "continued": [dataclasses.asdict(entry) for entry in result.continued],
        "finetune_ratio": result.finetune_ratio,
        "weights_sha256": result.weights_sha256,
        "weights": network.origin.as_json() if network.origin else {},
        **({"averaged_with_pretrained": dict(result.averaged)} if result.averaged else {}),
        **({"evaluation_size": sized.facts} if sized.facts else {}),
        **({PRIORS: priors.as_json()} if priors else {}),
        "notes": [*network.notes, *filter(None, (late, *result.notes, sized.note, *fitted.notes))],
    }
    bundle = Bundle(
        module=network.module,
        classes=dataset.classes,
        preprocess=network.preprocess,
        architecture=network.architecture,
        answer=fitted.answer,
        thresholds=fitted.thresholds,
        data_fingerprint=dataset.fingerprint(),
        training=training,
    )
    save_bundle(bundle, work.run.bundle, write=work.run.write)
