"""What is searched, and the recipe that a trial's parameters stand for.

What the user has fixed by a flag or a file is not searched.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from saccade.models import preparation
from saccade.recipe import HARD_FINETUNE_RATIO, Recipe
from saccade.selection.at_hand import Candidate

if TYPE_CHECKING:
    from optuna.trial import Trial

METHODS = ("head", "tail", "full")  # each is a fidelity of the next
POLICIES = ("none", "light", "medium", "strong")
SIZES = (0.75, 1.0, 1.25)  # of the backbone's own input
SIZE_STEP = 32
RATES = (5e-5, 1e-3)  # of fine-tuning
DECAYS = (1e-4, 1e-1)
# parameter -> the fields of the recipe each of which fixes it
FIELDS = {
    "method": ("train.method",),
    "size": ("data.image_size",),
    "augment": ("augment.policy",),
    "rate": ("train.finetune_lr", "train.lr"),  # of fine-tuning, which is a share of lr
    "weight_decay": ("train.weight_decay",),
}
Params = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Space:
    """The backbones by label, the recipe that all trials share, and which parameters it fixes."""

    candidates: Mapping[str, Candidate]
    base: Recipe

    @property
    def fixed(self) -> frozenset[str]:
        return frozenset(name for name, fields in FIELDS.items() if not self.base.given.isdisjoint(fields))

    @property
    def methods(self) -> tuple[str, ...]:
        """Those a trial may go up to; a method that was given is the only one."""
        return METHODS if "method" not in self.fixed else (self.base.train.method,)

    def suggest(self, trial: Trial) -> dict[str, Any]:
        """Parameters for a trial; those that its method has no use for are left out."""
        found: dict[str, Any] = {"backbone": trial.suggest_categorical("backbone", list(self.candidates))}
        found["method"] = trial.suggest_categorical("method", list(self.methods))
        if "size" not in self.fixed:
            found["size"] = trial.suggest_categorical("size", list(SIZES))
        if found["method"] == "head":
            return found
        if "augment" not in self.fixed:
            found["augment"] = trial.suggest_categorical("augment", list(POLICIES))
        if "rate" not in self.fixed:
            found["rate"] = trial.suggest_float("rate", *RATES, log=True)
        if "weight_decay" not in self.fixed:
            found["weight_decay"] = trial.suggest_float("weight_decay", *DECAYS, log=True)
        return found

    def usual(self) -> dict[str, Any]:
        """The parameters of the recipe as it is, with the method that costs least but the head."""
        named = self.base.model.backbone
        first = next((label for label, c in self.candidates.items() if c.backbone.endswith(named)), None)
        method = "tail" if "tail" in self.methods else self.methods[0]
        values = {
            "backbone": first or next(iter(self.candidates)),
            "method": method,
            "size": 1.0,
            "augment": self.base.augment.policy,
            "rate": HARD_FINETUNE_RATIO * self.base.learning_rate,
            "weight_decay": self.base.train.weight_decay,
        }
        return {name: value for name, value in values.items() if name not in self.fixed or name == "method"}

    def recipe(self, params: Params, method: str) -> Recipe:
        """The recipe of a trial at one of its fidelities."""
        candidate = self.candidates[params["backbone"]]
        changes: dict[str, Any] = {
            "model.backbone": candidate.backbone,
            "model.weights": candidate.weights,
            "train.method": method,
        }
        if "size" in params:
            changes["data.image_size"] = input_side(candidate, params["size"])
        if method != "head":
            changes |= _of_steps(params, self.base.learning_rate)
        return self.base.replaced(**changes)


def _of_steps(params: Params, learning_rate: float) -> dict[str, Any]:
    """Fields of methods that train by steps."""
    changes: dict[str, Any] = {}
    if "augment" in params:
        changes["augment.policy"] = params["augment"]
    if "weight_decay" in params:
        changes["train.weight_decay"] = params["weight_decay"]
    if "rate" in params:  # at most a tenth of the head's (promise 5)
        changes["train.finetune_lr"] = params["rate"]
        changes["train.lr"] = max(learning_rate, params["rate"] / HARD_FINETUNE_RATIO)
    return changes


def input_side(candidate: Candidate, share: float) -> int:
    """Pixels of the input, a multiple of 32, for a share of the backbone's own.

    >>> input_side(Candidate("timm/resnet18"), 0.75)
    160
    """
    usual = preparation(candidate.backbone, weights=candidate.weights)[0].size
    return usual if share == 1 else max(SIZE_STEP, round(usual * share / SIZE_STEP) * SIZE_STEP)


def key_of(params: Params) -> str:
    """Equal for trials that would do the same."""
    return ", ".join(f"{name} {params[name]}" for name in sorted(params))
