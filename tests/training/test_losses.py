"""Losses against torch's and scikit-learn's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss
from torch.nn import functional

from saccade.training.losses import classification_loss, inverse_frequency, log_loss_and_accuracy
from saccade.transforms.mix import soft_targets

LOGITS = torch.randn(12, 4, generator=torch.Generator().manual_seed(3))
LABELS = torch.arange(12) % 4


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_hard_targets_give_torchs_cross_entropy(smoothing):
    found = classification_loss(LOGITS, soft_targets(LABELS, 4), class_weights=None, smoothing=smoothing)
    expected = functional.cross_entropy(LOGITS, LABELS, label_smoothing=smoothing, reduction="none")
    torch.testing.assert_close(found, expected)


def test_class_weights_multiply_each_images_loss():
    weights = torch.tensor([0.5, 1.0, 2.0, 3.0])
    targets = soft_targets(LABELS, 4)
    plain = classification_loss(LOGITS, targets, class_weights=None, smoothing=0.0)
    weighted = classification_loss(LOGITS, targets, class_weights=weights, smoothing=0.0)
    torch.testing.assert_close(weighted, plain * weights[LABELS])


def test_half_precision_logits_are_judged_in_float32():
    loss = classification_loss(LOGITS.bfloat16(), soft_targets(LABELS, 4), class_weights=None, smoothing=0.0)
    assert loss.dtype == torch.float32


def test_inverse_frequency_is_one_on_average_over_the_images():
    counts = (90, 9, 1)
    weights = inverse_frequency(counts)
    assert weights.tolist() == pytest.approx([100 / 270, 100 / 27, 100 / 3])
    assert sum(c * w for c, w in zip(counts, weights.tolist(), strict=True)) / 100 == pytest.approx(1)


def test_an_empty_class_weighs_nothing_and_spoils_nothing():
    assert inverse_frequency((4, 0, 4)).tolist() == [1.0, 0.0, 1.0]


def test_validation_figures_are_scikit_learns():
    logits, labels = LOGITS.numpy(), LABELS.numpy()
    loss, accuracy = log_loss_and_accuracy(logits, labels)
    probabilities = torch.softmax(LOGITS.double(), 1).numpy()
    assert loss == pytest.approx(log_loss(labels, probabilities))
    assert accuracy == (logits.argmax(1) == labels).mean()


def test_large_logits_do_not_overflow():
    loss, _ = log_loss_and_accuracy(np.array([[1e4, 0.0]], np.float32), np.array([1]))
    assert loss == pytest.approx(1e4)
