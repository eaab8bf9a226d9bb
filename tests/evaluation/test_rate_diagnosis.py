"""Plateaus, rates far below the usual one, and fine-tuning that harms; and curves that have none of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from saccade.evaluation.diagnosis import diagnose
from saccade.evaluation.metrics import measure
from saccade.evaluation.remedies import Evidence
from saccade.recipe import Recipe
from saccade.records import EpochRow, Finding, Metrics, Predictions

CONSTANT = Recipe.from_mapping({"model.backbone": "small_cnn", "train.schedule": "constant"})


def even(accuracy: float) -> Metrics:
    """400 images of four classes, mistakes spread over the others."""
    truth, shift = np.arange(400) % 4, np.zeros(400, int)
    wrong = round(400 * (1 - accuracy))
    shift[:wrong] = 1 + np.arange(wrong) // 4 % 3
    rows = np.full((400, 4), 0.1 / 3)
    rows[np.arange(400), (truth + shift) % 4] = 0.9
    return measure(
        Predictions(
            tuple(f"{i:03d}" for i in range(400)), tuple("abcd"[t] for t in truth), tuple("abcd"), rows
        )
    )


def epochs(
    losses: list[float], accuracy: float, *, rates: list[float] | float = 1e-3, phase: str = "main"
) -> tuple[EpochRow, ...]:
    each = rates if isinstance(rates, list) else [rates] * len(losses)
    return tuple(
        EpochRow(phase, i, lr, loss, accuracy, loss + 0.02, accuracy, 1.0 * i)
        for i, (loss, lr) in enumerate(zip(losses, each, strict=True), start=1)
    )


def found(history: tuple[EpochRow, ...], **evidence: Any) -> dict[str, Finding]:
    return {one.kind: one for one in diagnose(Evidence(history, **{"recipe": CONSTANT, **evidence}))}


STILL = [1.4, 1.2, 1.05, 1.0, 0.99, 0.985, 0.981, 0.984, 0.98, 0.983, 0.979, 0.982]


def test_losses_that_stand_still_at_a_rate_never_lowered_are_a_plateau() -> None:
    told = found(epochs(STILL, 0.6), validation=even(0.6))
    assert told["plateau"].severity == "warning"
    assert "(0.98 to 0.982)" in told["plateau"].message
    assert "--schedule cosine" in told["plateau"].remedy
    assert "underfitting" not in told
    good = found(epochs(STILL, 0.9), validation=even(0.9))
    assert good["plateau"].severity == "info"
    assert "fine" in good, "a model that is good has only something to gain"


@pytest.mark.parametrize("fall", [0.0, 0.03])
def test_noise_alone_does_not_hide_a_plateau_nor_a_slow_fall_make_one(fall: float) -> None:
    random = np.random.default_rng(0)
    hidden = 0
    for _ in range(100):
        trend = 1 - fall * np.arange(12)
        history = epochs(list(trend * (1 + 0.005 * random.normal(size=12))), 0.6)
        hidden += "plateau" in found(history, validation=even(0.6))
    assert hidden >= 95 if fall == 0 else hidden == 0


def test_a_last_epoch_that_happens_to_be_good_does_not_mean_more_time() -> None:
    wandering = [1.2, 1.1, 1.2, 1.3, 1.1, 1.1, 1.2, 1.1, 1.17, 1.16, 1.3, 1.09]
    told = found(epochs(wandering, 0.4), validation=even(0.4))
    assert told.keys() & {"plateau", "stopped_too_early"} == {"plateau"}


def test_a_falling_rate_or_few_epochs_are_no_plateau() -> None:
    lowered = epochs(STILL, 0.6, rates=[1e-3] * 8 + [1e-4] * 4)
    assert "plateau" not in found(lowered, validation=even(0.6))
    assert "plateau" not in found(epochs(STILL[-8:], 0.6), validation=even(0.6))
    assert "plateau" not in found(epochs(STILL, 0.99), validation=even(0.99))


def test_a_hundredth_of_the_usual_rate_at_which_nothing_moves_is_too_low() -> None:
    sgd = Recipe.from_mapping(
        {"model.backbone": "resnet18", "model.pretrained": False, "train.optimizer": "sgd"}
    )
    still = [1.39, 1.385, 1.38, 1.38]
    assert "too_low_a_rate" in found(epochs(still, 0.3, rates=4e-4), validation=even(0.3), recipe=sgd)
    assert "too_low_a_rate" not in found(epochs(still, 0.3, rates=5e-3), validation=even(0.3), recipe=sgd)
    gentle = epochs(still, 0.3, rates=2e-5, phase="finetune")
    assert "too_low_a_rate" not in found(gentle, validation=even(0.3), recipe=Recipe())


def test_losses_that_jump_at_a_tiny_rate_do_not_make_it_high() -> None:
    noisy = epochs([1.2, 1.4, 1.2, 1.4, 1.2, 1.4], 0.35, rates=1e-6)
    told = found(noisy, validation=even(0.35))
    assert told.keys() & {"too_high_a_rate", "too_low_a_rate"} == {"too_low_a_rate"}


def test_fine_tuning_that_makes_it_worse_is_told_and_the_head_advised() -> None:
    head = epochs([0.5], 0.9, rates=0.0, phase="head")
    worse = epochs([0.6, 0.55], 0.75, phase="finetune")
    told = found((*head, *worse), validation=even(0.9), recipe=Recipe())
    assert "the head alone had 90.0 % of the validation images right" in told["fine_tuning_harmed"].message
    assert told["fine_tuning_harmed"].remedy.startswith("Keep the head alone (--method head)")
    alike = epochs([0.6, 0.55], 0.885, phase="finetune")
    told = found((*head, *alike), validation=even(0.9), recipe=Recipe())
    assert "fine_tuning_did_not_help" in told
    assert "fine_tuning_harmed" not in told
