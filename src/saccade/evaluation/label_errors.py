"""Which labels look wrong: a model that has not seen the image doubts them, or the images most like it do.

Two signals, each from features (images, F) of a network that has not learnt these labels. Images of one
group never vouch for each other. Source of the first: C. Northcutt, L. Jiang and I. Chuang, Confident
learning, JAIR 70 (2021); of the second: F. Gröger et al., Intrinsic self-supervision for data quality audits
(SelfClean), NeurIPS 2024.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

FOLDS = 5
STRENGTH = 0.1  # L2 penalty on standardised features, as a share of the mean loss
FIT_STEPS = 30  # further ones change no ranking for the better, and cost time
SMALLEST_SHARE = 0.1  # of the median deviation: what hardly varies is not scaled up to the others
LEAST_LOG = -50.0  # of a probability
FARTHEST = 2.0  # cosine distance to a class of which there is no image
BLOCK_NUMBERS = 2**24  # cosines in memory at once


@dataclass(frozen=True, slots=True)
class LabelSignals:
    """Both signals; row i is image i.

    `judged` bool (images,): whether other groups show the image's class, so that it can be judged at all.
    `self_confidence` (images,): the out-of-fold probability of the given label. `distance_ratio` (images,):
    cosine distance to the nearest image of the own class as a multiple of that to the nearest of another
    class: above 1, that one is nearer. `probabilities` (images, classes): what both say together. `weights`:
    how much the logarithm of the first's probability, and the distance, count in them.
    """

    judged: NDArray[np.bool_]
    labels: Integers
    self_confidence: Floats
    distance_ratio: Floats
    probabilities: Floats
    weights: tuple[float, float]

    @property
    def score(self) -> Floats:
        """(images,) the probability that the label is another one: 0 to 1, higher is more suspicious."""
        return np.asarray(1 - _own(self.probabilities, self.labels))

    @property
    def others(self) -> Integers:
        """(images, classes - 1) the other classes, the most probable first."""
        rest = self.probabilities.copy()
        rest[np.arange(len(rest)), self.labels] = -1
        return np.argsort(-rest, axis=1, kind="stable")[:, :-1]


def label_signals(
    features: NDArray[np.float32], labels: Integers, groups: Integers, classes: int
) -> LabelSignals:
    """Both signals, and what they say together.

    features: (images, F). labels: (images,) class indices. groups: (images,) equal for images of which none
    may vouch for another. classes: how many there are, at least 2.

    Together they are softmax(a log p - b d) of the first's probabilities p and the distances d to the nearest
    image of each class. The two weights are those that make the given labels most likely (stacking: D.
    Wolpert, Neural Networks 5, 1992), so that a signal that tells nothing here counts for nothing.
    """
    from scipy.special import log_softmax

    logs = out_of_fold(features, labels, groups, classes)
    distances = nearest_of_each_class(features, labels, groups, classes)
    judged = np.isfinite(_own(logs, labels))
    logs = np.maximum(logs, LEAST_LOG)
    weights = _stacked(logs[judged], distances[judged], labels[judged])
    return LabelSignals(
        judged,
        labels,
        np.exp(_own(logs, labels)),
        _ratio(distances, labels),
        np.exp(log_softmax(weights[0] * logs - weights[1] * distances, axis=1)),
        weights,
    )


# -- out of fold -----------------------------------------------------------------------------------------


def out_of_fold(features: NDArray[np.float32], labels: Integers, groups: Integers, classes: int) -> Floats:
    """(images, classes) log probabilities by logistic regressions that have not seen the image or its group.

    A class of which no image was left to learn from has minus infinity. Shapes as for `label_signals`.
    """
    from scipy.special import log_softmax
    from sklearn.linear_model import LogisticRegression

    values = _standardised(features)
    found = np.full((len(labels), classes), -np.inf)
    fold_of = _folds(labels, groups)
    for fold in range(int(fold_of.max()) + 1):
        out = fold_of == fold
        known = np.unique(labels[~out])
        if len(known) > 1 and out.any():
            model = LogisticRegression(C=1 / (STRENGTH * (~out).sum()), max_iter=FIT_STEPS)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # short of the optimum is near enough
                model.fit(values[~out], labels[~out])
            logits = np.asarray(model.decision_function(values[out]), np.float64)
            logits = logits if logits.ndim == 2 else np.column_stack([np.zeros(len(logits)), logits])
            found[np.ix_(out, known)] = log_softmax(logits, axis=1)
    return found


def _folds(labels: Integers, groups: Integers) -> Integers:
    """(images,) fold of each: groups whole, classes spread evenly."""
    from sklearn.model_selection import StratifiedGroupKFold

    fold_of = np.zeros(len(labels), np.int64)
    folds = min(FOLDS, int(np.bincount(labels).max()), len(np.unique(groups)))
    if folds < 2:
        return fold_of
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a class with fewer groups than folds is in fewer of them
        divided = StratifiedGroupKFold(folds, shuffle=True, random_state=0).split(labels, labels, groups)
        for fold, (_, held_out) in enumerate(divided):
            fold_of[held_out] = fold
    return fold_of


def _standardised(features: NDArray[np.float32]) -> NDArray[np.float32]:
    deviation = features.std(axis=0, dtype=np.float64)
    deviation = np.maximum(deviation, SMALLEST_SHARE * np.median(deviation))
    deviation[deviation == 0] = 1
    return np.asarray((features - features.mean(axis=0, dtype=np.float64)) / deviation, np.float32)


# -- nearest images --------------------------------------------------------------------------------------


def nearest_of_each_class(
    features: NDArray[np.float32], labels: Integers, groups: Integers, classes: int
) -> Floats:
    """(images, classes) cosine distance, 0 to 2, to the nearest image of each class and of another group.

    Features count from their mean. Shapes as for `label_signals`.
    """
    centred = features - features.mean(axis=0)
    unit = centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-12)
    order = np.argsort(labels, kind="stable")
    bank, bank_groups = unit[order], groups[order]
    present, starts = np.unique(labels[order], return_index=True)
    found = np.full((len(labels), classes), FARTHEST)
    step = max(1, BLOCK_NUMBERS // len(labels))
    for begin in range(0, len(labels), step):
        rows = slice(begin, begin + step)
        cosines = unit[rows] @ bank.T
        cosines[groups[rows, None] == bank_groups] = -1
        found[rows, present] = 1 - np.maximum.reduceat(cosines, starts, axis=1)
    return np.asarray(np.clip(found, 0, FARTHEST))


def _ratio(distances: Floats, labels: Integers) -> Floats:
    others = distances.copy()
    others[np.arange(len(labels)), labels] = np.inf
    smallest = 1e-6  # of pictures that are the same in the network's eyes
    return np.asarray((_own(distances, labels) + smallest) / (others.min(axis=1) + smallest))


# -- together --------------------------------------------------------------------------------------------


def _stacked(logs: Floats, distances: Floats, labels: Integers) -> tuple[float, float]:
    """The two weights, each at least 0, under which the labels are most likely."""
    from scipy.optimize import minimize
    from scipy.special import log_softmax

    if not len(labels):
        return 1.0, 0.0
    inputs = np.stack([logs, -distances])  # (2, images, classes)

    def objective(weights: Floats) -> tuple[float, Floats]:
        logits = log_softmax(np.tensordot(weights, inputs, axes=1), axis=1)
        expected = (np.exp(logits) * inputs).sum(axis=2)  # (2, images)
        own = inputs[:, np.arange(len(labels)), labels]
        return float(-_own(logits, labels).mean()), np.asarray((expected - own).mean(axis=1))

    found = minimize(objective, np.array([1.0, 1.0]), jac=True, method="L-BFGS-B", bounds=[(0, None)] * 2)
    return float(found.x[0]), float(found.x[1])


def _own(values: Floats, labels: Integers) -> Floats:
    """(images,) the column of each image's label."""
    return np.asarray(np.take_along_axis(values, labels[:, None], axis=1)[:, 0])
