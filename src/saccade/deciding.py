"""What follows from probabilities: whether rather a person should be asked, and which labels are possible.

The limits were chosen on validation images (`evaluation/asking.py`, `evaluation/conformal.py`). They are kept
with the model: as metadata of `model.onnx`, and in `model.json` under `training`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saccade.errors import ModelError

ASKING_KEY = "saccade.asking"
LABEL_SETS_KEY = "saccade.label_sets"
NEVER = 2.0  # a threshold above every confidence (a float32 sigmoid reaches 1): nothing passes it
FAMILIAR = 1.0  # the unfamiliarity up to which an image is like those of training: the graph is scaled so


@dataclass(frozen=True, slots=True)
class Deciding:
    """`least` (classes,) is the confidence that an answer of each class needs; empty: any will do.

    `included` has the probability from which on a class is in the set of an image, one for all classes or one
    a class; empty: there are no sets.

    >>> Deciding(least=(0.8, 0.8)).abstains(np.array([0.7, 0.3]))
    True
    """

    least: tuple[float, ...] = ()
    included: tuple[float, ...] = ()

    @classmethod
    def of(cls, metadata: Mapping[str, Any], classes: Sequence[str]) -> Deciding:
        """As a model's metadata say; raises ModelError for limits that are none."""
        asking, sets = metadata.get(ASKING_KEY), metadata.get(LABEL_SETS_KEY)
        try:
            return cls(_least(asking or {}, classes), _included((sets or {}).get("limits", []), len(classes)))
        except (AttributeError, KeyError, TypeError, ValueError):
            found = str(asking)[:60], str(sets)[:60]
            raise ModelError(
                f"{ASKING_KEY} and {LABEL_SETS_KEY} are no probabilities, got {' and '.join(found)}",
                hint="export the model again",
            ) from None

    def abstains(self, probabilities: NDArray[np.float64]) -> bool:
        """Whether the most probable of these (classes,) is less sure than its class needs."""
        best = int(probabilities.argmax())
        return bool(self.least) and bool(probabilities[best] < self.least[best])

    def in_set(self, probabilities: NDArray[np.float64]) -> NDArray[np.bool_]:
        """(classes,) which of them the set of an image with these probabilities holds; none may be.

        >>> Deciding(included=(0.3,)).in_set(np.array([0.6, 0.35, 0.05])).tolist()
        [True, True, False]
        """
        return np.asarray(probabilities >= np.array(self.included or (NEVER,)))


NO_LIMITS = Deciding()


def is_unfamiliar(unfamiliarity: float) -> bool | None:
    """Whether an image is unlike those of training; None where there is no score (NaN).

    >>> is_unfamiliar(1.7), is_unfamiliar(0.8), is_unfamiliar(float("nan"))
    (True, False, None)
    """
    return None if np.isnan(unfamiliarity) else bool(unfamiliarity > FAMILIAR)


def _least(asking: Mapping[str, Any], classes: Sequence[str]) -> tuple[float, ...]:
    threshold = asking.get("threshold")
    if threshold is None:
        return ()
    own = asking.get("by_class", {})
    return tuple(_limit(own.get(label, threshold)) for label in classes)


def _included(limits: Sequence[Any], classes: int) -> tuple[float, ...]:
    if len(limits) not in (0, 1, classes):
        raise ValueError("one limit, or one a class")
    return tuple(map(_limit, limits))


def _limit(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= NEVER:
        raise ValueError("a limit lies between 0 and 2")
    return float(value)
