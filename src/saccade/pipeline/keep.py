"""What is kept of a training: the network with its temperature, as the run's bundle."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from saccade.answer import Answer
from saccade.bundle import Bundle, save_bundle
from saccade.evaluation.calibration import Temperature, choose_temperature
from saccade.models import BuiltModel
from saccade.pipeline.work import Work
from saccade.training import FitResult


def keep_bundle(
    work: Work,
    network: BuiltModel,
    result: FitResult,
    answers: Callable[[], tuple[NDArray[np.float32], NDArray[np.int64]]],
    late: str,
) -> None:
    """Fit the temperature on the validation part and write the bundle.

    `answers` gives the logits (n, classes) and labels (n,) of the validation images, where they are needed;
    `late` is a note on the time limit.
    """
    temperature, dataset = Temperature(1.0), work.dataset
    if work.recipe.evaluate.calibrate:
        groups = [record.unit for record in dataset.used("validation")]
        temperature = choose_temperature(*answers(), groups=groups)
    if temperature.note:
        work.terminal.say(f"          {temperature.note}")
    training = {
        "stopped": result.stopped,
        "best": dataclasses.asdict(result.best),
        "frozen": [dataclasses.asdict(evidence) for evidence in result.frozen],
        "frozen_in_bundle": result.frozen_at_end,
        "continued": [dataclasses.asdict(entry) for entry in result.continued],
        "finetune_ratio": result.finetune_ratio,
        "weights_sha256": result.weights_sha256,
        "weights": network.origin.as_json() if network.origin else {},
        "notes": [*network.notes, *filter(None, (late, *result.notes, temperature.note))],
    }
    bundle = Bundle(
        module=network.module,
        classes=dataset.classes,
        preprocess=network.preprocess,
        architecture=network.architecture,
        answer=Answer("softmax", (temperature.value,)),
        data_fingerprint=dataset.fingerprint(),
        training=training,
    )
    save_bundle(bundle, work.run.bundle, write=work.run.write)
