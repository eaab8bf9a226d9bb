"""What is kept of a training: the network with its temperature, as the run's bundle."""

from __future__ import annotations

import dataclasses

from saccade.answer import Answer
from saccade.bundle import Bundle, save_bundle
from saccade.evaluation.calibration import Temperature, choose_temperature
from saccade.pipeline.larger import EvaluationSize
from saccade.pipeline.work import Work
from saccade.training import FitResult


def keep_bundle(work: Work, result: FitResult, sized: EvaluationSize, late: str) -> None:
    """Fit the temperature on the validation part and write the bundle.

    `sized`: the network, and what it answers on validation images; `late` is a note on the time limit.
    """
    temperature, dataset, network = Temperature(1.0), work.dataset, sized.network
    if work.recipe.evaluate.calibrate:
        groups = [record.unit for record in dataset.used("validation")]
        temperature = choose_temperature(*sized.answers(), groups=groups)
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
        **({"averaged_with_pretrained": dict(result.averaged)} if result.averaged else {}),
        **({"evaluation_size": sized.facts} if sized.facts else {}),
        "notes": [*network.notes, *filter(None, (late, *result.notes, sized.note, temperature.note))],
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
