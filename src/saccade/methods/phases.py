"""The phases that methods are made of.

Kumar et al. 2022: fine-tuning that starts from a fitted head keeps what was there.
"""

from __future__ import annotations

from saccade.errors import PromiseError, RecipeError
from saccade.plan import FINETUNE, HEAD, MAIN, Phase
from saccade.recipe import HARD_FINETUNE_RATIO, METHOD_DEFAULTS, Recipe

FINETUNE_EMA_DECAY = 0.98  # from a fitted head; measured: docs/lab-notes.md, "averaged weights"
FITTED_HEAD = Phase(HEAD, 1, 0.0, "head", fitted=True)


def from_scratch(recipe: Recipe) -> tuple[Phase, ...]:
    """One phase in which everything learns; raises RecipeError for a method that leaves layers frozen."""
    method = recipe.train.method
    if method in ("head", "tail"):
        raise RecipeError(
            f"train.method = {method} fits a head on frozen pretrained features, and this network starts "
            "from scratch",
            hint="use pretrained weights (--weights FILE), or --method full",
        )
    return (
        Phase(
            MAIN,
            recipe.epochs,
            recipe.learning_rate,
            "all",
            ema_decay=_usual_decay(recipe),
            swa_epochs=recipe.train.swa_epochs,
        ),
    )


def classic(recipe: Recipe) -> tuple[Phase, ...]:
    """The new head step by step on a frozen base, then gentle fine-tuning of what `unfreeze` names."""
    decay = _usual_decay(recipe)
    head = Phase(HEAD, recipe.train.head_epochs, recipe.learning_rate, "head", ema_decay=decay)
    finetune = Phase(
        FINETUNE,
        recipe.epochs,
        recipe.finetune_learning_rate,
        recipe.train.unfreeze,
        keep_statistics=True,
        ema_decay=decay,
        kept_views=recipe.kept_views,
        swa_epochs=recipe.train.swa_epochs,
    )
    return (head, finetune) if recipe.train.head_epochs else (finetune,)


def whole_network(recipe: Recipe) -> Phase:
    """Fine-tuning of everything from a fitted head."""
    return _after_fitted_head(recipe, recipe.epochs, "all")


def last_layers(recipe: Recipe) -> Phase:
    """Fine-tuning of the last layers from a fitted head, on kept activations.

    In a recipe of another method it has method tail's own epochs (where they are "auto"), layers and views.
    """
    if recipe.train.method == "tail":
        return _after_fitted_head(recipe, recipe.epochs, recipe.train.unfreeze, recipe.kept_views)
    usual = METHOD_DEFAULTS["tail"]
    epochs = usual["epochs"] if recipe.train.epochs == "auto" else recipe.train.epochs
    changes = {"method": "tail", "epochs": epochs, "unfreeze": usual["unfreeze"]}
    return last_layers(recipe.model_copy(update={"train": recipe.train.model_copy(update=changes)}))


def _after_fitted_head(recipe: Recipe, epochs: int, unfreeze: str, kept_views: int = 0) -> Phase:
    decay = recipe.train.ema_decay
    return Phase(
        FINETUNE,
        epochs,
        finetune_rate(recipe),
        unfreeze,
        keep_statistics=True,
        ema_decay=0.0 if recipe.train.swa_epochs else FINETUNE_EMA_DECAY if decay == "auto" else decay,
        ema_warm_up=False,
        kept_views=kept_views,
        swa_epochs=recipe.train.swa_epochs,
    )


def _usual_decay(recipe: Recipe) -> float:
    """The recipe's decay of averaged weights; "auto" is none, and so is beside an equal average (SWA)."""
    decay = recipe.train.ema_decay
    return 0.0 if decay == "auto" or recipe.train.swa_epochs else decay


def finetune_rate(recipe: Recipe) -> float:
    """The recipe's fine-tuning rate; from a fitted head "auto" is the most that promise 5 allows.

    A fitted head sends small gradients from the first step on. Measured: docs/lab-notes.md, "fast transfer".
    """
    if recipe.train.finetune_lr == "auto" and recipe.train.method in ("auto", "tail", "full"):
        return HARD_FINETUNE_RATIO * recipe.learning_rate
    return recipe.finetune_learning_rate


def refuse_large_finetune_rate(recipe: Recipe) -> None:
    """Promise 5, a second time after the recipe's own check: nothing else may have raised the rate."""
    ratio = recipe.finetune_learning_rate / recipe.learning_rate
    if ratio > HARD_FINETUNE_RATIO * (1 + 1e-9) and not recipe.train.allow_large_finetune_lr:
        raise PromiseError(
            f"fine-tuning at {recipe.finetune_learning_rate:g} is {ratio:.2g} times the learning rate of the "
            f"head, {recipe.learning_rate:g}",
            hint="use at most a tenth, or set train.allow_large_finetune_lr = true",
        )
