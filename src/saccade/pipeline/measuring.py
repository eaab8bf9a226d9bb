"""Figures of the parts of a run: by the same groups, and with the threshold that validation images choose."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from saccade.deciding import ASKING_KEY, LABEL_SETS_KEY
from saccade.errors import RecipeError
from saccade.evaluation.answers import Answers, answers
from saccade.evaluation.asking import Recommended, recommend
from saccade.evaluation.conformal import LabelSets, choose_sets
from saccade.evaluation.metrics import measure
from saccade.pipeline.division import FOLDS
from saccade.pipeline.shares import Asked
from saccade.pipeline.together import together_in_data, together_in_run
from saccade.recipe import Recipe
from saccade.records import Audit, Metrics, Predictions
from saccade.run_folder import RunFolder

CHOOSING_PARTS = ("validation", FOLDS)  # whose images may choose a threshold


@dataclass(frozen=True, slots=True)
class Measuring:
    """What every part is measured with. `groups`: what belongs together, a name by path."""

    recipe: Recipe
    groups: Mapping[str, str]
    temperature: float | None = None
    recommended: Recommended | None = None
    label_sets: Mapping[str, LabelSets] = field(default_factory=dict)

    @property
    def chosen(self) -> dict[str, Any]:
        """What validation images chose, for `measure`."""
        return {"recommended": self.recommended, "label_sets": self.label_sets}

    def figures(self, predictions: Predictions) -> Metrics:
        return measure(
            predictions,
            top_k=self.recipe.evaluate.top_k,
            groups=self.groups,
            temperature=self.temperature,
            **self.chosen,
        )

    @property
    def as_metadata(self) -> dict[str, Any]:
        """What a model needs to decide alike, by full key; None where nothing was chosen."""
        sets = self.label_sets.get("all")
        return {
            ASKING_KEY: self.recommended and self.recommended.as_json(),
            LABEL_SETS_KEY: sets and sets.as_json(),
        }

    def of_new_data(self, audit: Audit) -> Measuring:
        """The same choices for other images."""
        return replace(self, groups=together_in_data(audit))


def measuring(
    run: RunFolder,
    recipe: Recipe,
    *,
    target: float = 0.0,
    asked: Asked | None = None,
) -> Measuring:
    """That of a run whose validation part is predicted.

    target: the precision wanted of answers; 0 is the recipe's. asked: class shares that every prediction of
    the run is made to answer for.
    """
    groups = together_in_run(run)
    temperature = None if asked and asked.ratio else _temperature(run)
    part = next((part for part in CHOOSING_PARTS if run.has(run.predictions(part))), "")
    if not part or recipe.multi_label:
        return Measuring(recipe, groups, temperature)
    answered = run.read_predictions(part)
    data = answers(asked.applied(answered) if asked else answered, groups)
    wanted = target or recipe.evaluate.target_precision
    recommended = recommend(data, wanted, part=part) if wanted else None
    return Measuring(recipe, groups, temperature, recommended, _sets(data, recipe.evaluate.coverage, part))


def wanted_again(run: RunFolder) -> float:
    """The precision that the run's figures were last made for; 0 where they name none."""
    part = next((part for part in ("validation", FOLDS, "test") if run.has(run.metrics(part))), "")
    extra = run.read_metrics(part).get("extra", {}) if part else {}
    found = (extra.get("answer_or_ask") or {}).get("recommended")
    return float(found["precision"]) if found else 0.0


def _sets(data: Answers, coverage: float, part: str) -> dict[str, LabelSets]:
    """Conformal sets over all images, and by the images of each class; none where no coverage is wanted."""
    names = {"all": False, "by_class": True} if coverage else {}
    return {
        name: choose_sets(data, coverage, part=part, by_class=by_class) for name, by_class in names.items()
    }


def _temperature(run: RunFolder) -> float | None:
    """What the logits are divided by, where that is all that is done to them (`bundle.py`)."""
    return run.read_model().get("temperature") if run.has(run.model_json) else None


def check_target(target: float, recipe: Recipe) -> None:
    """Raise RecipeError unless it can be a wanted precision of such a run; 0 takes the recipe's value."""
    if not 0 <= target < 1:
        raise RecipeError(
            f"--target-precision must be at least 0 and below 1, got {target:g}",
            hint="give the share of the answers that must be right, such as 0.99",
        )
    if target and recipe.multi_label:
        raise RecipeError(
            "--target-precision is for one label an image; here each label has a threshold of its own",
            hint="train with --evaluate.precision, which chooses them by the precision of each label",
        )
