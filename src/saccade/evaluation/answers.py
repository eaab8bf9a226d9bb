"""Predictions with known labels as arrays, checked and in the order of the paths: what every figure needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from saccade.errors import DataError
from saccade.evaluation.class_counts import ClassCounts
from saccade.evaluation.groups import Groups
from saccade.label_sets import split_labels
from saccade.records import Predictions


@dataclass(frozen=True, slots=True)
class Answers:
    """Predictions as arrays, in the order of the paths: what every figure is computed from."""

    truth: NDArray[np.int64]  # (images,)
    predicted: NDArray[np.int64]  # (images,)
    probabilities: NDArray[np.float64]  # (images, classes)
    classes: tuple[str, ...]
    groups: Groups

    @property
    def correct(self) -> NDArray[np.bool_]:
        return np.asarray(self.truth == self.predicted)

    @property
    def confidence(self) -> NDArray[np.float64]:
        return np.asarray(self.probabilities.max(axis=1))

    @property
    def confusion(self) -> NDArray[np.int64]:
        """(classes, classes) images by true (row) and predicted class (column)."""
        size = len(self.classes)
        cells = np.bincount(self.truth * size + self.predicted, minlength=size * size)
        return np.asarray(cells.reshape(size, size))

    @property
    def counts(self) -> ClassCounts:
        return ClassCounts.of(self.confusion)

    @property
    def rank(self) -> NDArray[np.int64]:
        """(images,) how many classes stand before the true one, in probability; of equals the earlier."""
        true = np.take_along_axis(self.probabilities, self.truth[:, None], axis=1)
        earlier = np.arange(len(self.classes))[None, :] < self.truth[:, None]
        ahead = (self.probabilities > true) | ((self.probabilities == true) & earlier)
        return np.asarray(ahead.sum(axis=1))

    @property
    def brier(self) -> NDArray[np.float64]:
        """(images,) squared distance of the probabilities from certainty of the truth."""
        aim = np.eye(len(self.classes))[self.truth]
        return np.asarray(((self.probabilities - aim) ** 2).sum(axis=1))


def answers(predictions: Predictions, groups: Mapping[str, str] | None = None) -> Answers:
    """Check predictions and sort them by path; raises DataError for unknown labels and bad probabilities.

    groups: by path, the name of what each image belongs together with; None where each stands alone.

    >>> probabilities = np.array([[0.9, 0.1], [0.8, 0.2]])
    >>> answers(Predictions(("b", "a"), ("cat", "dog"), ("cat", "dog"), probabilities)).correct.tolist()
    [False, True]
    """
    check(predictions)
    order = sorted(range(len(predictions)), key=predictions.paths.__getitem__)
    probabilities = predictions.probabilities[order]
    paths = [predictions.paths[i] for i in order]
    together = Groups.named([groups.get(path, path) for path in paths]) if groups else None
    return Answers(
        predictions.label_indices[order],
        probabilities.argmax(axis=1),
        probabilities,
        predictions.classes,
        together or Groups.alone(len(paths)),
    )


def check(predictions: Predictions) -> None:
    """Raise DataError unless there are images, with known labels and probabilities from 0 to 1."""
    if len(predictions) == 0:
        raise DataError(
            "there is no image to measure on",
            hint="give a part that has images",
        )
    known, labels = set(predictions.classes), predictions.labels
    if predictions.named is not None:
        labels = tuple(name for text in labels for name in split_labels(text))
    strange = sorted({label for label in labels if label not in known})
    if strange:
        names = ", ".join(repr(label) if label else "no label" for label in strange[:5])
        raise DataError(
            f"the model does not know the label of {sum(x not in known for x in labels)} images ({names})",
            hint=f"measure only images of its classes: {', '.join(predictions.classes[:10])}",
        )
    values = predictions.probabilities
    if not bool(np.isfinite(values).all() and (values >= 0).all() and (values <= 1 + 1e-6).all()):
        bad = predictions.paths[
            int((~(np.isfinite(values) & (values >= 0) & (values <= 1 + 1e-6))).any(axis=1).argmax())
        ]
        raise DataError(
            f"probabilities must lie between 0 and 1, those of {bad} do not",
            hint="predict it again",
        )
