"""Which phases a training has: head then fine-tuning for pretrained weights, one phase from scratch."""

from __future__ import annotations

from dataclasses import dataclass

from saccade.config import HARD_FINETUNE_RATIO, Recipe
from saccade.errors import PromiseError
from saccade.models.finetune import freeze_backbone, unfreeze
from saccade.models.network import Classifier

HEAD, FINETUNE, MAIN = "head", "finetune", "main"


@dataclass(frozen=True, slots=True)
class Phase:
    """A stretch of epochs with one rate and one set of learning parts.

    `unfreeze` is "head" (only the head learns), "all", or a spec of `models.finetune.unfreeze`.
    """

    name: str
    epochs: int
    learning_rate: float
    unfreeze: str


def plan_phases(recipe: Recipe, *, pretrained: bool) -> tuple[Phase, ...]:
    """The phases a recipe asks for; raises PromiseError for fine-tuning that is not gentle (promise 5)."""
    train = recipe.train
    if not pretrained:
        return (Phase(MAIN, train.epochs, recipe.learning_rate, "all"),)
    refuse_large_finetune_rate(recipe)
    head = Phase(HEAD, train.head_epochs, recipe.learning_rate, "head")
    finetune = Phase(FINETUNE, train.epochs, recipe.finetune_learning_rate, train.unfreeze)
    return (head, finetune) if train.head_epochs else (finetune,)


def refuse_large_finetune_rate(recipe: Recipe) -> None:
    """Promise 5, a second time after the recipe's own check: nothing else may have raised the rate."""
    ratio = finetune_ratio(recipe)
    if ratio > HARD_FINETUNE_RATIO * (1 + 1e-9) and not recipe.train.allow_large_finetune_lr:
        raise PromiseError(
            f"fine-tuning at {recipe.finetune_learning_rate:g} is {ratio:.2g} times the head's rate "
            f"{recipe.learning_rate:g}; use at most a tenth, or set train.allow_large_finetune_lr = true"
        )


def finetune_ratio(recipe: Recipe) -> float:
    """Fine-tuning rate over the head's rate."""
    return recipe.finetune_learning_rate / recipe.learning_rate


def freeze_for(classifier: Classifier, phase: Phase) -> None:
    """Phase "head" freezes the backbone; "finetune" all of it but what `unfreeze` names; "main" nothing."""
    if phase.name == HEAD:
        freeze_backbone(classifier)
    elif phase.name == FINETUNE:
        unfreeze(classifier, phase.unfreeze)
    else:
        classifier.requires_grad_(True)
