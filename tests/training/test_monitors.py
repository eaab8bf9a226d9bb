"""What `train.monitor` names: scikit-learn's figures, and the best epoch, patience and plateau go by them."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any, get_args

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics

from saccade.errors import RecipeError
from saccade.evaluation.calibration import softmax
from saccade.recipe import Recipe
from saccade.recipe.sections import TrainConfig
from saccade.records import HIGHER_IS_BETTER, EpochRow
from saccade.training.losses import label_losses
from saccade.training.monitors import FIGURES, watched
from saccade.training.schedules import Plateau
from saccade.training.state import FitState


def answers(seed: int, classes: int = 7) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes - 1, 60)  # one class never occurs
    logits = rng.normal(size=(60, classes)).astype(np.float32)
    logits[np.arange(60), labels] += 1.0
    return logits, labels


@pytest.mark.parametrize("seed", range(3))
def test_they_are_scikit_learns(seed: int) -> None:
    logits, labels = answers(seed)
    predicted = logits.argmax(axis=1)
    expected = {
        "accuracy": metrics.accuracy_score(labels, predicted),
        "macro_f1": metrics.f1_score(labels, predicted, average="macro"),
        "top5": metrics.top_k_accuracy_score(labels, logits, k=5, labels=range(7)),
    }
    for name, value in expected.items():
        assert FIGURES[name](logits, labels) == pytest.approx(value), name
    recalls = metrics.recall_score(labels, predicted, average=None, labels=np.unique(labels))
    assert FIGURES["balanced_accuracy"](logits, labels) == pytest.approx(recalls.mean())


def test_the_calibrated_loss_does_not_mind_how_sure_a_network_is() -> None:
    logits, labels = answers(0)
    plain = metrics.log_loss(labels, softmax(logits), labels=range(7))
    found = FIGURES["calibrated_loss"](logits, labels)
    assert found < plain
    # of 60 images the temperature is held to 1 a little, of 720 hardly
    assert FIGURES["calibrated_loss"](8 * logits, labels) == pytest.approx(found, rel=0.01)
    many = np.tile(logits, (12, 1)), np.tile(labels, 12)
    assert FIGURES["calibrated_loss"](8 * many[0], many[1]) == pytest.approx(found, rel=1e-3)
    worse = logits.copy()
    worse[:10] = worse[:10, ::-1]
    assert FIGURES["calibrated_loss"](worse, labels) > found
    several = (logits > 0.5).astype(np.float32)
    once = FIGURES["calibrated_loss"](logits, several)
    assert FIGURES["calibrated_loss"](5 * logits, several) == pytest.approx(once, rel=1e-3)


def two_classes(margins: Any) -> tuple[Any, Any]:
    return np.stack([margins, np.zeros_like(margins)], axis=1).astype(np.float32), np.zeros(len(margins), int)


@pytest.mark.parametrize("images", [1, 3, 10, 100, 720])
def test_the_calibrated_loss_falls_across_the_last_error(images: int) -> None:
    margins, scores = np.linspace(3.0, 9.0, images), []
    for margins[images // 2] in (-3.0, -0.5, -0.01, 0.01, 0.5, 1.0, 3.0):
        scores.append(FIGURES["calibrated_loss"](*two_classes(margins)))
    assert all(later < earlier for earlier, later in pairwise(scores)), scores


@pytest.mark.parametrize("images", [1, 3, 10])
def test_few_images_that_are_all_right_still_tell_networks_apart(images: int) -> None:
    scores = [FIGURES["calibrated_loss"](*two_classes(np.full(images, m))) for m in (0.5, 1.0, 3.0, 5.0, 9.0)]
    assert all(later < 0.99 * earlier for earlier, later in pairwise(scores)), scores


def test_the_temperature_of_many_labels_is_that_of_all_of_them() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(300, 50)).astype(np.float32)
    labels = (rng.random(logits.shape) < 1 / (1 + np.exp(-logits))).astype(np.float32)
    logits[:, 1::2] *= 8  # every second label is far too sure
    answers = torch.from_numpy(logits), torch.from_numpy(labels)
    losses = [float(label_losses(answers[0] / t, answers[1]).mean()) for t in np.geomspace(0.5, 16, 60)]
    assert FIGURES["calibrated_loss"](logits, labels) == pytest.approx(min(losses), rel=0.01)


def test_names_and_directions_are_known_to_all() -> None:
    names = set(get_args(TrainConfig.model_fields["monitor"].annotation))
    assert names == HIGHER_IS_BETTER.keys() == FIGURES.keys() | {"loss"}


def row(epoch: int, **figures: Any) -> EpochRow:
    monitor = figures.pop("monitor", "")
    return EpochRow("main", epoch, 0.1, 1.0, 0.5, figures.pop("loss", 1.0), 0.5, 1.0, monitor, **figures)


def after(scores: list[float], *, min_delta: float = 0.0) -> FitState:
    state = FitState()
    for epoch, value in enumerate(scores, start=1):
        entry = row(epoch, monitor="macro_f1", monitored=value, loss=float(epoch))
        state = state.after_epoch(entry, steps=1, min_delta=min_delta)
    return state


def test_the_best_epoch_is_that_of_the_highest_figure_though_the_loss_rises() -> None:
    state = after([0.4, 0.7, 0.6, 0.7])
    assert state.best is not None
    assert (state.best.epoch, state.epochs_without_better) == (2, 2)


def test_early_stopping_wants_at_least_min_delta_and_the_best_epoch_does_not() -> None:
    state = after([0.50, 0.52, 0.54, 0.56], min_delta=0.1)
    assert state.best is not None
    assert (state.best.epoch, state.epochs_without_better) == (4, 3)
    assert after([0.50, 0.52, 0.54, 0.65], min_delta=0.1).epochs_without_better == 0


@given(
    values=st.lists(st.floats(0.0, 1.0), min_size=1, max_size=30),
    patience=st.integers(0, 3),
)
def test_plateau_of_a_figure_that_rises_is_torchs(values: list[float], patience: int) -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    reference = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, mode="max", factor=0.5, patience=patience, eps=0
    )
    plateau = Plateau()
    for value in values:
        reference.step(value)
        plateau = plateau.after(
            row(1, monitor="accuracy", monitored=value).score, patience=patience, drop=0.5
        )
        assert plateau.factor == pytest.approx(optimizer.param_groups[0]["lr"])


def test_history_has_it_and_without_it_looks_as_before(fit_tiny: Any, recipe: Any, tmp_path: Any) -> None:
    results = {}
    for name in ("loss", "accuracy", "macro_f1"):
        chosen = recipe(train__monitor=name, train__lr=0.3, train__epochs=6)
        _, results[name] = fit_tiny(name, recipe=chosen, pretrained=False)
        lines = [json.loads(line) for line in (tmp_path / name / "history.jsonl").read_text().splitlines()]
        assert all(("monitored" in line) == (name != "loss") for line in lines)
    rows = results["accuracy"].history
    assert [entry.monitored for entry in rows] == [entry.validation_accuracy for entry in rows]
    assert [entry.train_loss for entry in rows] == [entry.train_loss for entry in results["loss"].history]
    highest = max(entry.validation_accuracy for entry in rows)
    first = next(entry.epoch for entry in rows if entry.validation_accuracy == highest)
    assert results["accuracy"].best.epoch == first


def test_the_same_recipe_with_loss_is_the_default(fit_tiny: Any, recipe: Any) -> None:
    hashes = {
        fit_tiny(str(n), recipe=recipe(**options), pretrained=False)[1].weights_sha256
        for n, options in enumerate([{}, {"train__monitor": "loss", "train__min_delta": 0.0}])
    }
    assert len(hashes) == 1


def test_top5_of_few_classes_is_refused(fit_tiny: Any, recipe: Any) -> None:
    with pytest.raises(RecipeError, match="always 1 with 3 classes"):
        fit_tiny(recipe=recipe(train__monitor="top5"), pretrained=False)


def test_an_unknown_figure_is_refused_with_the_nearest() -> None:
    with pytest.raises(RecipeError) as refused:
        Recipe.from_mapping({"train.monitor": "macrof1"})
    assert "macro_f1" in refused.value.hint


def test_the_loss_needs_nothing_more() -> None:
    assert watched("loss", *answers(0)) == {}
