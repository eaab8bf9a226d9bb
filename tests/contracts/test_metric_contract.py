"""The contract of a metric: every registered one keeps it, and it catches those that do not."""

import numpy as np
import pytest
from sklearn import metrics as sk

from saccade.evaluation.metrics import METRICS
from saccade.testing import check_metric

REFERENCES = {
    "accuracy": lambda p: sk.accuracy_score(p.labels, p.predicted),
    "balanced_accuracy": lambda p: sk.recall_score(
        p.labels, p.predicted, labels=sorted(set(p.labels)), average="macro", zero_division=0
    ),
    "macro_f1": lambda p: sk.f1_score(p.labels, p.predicted, average="macro", zero_division=0),
    "log_loss": lambda p: sk.log_loss(p.label_indices, p.probabilities, labels=range(len(p.classes))),
    "brier": lambda p: brier_by_hand(p),
    "micro_f1": lambda p: sk.f1_score(p.labels, p.predicted, average="micro", zero_division=0),
    "weighted_f1": lambda p: sk.f1_score(p.labels, p.predicted, average="weighted", zero_division=0),
    "cohen_kappa": lambda p: beyond_chance(sk.cohen_kappa_score, p),
    "matthews": lambda p: beyond_chance(sk.matthews_corrcoef, p),
    "macro_average_precision": lambda p: np.mean(
        [
            sk.average_precision_score(np.array(p.labels) == label, p.probabilities[:, i])
            for i, label in enumerate(p.classes)
            if label in p.labels
        ]
    ),
}


def beyond_chance(reference, predictions):
    """0 where one class is all there is; scikit-learn warns, and has no kappa."""
    alone = len({*predictions.labels, *predictions.predicted}) == 1
    return 0.0 if alone else reference(predictions.labels, predictions.predicted)


def brier_by_hand(predictions):
    total = 0.0
    for row, truth in zip(predictions.probabilities, predictions.label_indices, strict=True):
        total += sum((p - (i == truth)) ** 2 for i, p in enumerate(row))
    return total / len(predictions)


@pytest.mark.parametrize("name", sorted(METRICS))
def test_registered_metrics_keep_the_contract(name):
    metric = METRICS[name]
    check_metric(metric.of, low=metric.low, high=metric.high, reference=REFERENCES.get(name))


def test_every_metric_but_ece_has_a_reference_here():
    assert len(METRICS) == 11
    assert METRICS.keys() - REFERENCES.keys() == {"ece"}  # its naive loop is in test_calibration


@pytest.mark.parametrize(
    ("metric", "reference", "complaint"),
    [
        (lambda p: 1, None, "must return a float"),
        (lambda p: 1.5, None, "lies outside 0 to 1"),
        (lambda p: float(p.probabilities[0, 0]), None, "another order"),
        (lambda p: 0.25, lambda p: 0.5, "0.25 is not 0.5"),
    ],
)
def test_the_contract_catches_a_metric_that_breaks_it(metric, reference, complaint):
    with pytest.raises(AssertionError, match=complaint):
        check_metric(metric, low=0, high=1, reference=reference)
