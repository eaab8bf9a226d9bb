"""Which phases a training has: head then fine-tuning for pretrained weights, one phase from scratch.

The head is solved on frozen features (one "epoch" without steps), or, by method "finetune", learnt step by
step on augmented images. Kumar et al. 2022: fine-tuning that starts from a fitted head keeps what was there.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from saccade.errors import PromiseError, RecipeError
from saccade.models.finetune import freeze_backbone, unfreeze
from saccade.models.network import Classifier
from saccade.recipe import HARD_FINETUNE_RATIO, METHOD_DEFAULTS, Recipe

HEAD, FINETUNE, MAIN = "head", "finetune", "main"
FINETUNE_EMA_DECAY = 0.98  # from a fitted head; measured: docs/lab-notes.md, "averaged weights"


@dataclass(frozen=True, slots=True)
class Phase:
    """A stretch of epochs with one rate and one set of learning parts.

    `solved`: no steps, the head is fitted on frozen features. `unfreeze` is "head" (only the head learns),
    "all", or a spec of `models.finetune.unfreeze`. `keep_statistics`: BatchNorm goes on with the pretrained
    statistics, on which the head rests. `ema_decay`: of the average of the weights, 0 for none, which from a
    fitted head need not warm up, because where it begins is good already. `kept_views`: of how many views of
    an image the frozen stages' activations are kept.
    """

    name: str
    epochs: int
    learning_rate: float
    unfreeze: str
    solved: bool = False
    keep_statistics: bool = False
    ema_decay: float = 0.0
    ema_warm_up: bool = True
    kept_views: int = 0


def plan_phases(recipe: Recipe, *, pretrained: bool, can_solve: bool = False) -> tuple[Phase, ...]:
    """The phases a recipe asks for; raises PromiseError for fine-tuning that is not gentle (promise 5).

    `can_solve`: frozen features can be had; without them every method but "head" learns step by step.
    """
    train = recipe.train
    if not pretrained:
        _refuse_what_needs_weights(train.method)
        return (Phase(MAIN, recipe.epochs, recipe.learning_rate, "all", ema_decay=usual_decay(recipe)),)
    refuse_large_finetune_rate(recipe)
    if can_solve and train.method != "finetune":
        solved = Phase(HEAD, 1, 0.0, "head", solved=True)
        return (solved,) if train.method == "head" else (solved, after_fitted_head(recipe))
    decay = usual_decay(recipe)
    head = Phase(HEAD, train.head_epochs, recipe.learning_rate, "head", ema_decay=decay)
    rate = recipe.finetune_learning_rate
    finetune = Phase(FINETUNE, recipe.epochs, rate, train.unfreeze, keep_statistics=True, ema_decay=decay)
    finetune = replace(finetune, kept_views=recipe.kept_views)
    return (head, finetune) if train.head_epochs else (finetune,)


def _refuse_what_needs_weights(method: str) -> None:
    """Raise RecipeError for a method that leaves layers frozen, which from scratch would never learn."""
    if method in ("head", "tail"):
        raise RecipeError(
            f"train.method = {method} fits a head on frozen pretrained features, and this network starts "
            "from scratch; use pretrained weights (--weights FILE), or --method full"
        )


def after_fitted_head(recipe: Recipe) -> Phase:
    """Fine-tuning from a head that was solved: of everything, or by method "tail" of the last layers."""
    decay = recipe.train.ema_decay
    tail = recipe.train.method == "tail"
    return Phase(
        FINETUNE,
        recipe.epochs,
        finetune_rate(recipe),
        recipe.train.unfreeze if tail else "all",
        keep_statistics=True,
        ema_decay=FINETUNE_EMA_DECAY if decay == "auto" else decay,
        ema_warm_up=False,
        kept_views=recipe.kept_views if tail else 0,
    )


def tail_after_fitted_head(recipe: Recipe) -> Phase:
    """What method "tail" would do after the head, with this recipe in all else."""
    usual = METHOD_DEFAULTS["tail"]
    epochs = usual["epochs"] if recipe.train.epochs == "auto" else recipe.train.epochs
    changes = {"method": "tail", "epochs": epochs, "unfreeze": usual["unfreeze"]}
    train = recipe.train.model_copy(update=changes)
    return after_fitted_head(recipe.model_copy(update={"train": train}))


def usual_decay(recipe: Recipe) -> float:
    """The recipe's decay of averaged weights; "auto" is none."""
    return 0.0 if recipe.train.ema_decay == "auto" else recipe.train.ema_decay


def refuse_large_finetune_rate(recipe: Recipe) -> None:
    """Promise 5, a second time after the recipe's own check: nothing else may have raised the rate."""
    ratio = recipe.finetune_learning_rate / recipe.learning_rate
    if ratio > HARD_FINETUNE_RATIO * (1 + 1e-9) and not recipe.train.allow_large_finetune_lr:
        raise PromiseError(
            f"fine-tuning at {recipe.finetune_learning_rate:g} is {ratio:.2g} times the head's rate "
            f"{recipe.learning_rate:g}; use at most a tenth, or set train.allow_large_finetune_lr = true"
        )


def finetune_rate(recipe: Recipe) -> float:
    """The recipe's fine-tuning rate; from a fitted head "auto" is the most that promise 5 allows.

    A fitted head sends small gradients from the first step on. Measured: docs/lab-notes.md, "fast transfer".
    """
    if recipe.train.finetune_lr == "auto" and recipe.train.method in ("auto", "tail", "full"):
        return HARD_FINETUNE_RATIO * recipe.learning_rate
    return recipe.finetune_learning_rate


def freeze_for(classifier: Classifier, phase: Phase) -> None:
    """Phase "head" freezes the backbone; "finetune" all of it but what `unfreeze` names; "main" nothing."""
    if phase.name == HEAD:
        freeze_backbone(classifier)
    elif phase.name == FINETUNE:
        unfreeze(classifier, phase.unfreeze)
    else:
        classifier.requires_grad_(True)
