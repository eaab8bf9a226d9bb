"""Wrong labels are found, by each signal and by both; what belongs together vouches for nobody."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import log_softmax

from saccade.evaluation import label_errors
from saccade.evaluation.label_errors import label_signals, nearest_of_each_class, out_of_fold

CLASSES, EACH, WRONG = 3, 60, 9


def clusters(classes=CLASSES, seed=0):
    """Features in one cluster a class, their true labels, and labels of which some are wrong."""
    random = np.random.default_rng(seed)
    truth = np.repeat(np.arange(classes), EACH)
    features = random.normal(size=(classes, 16))[truth] * 1.5 + random.normal(size=(len(truth), 16))
    labels = truth.copy()
    wrong = random.choice(len(truth), WRONG, replace=False)
    labels[wrong] = (labels[wrong] + 1 + random.integers(0, classes - 1, WRONG)) % classes
    return features.astype(np.float32), truth, labels, set(wrong.tolist())


def first(values):
    return set(np.argsort(-values)[:WRONG].tolist())


@pytest.mark.parametrize("classes", [2, CLASSES])
def test_wrong_labels_come_first_and_the_right_ones_are_suggested(classes):
    features, truth, labels, wrong = clusters(classes)
    found = label_signals(features, labels, np.arange(len(labels)), classes)
    assert first(found.score) == wrong
    assert len(first(-found.self_confidence) & wrong) >= WRONG - 1
    assert len(first(found.distance_ratio) & wrong) >= WRONG - 3
    assert [found.others[row, 0] for row in wrong] == [truth[row] for row in wrong]
    assert found.judged.all()
    assert (found.score >= 0).all()
    assert (found.score <= 1).all()
    assert found.others.shape == (len(labels), classes - 1)
    np.testing.assert_allclose(found.probabilities.sum(axis=1), 1)
    np.testing.assert_allclose(
        np.exp(out_of_fold(features, labels, np.arange(len(labels)), classes)).sum(1), 1
    )


def test_a_twin_with_the_same_wrong_label_vouches_only_where_nobody_knows_of_it():
    features, _, labels, wrong = clusters()
    one = min(wrong)
    features, labels = np.vstack([features, features[[one]]]), np.append(labels, labels[one])
    groups = np.arange(len(labels))
    alone = label_signals(features, labels, groups, CLASSES)
    groups[-1] = groups[one]
    together = label_signals(features, labels, groups, CLASSES)
    assert alone.distance_ratio[one] < 1e-3
    assert together.distance_ratio[one] > 1
    assert together.self_confidence[one] < 0.2


def test_the_nearest_images_are_those_of_a_plain_loop(monkeypatch):
    monkeypatch.setattr(label_errors, "BLOCK_NUMBERS", 400)  # a few rows at once
    random = np.random.default_rng(1)
    features = random.normal(size=(40, 5)).astype(np.float32)
    labels, groups = random.choice([0, 1, 3], 40), random.integers(0, 25, 40)  # no image of class 2
    found = nearest_of_each_class(features, labels, groups, 4)
    centred = features - features.mean(axis=0)
    for i, label in np.ndindex(40, 4):
        cosines = [
            centred[i] @ centred[j] / np.linalg.norm(centred[i]) / np.linalg.norm(centred[j])
            for j in range(40)
            if labels[j] == label and groups[j] != groups[i]
        ]
        assert found[i, label] == pytest.approx(1 - max(cosines, default=-1), abs=1e-5)


def test_groups_are_held_out_whole_and_classes_spread():
    labels, groups = np.tile([0, 1], 50), np.repeat(np.arange(20), 5)
    folds = label_errors._folds(labels, groups)
    assert all(len(set(folds[groups == group])) == 1 for group in range(20))
    assert sorted(np.bincount(folds)) == [20] * 5


def test_a_class_that_one_group_alone_shows_is_not_judged():
    features, _, labels, _ = clusters()
    groups = np.arange(len(labels))
    groups[labels == 0] = 0
    judged = label_signals(features, labels, groups, CLASSES).judged
    assert not judged[labels == 0].any()
    assert judged[labels != 0].all()


def test_a_signal_that_tells_nothing_counts_for_nothing():
    random = np.random.default_rng(2)
    labels = random.integers(0, 3, 900)
    logs = log_softmax(random.normal(size=(900, 3)) + 2 * np.eye(3)[labels], axis=1)
    useless = random.uniform(0, 2, (900, 3))
    sure, far = label_errors._stacked(logs, useless, labels)
    assert 1.8 < sure < 2.2  # of two normal distributions two deviations apart
    assert far < 0.1
    nothing, near = label_errors._stacked(logs[::-1], 1.0 - np.eye(3)[labels], labels)
    assert nothing < 0.2
    assert near > 2
