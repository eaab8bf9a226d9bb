"""Three ways to keep a gradient short: by its norm, by each of its numbers, by the length of the weights."""

from __future__ import annotations

from collections.abc import Callable

from saccade.training.learner import Learner


def by_norm(learner: Learner, limit: float) -> None:
    """The whole gradient has at most this length."""
    learner.runtime.clip(learner.forward, learner.stepper, limit)


def by_value(learner: Learner, limit: float) -> None:
    """No number of it is larger."""
    learner.runtime.clip_values(learner.forward, learner.stepper, limit)


def by_weights(learner: Learner, limit: float) -> None:
    """That of each filter is at most this share of the filter's length; the head is left as it is.

    Adaptive gradient clipping. Brock et al. 2021, "High-performance large-scale image recognition without
    normalization"; as timm has it.
    """
    from timm.utils import adaptive_clip_grad

    adaptive_clip_grad(learner.classifier.backbone.parameters(), clip_factor=limit)


# name in the recipe -> function
CLIPS: dict[str, Callable[[Learner, float], None]] = {"norm": by_norm, "value": by_value, "agc": by_weights}


def clip_gradients(learner: Learner) -> None:
    """Shorten the gradient as the plan's optimizer has it."""
    settings = learner.plan.optimizer
    CLIPS[settings.clip_by](learner, settings.gradient_clip)
