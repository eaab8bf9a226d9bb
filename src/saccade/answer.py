"""How logits become the probabilities that a user sees: temperature, offset, softmax or sigmoid."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from saccade.errors import ModelError

Activation = Literal["softmax", "sigmoid"]


@dataclass(frozen=True, slots=True)
class Answer:
    """`activation(logits / temperature + offset)`, in float64.

    `temperatures` has one value for all classes, or one a class; `offsets` one a class, or none. Softmax is
    for images of one class each, sigmoid for images that may show several or none. Raises ModelError for
    values that no probability could come from.

    >>> Answer("softmax", (2.0,), (0.0, 1.0)).probabilities([[2.0, 0.0]]).round(2).tolist()
    [[0.5, 0.5]]
    """

    activation: Activation = "softmax"
    temperatures: tuple[float, ...] = (1.0,)
    offsets: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if problem := self._problem():
            raise ModelError(problem, hint="train the model again, or copy its folder again")

    def _problem(self) -> str:
        if self.activation not in get_args(Activation):
            return f"the activation must be softmax or sigmoid, got {self.activation!r}"
        if bad := [value for value in self.temperatures if not 0 < value < math.inf]:
            return f"the temperature must be above 0, got {bad[0]}"
        if bad := [value for value in self.offsets if not math.isfinite(value)]:
            return f"the offset of a class must be a number, got {bad[0]}"
        return "" if self.temperatures else "there must be a temperature"

    @property
    def is_plain(self) -> bool:
        """One temperature before a softmax, nothing else."""
        return self.activation == "softmax" and len(self.temperatures) == 1 and not self.offsets

    def check_classes(self, classes: int) -> None:
        """Raise ModelError unless temperatures and offsets are as many as the classes need."""
        if len(self.temperatures) not in (1, classes) or len(self.offsets) not in (0, classes):
            raise ModelError(
                f"{len(self.temperatures)} temperatures and {len(self.offsets)} offsets do not fit {classes} "
                "classes",
                hint="train the model again, or copy its folder again",
            )

    def probabilities(self, logits: ArrayLike) -> NDArray[np.float64]:
        """(images, classes) from the network's outputs (images, classes)."""
        scaled = self.scaled(logits)
        return softmax(scaled) if self.activation == "softmax" else sigmoid(scaled)

    def scaled(self, logits: ArrayLike) -> NDArray[np.float64]:
        """(images, classes) what the activation is applied to."""
        values: NDArray[np.float64] = np.asarray(logits, dtype=np.float64) / np.asarray(self.temperatures)
        return values + np.asarray(self.offsets) if self.offsets else values

    def as_json(self) -> dict[str, Any]:
        return {
            "activation": self.activation,
            "temperatures": list(self.temperatures),
            "offsets": list(self.offsets),
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Answer:
        """The inverse of `as_json`; raises ModelError for anything else."""
        try:
            return cls(
                values["activation"],
                tuple(float(value) for value in values["temperatures"]),
                tuple(float(value) for value in values["offsets"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ModelError(
                f"the stored answer cannot be read ({type(error).__name__}: {error})",
                hint="train the model again, or copy its folder again",
            ) from None


def softmax(scaled: NDArray[np.float64]) -> NDArray[np.float64]:
    """(images, classes) shares of each row that sum to 1; no overflow."""
    exponentials = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    return np.asarray(exponentials / exponentials.sum(axis=1, keepdims=True))


def sigmoid(scaled: NDArray[np.float64]) -> NDArray[np.float64]:
    """(images, classes) each value by itself between 0 and 1; no overflow."""
    small = np.exp(-np.abs(scaled))
    return np.asarray(np.where(scaled >= 0, 1 / (1 + small), small / (1 + small)))
