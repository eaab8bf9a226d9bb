"""Losses against torch's, torchvision's, timm's and scikit-learn's, and soft targets against a plain loop."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss
from timm.loss import AsymmetricLossMultiLabel, BinaryCrossEntropy
from torch.nn import functional
from torchvision.ops import sigmoid_focal_loss

from saccade.plan import LossPlan
from saccade.training.losses import (
    Loss,
    class_weights,
    classification_loss,
    inverse_frequency,
    log_loss_and_accuracy,
    make_loss,
)
from saccade.transforms.mix import soft_targets

LOGITS = torch.randn(12, 4, generator=torch.Generator().manual_seed(3))
LABELS = torch.arange(12) % 4


SEVERAL = (torch.rand(12, 4, generator=torch.Generator().manual_seed(5)) > 0.6).float()
SOFT = torch.rand(12, 4, generator=torch.Generator().manual_seed(6)).softmax(1)
NAMES = ("cross_entropy", "bce", "focal", "asymmetric")


def by_hand(loss: Loss, logits: torch.Tensor, targets: torch.Tensor) -> list[float]:
    """The papers' formulas, number by number in Python."""
    weights = [1.0] * logits.shape[1] if loss.class_weights is None else loss.class_weights.tolist()
    totals = []
    for row, wanted in zip(logits.double().tolist(), targets.double().tolist(), strict=True):
        total = 0.0
        for value, share, weight in zip(row, wanted, weights, strict=True):
            share = share * (1 - loss.smoothing) + loss.smoothing / len(row)
            if loss.name == "cross_entropy":
                total -= weight * share * (value - math.log(sum(map(math.exp, row))))
                continue
            p = 1 / (1 + math.exp(-value))
            shifted = max(p - 0.05, 0.0) if loss.name == "asymmetric" else p
            present = {"bce": 0.0, "focal": loss.gamma, "asymmetric": 0.0}[loss.name]
            absent = {"bce": 0.0, "focal": loss.gamma, "asymmetric": loss.gamma}[loss.name]
            total -= weight * share * (1 - p) ** present * math.log(p)
            total -= (1 - share) * shifted**absent * math.log(1 - shifted)
        totals.append(total)
    return totals


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weights", [None, (0.5, 1.0, 2.0, 3.0)])
@pytest.mark.parametrize("targets", [SOFT, soft_targets(LABELS, 4)], ids=["soft", "hard"])
@pytest.mark.parametrize("name", NAMES)
def test_every_loss_is_its_formula(name, targets, weights, smoothing):
    loss = Loss(name, 2.0, smoothing, None if weights is None else torch.tensor(weights))
    assert loss(LOGITS, targets).tolist() == pytest.approx(by_hand(loss, LOGITS, targets), rel=2e-5)


@pytest.mark.parametrize("targets", [SEVERAL, soft_targets(LABELS, 4)], ids=["several", "one"])
def test_bce_is_torchs_and_timms(targets):
    weights = torch.tensor([0.5, 1.0, 2.0, 3.0])
    found = Loss("bce", class_weights=weights)(LOGITS, targets)
    expected = functional.binary_cross_entropy_with_logits(
        LOGITS, targets, pos_weight=weights, reduction="none"
    )
    torch.testing.assert_close(found, expected.sum(1))
    smoothed = Loss("bce", smoothing=0.1)(LOGITS, soft_targets(LABELS, 4))
    timms = BinaryCrossEntropy(smoothing=0.1, reduction="none")
    torch.testing.assert_close(smoothed, timms(LOGITS, LABELS).sum(1))


@pytest.mark.parametrize("gamma", [0.5, 2.0, 3.0])
def test_focal_is_torchvisions(gamma):
    found = Loss("focal", gamma)(LOGITS, SEVERAL)
    expected = sigmoid_focal_loss(LOGITS, SEVERAL, alpha=-1, gamma=gamma, reduction="none").sum(1)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("gamma", [1.0, 4.0])
def test_asymmetric_is_timms(gamma):
    timms = AsymmetricLossMultiLabel(gamma_neg=gamma, gamma_pos=0, clip=0.05)
    found = Loss("asymmetric", gamma)(LOGITS, SEVERAL)
    assert float(found.mean()) == pytest.approx(float(timms(LOGITS, SEVERAL)), rel=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_gradients_stay_finite_however_sure_the_network_is(name):
    logits = torch.tensor([[200.0, -200.0], [-200.0, 200.0]], requires_grad=True)
    Loss(name, 0.5)(logits, torch.eye(2)).sum().backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_adjusted_logits_learn_the_answer_for_equally_common_classes():
    """Menon et al.: where the class shares are all there is to learn, the logits end up equal."""
    counts = {"common": 90, "rare": 10}
    loss = make_loss(LossPlan(logit_adjustment=1.0), counts)
    logits = torch.zeros(1, 2, requires_grad=True)
    optimizer = torch.optim.LBFGS([logits], max_iter=50)

    def step():
        optimizer.zero_grad()
        total = (loss(logits.expand(2, 2), torch.eye(2)) * torch.tensor([0.9, 0.1])).sum()
        total.backward()
        return total

    optimizer.step(step)
    assert float((logits[0, 0] - logits[0, 1]).detach()) == pytest.approx(0, abs=1e-3)
    adjusted = (logits + torch.tensor([0.9, 0.1]).log()).expand(2, 2)
    plain = make_loss(LossPlan(), counts)(adjusted, torch.eye(2))
    torch.testing.assert_close(loss(logits.expand(2, 2), torch.eye(2)), plain)


def test_class_weights_go_by_name():
    counts = {"cat": 4, "dog": 2, "none": 0}
    assert class_weights("none", counts) is None
    assert class_weights("auto", counts).tolist() == inverse_frequency((4, 2, 0)).tolist()
    assert class_weights({"dog": 3.0}, counts).tolist() == [1.0, 3.0, 1.0]


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
