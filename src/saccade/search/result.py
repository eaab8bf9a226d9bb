"""What came out of a search, as plain values, words and a recipe file."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from saccade.errors import TrainingError
from saccade.recipe import Recipe
from saccade.search.ground import Ground
from saccade.search.study import COST, PARAMS, PROBLEM, READ, RETRY_OF, RUNGS, SAME_AS, SECONDS, counted
from saccade.terminal import Terminal

if TYPE_CHECKING:
    from optuna.study import Study
    from optuna.trial import FrozenTrial

SHOWN = 10


def summary(study: Study, ground: Ground) -> dict[str, Any]:
    """Trials, the best of them, importances, and how many test images any process read while they ran.

    Raises TrainingError where no trial has given a model.
    """
    trials = study.get_trials(deepcopy=False)
    rows = [_row(trial) for trial in trials]
    note = ground.home.root / "best.json"
    if not note.is_file():
        raise TrainingError(
            f"none of the {len(rows)} trials has given a model ({_problems(rows)})",
            hint="allow more time (--time-limit) or cost, or name other backbones (--backbones)",
        )
    best = json.loads(note.read_text())
    params = next(row["params"] for row in rows if row["trial"] == best["trial"])
    return {
        "trials": rows,
        "judged_by": ground.loss_in_words,
        "counted": len(counted(study)),
        "best": {**best, "params": params},
        "importances": importances(study),
        "test_images_read": sum(row["test_images_read"] for row in rows),
        "seconds": round(sum(row["seconds"] for row in rows), 1),
        "backbones": list(ground.space.candidates),
        "fixed": sorted(ground.space.fixed),
    }


def _row(trial: FrozenTrial) -> dict[str, Any]:
    told = trial.user_attrs
    return {
        "trial": trial.number,
        "state": trial.state.name.lower(),
        "params": told.get(PARAMS, dict(trial.params)),
        "rungs": told.get(RUNGS, []),
        "log_loss": trial.value if trial.state.name == "COMPLETE" else None,
        "seconds": told.get(SECONDS, 0.0),
        "cost": told.get(COST, {}),
        "constraints": dict(trial.constraints),
        "problem": told.get(PROBLEM, ""),
        "same_as": told.get(SAME_AS),
        "retry_of": told.get(RETRY_OF),
        "test_images_read": told.get(READ, 0),
    }


def _problems(rows: list[dict[str, Any]]) -> str:
    found = dict.fromkeys(row["problem"] for row in rows if row["problem"])
    return "; ".join(list(found)[:3]) or "there was no time for one"


def importances(study: Study) -> dict[str, float]:
    """Share of each parameter in the differences of the loss, by PED-ANOVA; empty for too few trials.

    Source: S. Watanabe, A. Bansal and F. Hutter, PED-ANOVA, IJCAI 2023.
    """
    import optuna

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            found = optuna.importance.get_param_importances(study)
        except (ValueError, RuntimeError, ZeroDivisionError):
            return {}
    return {name: round(float(share), 4) for name, share in found.items() if share == share}


def best_recipe(ground: Ground, best: Mapping[str, Any], *, limited: bool) -> Recipe:
    """The recipe of the best model; under a time limit with the epochs that fitted into it."""
    recipe = ground.space.recipe(best["params"], best["method"])
    if limited and best["epochs"]:
        recipe = recipe.replaced(train__epochs=best["epochs"])
    return recipe.with_batch_size(len(ground.dataset.used("train")))


def recipe_text(recipe: Recipe, best: Mapping[str, Any], loss: str) -> str:
    """The recipe as a file; its first line has the figures of the best trial. `loss`: what they call it."""
    head = (
        f"# Trial {best['trial']} of a search: validation {loss} {best['log_loss']:.4f}, accuracy "
        f"{best['accuracy']:.1%}.\n# saccade train DATA --recipe best.toml\n"
    )
    return head + recipe.to_toml()


def say_summary(found: Mapping[str, Any], terminal: Terminal) -> None:
    """The best trials as a table, and what mattered."""
    ordered = sorted((row for row in found["trials"] if row["rungs"]), key=_loss)
    terminal.say(
        f"Search    {found['counted']} trials, {found['seconds']:.0f} s; the best by validation "
        f"{found['judged_by']}:"
    )
    for row in ordered[:SHOWN]:
        rung = min(row["rungs"], key=lambda rung: rung["log_loss"])
        what = ", ".join(_told(name, value) for name, value in row["params"].items() if name != "method")
        terminal.say(
            f"          trial {row['trial']:<3} {found['judged_by']} {rung['log_loss']:.3f}, accuracy "
            f"{rung['accuracy']:.1%}: {rung['method']}, {what}"
        )
    shares = ", ".join(f"{name} {share:.0%}" for name, share in found["importances"].items())
    if shares:
        terminal.say(f"          importance (PED-ANOVA): {shares}")


def _loss(row: Mapping[str, Any]) -> float:
    return min(float(rung["log_loss"]) for rung in row["rungs"])


def _told(name: str, value: Any) -> str:
    return f"{name} {value:.2g}" if isinstance(value, float) else f"{name} {value}"
