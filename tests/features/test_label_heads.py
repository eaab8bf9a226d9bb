"""Heads of images with several labels: a logistic regression a label, as scikit-learn would fit it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from saccade.features.heads import (
    LabelledFeatures,
    choose_strength,
    fit_head,
    head_logits,
    stratified_group_folds,
)
from saccade.models.network import make_head
from saccade.plan import LossPlan
from saccade.training.losses import Loss, log_loss_and_accuracy, make_loss

FEATURES = 12


def features(images: int = 240, classes: int = 3, *, seed: int = 0) -> LabelledFeatures:
    random = torch.Generator().manual_seed(seed)
    values = torch.randn(images, FEATURES, generator=random)
    slopes = torch.randn(FEATURES, classes, generator=random)
    labels = ((values @ slopes + torch.randn(images, classes, generator=random)) > 1).float()
    return LabelledFeatures(values[None], labels, tuple(map(str, range(images))), classes, Loss("bce"))


@pytest.mark.parametrize("strength", [0.01, 0.3])
def test_each_label_is_the_logistic_regression_of_scikit_learn(strength: float) -> None:
    data = features()
    head = make_head("linear", FEATURES, 3, dropout=0.2)
    fit_head(head, data, strength=strength, seed=0)
    found = head_logits(head, data.values[0]).numpy()
    values = data.values[0].double()
    flat = (values - values.mean(0)) / values.std(0, correction=0)  # nearly what the head standardises by
    for label in range(3):
        reference = LogisticRegression(C=1 / (strength * len(data)), tol=1e-10, max_iter=5_000)
        reference.fit(flat.numpy(), data.labels[:, label].numpy())
        expected = reference.decision_function(flat.numpy())
        assert np.abs(found[:, label] - expected).max() < 0.02 * np.abs(expected).max()


def test_a_strength_is_chosen_by_held_out_images() -> None:
    choice = choose_strength(features(), seed=0)
    assert choice.folds == 5
    assert 0.5 < choice.accuracy < 1  # exact match of three labels
    assert np.isfinite(choice.losses).all()


def test_folds_keep_groups_whole_and_spread_rare_labels() -> None:
    rng = np.random.default_rng(0)
    labels = (rng.random((200, 5)) < np.array([0.5, 0.3, 0.2, 0.1, 0.05])).astype(np.float32)
    groups = [str(number // 2) for number in range(200)]
    fold = stratified_group_folds(labels, groups, folds=5, seed=0)
    assert (fold[::2] == fold[1::2]).all()
    for column in labels.T:
        counts = np.bincount(fold[column > 0], minlength=5)
        assert counts.max() - counts.min() <= max(3, 0.25 * counts.sum() / 5 + 2)
    assert (fold == stratified_group_folds(labels, groups, folds=5, seed=0)).all()
    assert (fold != stratified_group_folds(labels, groups, folds=5, seed=1)).any()


def test_losses_and_weights_are_those_of_torch() -> None:
    logits, targets = torch.randn(6, 3), (torch.rand(6, 3) < 0.5).float()
    counts = {"a": 3, "b": 1, "c": 0}
    loss = make_loss(LossPlan("bce", class_weights="auto"), counts, several=6)
    assert loss.class_weights is not None
    assert loss.class_weights.tolist() == [1.0, 5.0, 1.0]
    expected = torch.nn.BCEWithLogitsLoss(pos_weight=loss.class_weights, reduction="none")(logits, targets)
    assert torch.allclose(loss(logits, targets), expected.sum(1), atol=1e-6)
    figure, right = log_loss_and_accuracy(logits.numpy(), targets.numpy())
    assert figure == pytest.approx(float(torch.nn.BCEWithLogitsLoss()(logits, targets)), rel=1e-6)
    assert right == pytest.approx(float(((logits > 0) == (targets > 0)).all(1).float().mean()))
