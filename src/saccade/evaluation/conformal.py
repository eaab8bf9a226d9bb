"""Sets of labels that hold the true one as often as was asked for, whatever the model (conformal prediction).

A class is in the set where its probability reaches a limit. The limit is chosen on images that neither
trained the model nor judge it. For new images of the same kind the true class is then in the set with the
wanted chance or more, where no two images belong together.
Source: M. Sadinle, J. Lei and L. Wasserman, Least Ambiguous Set-Valued Classifiers with Bounded Error Levels,
J. Am. Stat. Assoc. 114 (2019) 223-234.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saccade.deciding import Deciding
from saccade.evaluation.answers import Answers
from saccade.evaluation.metric_intervals import share_interval

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class LabelSets:
    """The limits for a wanted `coverage`, chosen on `images` of a `part`; one a class, or one for all."""

    coverage: float
    limits: tuple[float, ...]
    part: str
    images: int

    def of(self, probabilities: Floats) -> Bools:
        """(images, classes) which classes are in each image's set; none may be.

        >>> LabelSets(0.9, (0.3,), "validation", 100).of(np.array([[0.6, 0.35, 0.05]])).tolist()
        [[True, True, False]]
        """
        return Deciding(included=self.limits).in_set(probabilities)

    def as_json(self) -> dict[str, Any]:
        """What travels with a model."""
        return {
            "coverage": self.coverage,
            "limits": list(self.limits),
            "chosen_on": self.part,
            "images": self.images,
        }


def choose_sets(data: Answers, coverage: float, *, part: str, by_class: bool = False) -> LabelSets:
    """The limits that hold the wanted coverage: over all images, or for the images of each class.

    data: of the part that chooses. Where there are too few images for any limit to hold it, it is 0.

    >>> from saccade.evaluation.answers import answers
    >>> from saccade.testing.metrics import example_predictions
    >>> choose_sets(answers(example_predictions(8, 3, seed=0)), 0.9, part="validation").limits
    (0.0,)
    """
    true = np.take_along_axis(data.probabilities, data.truth[:, None], axis=1)[:, 0]
    if not by_class:
        return LabelSets(coverage, (_limit(true, coverage),), part, len(true))
    limits = tuple(_limit(true[data.truth == label], coverage) for label in range(len(data.classes)))
    return LabelSets(coverage, limits, part, len(true))


def _limit(true: Floats, coverage: float) -> float:
    """That which at least ceil((n + 1) x coverage) of these n probabilities of the true class reach.

    One more than the share of n says: a new image is one of n + 1 that are alike.
    """
    reaching = max(1, math.ceil(round((len(true) + 1) * coverage, 9)))
    return float(np.sort(true)[len(true) - reaching]) if reaching <= len(true) else 0.0


def judge_sets(data: Answers, sets: LabelSets) -> dict[str, Any]:
    """What metrics/*.json holds of them: how often the true class is in the set, and how large sets are.

    data: of the part that judges.
    """
    inside = sets.of(data.probabilities)
    covered = np.take_along_axis(inside, data.truth[:, None], axis=1)[:, 0]
    found = share_interval(covered, data.groups)
    assert found is not None, "there are images"
    sizes, supports = inside.sum(axis=1), np.bincount(data.truth, minlength=len(data.classes))
    held = np.bincount(data.truth, weights=covered, minlength=len(data.classes))
    return {
        "coverage": sets.coverage,
        "chosen_on": sets.part,
        "chosen_on_images": sets.images,
        "limits": list(sets.limits),
        "images": len(data.truth),
        "covered": found.value,
        "low": found.low,
        "high": found.high,
        "mean_size": float(sizes.mean()),
        "one": float((sizes == 1).mean()),
        "empty": float((sizes == 0).mean()),
        "per_class": [
            {"label": label, "images": int(n), "covered": float(share / n) if n else None}
            for label, n, share in zip(data.classes, supports, held, strict=True)
        ],
    }
