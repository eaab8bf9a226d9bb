"""Trials of a search without training: what they keep, what is searched, which test images they count."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import optuna
import pytest

from saccade.errors import TrainingError
from saccade.pipeline.evidence import watching_test
from saccade.recipe import Recipe
from saccade.records import Dataset, ImageRecord
from saccade.run_folder import RunFolder
from saccade.search import trial as trials
from saccade.search.ground import Ground, Limits
from saccade.search.result import recipe_text, say_summary
from saccade.search.space import Space
from saccade.search.study import PROBLEM, ask, open_study
from saccade.selection.at_hand import Candidate
from saccade.terminal import Terminal


class Bytes:
    def read(self, path: str) -> bytes:
        return path.encode()


def space_of(**given: Any) -> Space:
    recipe = Recipe().replaced(data__image_size=64, **given)
    return Space({"resnet18": Candidate("timm/resnet18")}, recipe)


@pytest.fixture
def ground(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ground:
    """A search of which no model's cost is measured."""
    monkeypatch.setattr(Ground, "cost", lambda *_: {"megabytes": 1.0})
    images = tuple(ImageRecord(name, "rose", part="test") for name in ("a", "b", "c"))
    data = Dataset(tmp_path, images, ("rose",), Bytes())
    home = RunFolder(tmp_path)
    return Ground(home, "photos", data, watching_test(data), space_of(), Limits(), Terminal(quiet=True))


@pytest.mark.parametrize(("failing", "state", "best"), [("head", "FAIL", None), ("tail", "PRUNED", "head")])
def test_a_trial_keeps_the_model_that_it_had_before_it_failed(
    failing: str, state: str, best: str | None, ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    def train_once(ground: Ground, params: Any, method: str, folder: Path) -> trials.Rung:
        if method == failing:
            raise TrainingError("the loss is not finite")
        folder.mkdir(parents=True)
        return trials.Rung(method, log_loss=0.5, accuracy=0.9, seconds=1.0, epochs=0)

    monkeypatch.setattr(trials, "train_once", train_once)
    home = ground.home.root
    study = open_study(home)
    asked = ask(study, home, ground.space, trials=1, seed=0)
    assert asked is not None
    assert asked.params["method"] == "tail"
    trials.try_out(study, asked, ground)
    (told,) = study.trials
    assert told.state.name == state
    assert "the loss is not finite" in told.user_attrs[PROBLEM]
    note = home / "best.json"
    assert (json.loads(note.read_text())["method"] if note.exists() else None) == best
    assert (home / "best").is_dir() == (best is not None)


@pytest.mark.parametrize(
    ("monitor", "told"), [("calibrated_loss", "calibrated log loss"), ("accuracy", "log loss")]
)
def test_a_search_says_which_loss_it_goes_by(
    monitor: str, told: str, ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    ground.space = space_of(train__monitor=monitor)
    said: list[str] = []
    monkeypatch.setattr(Terminal, "say", lambda _, *lines: said.extend(lines))
    rung = asdict(trials.Rung("head", log_loss=0.5, accuracy=0.9, seconds=1.0, epochs=0))
    row = {"trial": 0, "rungs": [rung], "params": {}}
    found = {"judged_by": ground.loss_in_words, "trials": [row], "counted": 1, "seconds": 1.0}
    say_summary({**found, "importances": {}}, ground.terminal)
    assert f"the best by validation {told}:" in said[0]
    assert f"trial 0   {told} 0.500" in said[1]
    text = recipe_text(Recipe(), {"trial": 0, **rung}, ground.loss_in_words)
    assert f"validation {told} 0.5000" in text


@pytest.mark.parametrize("given", [{"train__lr": 0.01}, {"train__finetune_lr": 1e-4}])
def test_a_rate_that_was_given_is_not_searched(given: dict[str, float]) -> None:
    space = space_of(**given)
    drawn = {"backbone": "resnet18", "method": "full", "augment": "none", "weight_decay": 0.01, "rate": 1e-3}
    params = space.suggest(optuna.trial.FixedTrial(drawn))
    assert "rate" not in params
    assert "rate" not in space.usual()
    trained, base = space.recipe(params, "full").train, space.base.train
    assert (trained.lr, trained.finetune_lr) == (base.lr, base.finetune_lr)


def test_each_test_image_is_counted_by_one_trial(ground: Ground) -> None:
    assert ground.newly_read() == 0
    for path in ("a", "b"):
        ground.dataset.storage.read(path)
    assert ground.newly_read() == 2
    for path in ("b", "c"):
        ground.dataset.storage.read(path)
    assert [ground.newly_read(), ground.newly_read()] == [1, 0]
