"""How common the classes are: what a model's probabilities assume, and what others make of them.

A model answers for classes that are as common as among its training images, unless training or a logit
adjustment changed that. Where other shares hold at deployment, each probability is multiplied by the ratio of
the shares, and each row divided by its sum (Bayes; Saerens et al., Adjusting the outputs of a classifier to
new a priori probabilities, Neural Computation 2002).
"""

from __future__ import annotations

import csv
import difflib
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from saccade.errors import DataError, ModelError, RecipeError
from saccade.files import parse_json, read_text

UNIFORM, TRAINING = "uniform", "training"
HOW = "give uniform, training, NAME=SHARE,... or a .csv or .json file with a share for each class"

Given = str | Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Priors:
    """Shares of the classes, in class order, each summing to 1: of the training images, and as assumed.

    `assumed` are those for which the model's probabilities hold. `strength` is that of the logit adjustment
    after training.
    """

    training: tuple[float, ...]
    assumed: tuple[float, ...]
    strength: float = 0.0

    @classmethod
    def of_counts(cls, class_counts: Sequence[int]) -> Priors:
        """Those of a model that was trained on so many images of each class, without more ado."""
        shares = _normalised(class_counts)
        return cls(shares, shares)

    def as_json(self) -> dict[str, Any]:
        return {
            "training": list(self.training),
            "assumed": list(self.assumed),
            "logit_adjustment": self.strength,
        }

    @classmethod
    def from_json(cls, values: Any, classes: int) -> Priors:
        """The inverse of `as_json`; raises ModelError for anything else."""
        try:
            training, assumed = (_normalised(values[name]) for name in ("training", "assumed"))
            strength = float(values["logit_adjustment"])
        except (KeyError, TypeError, ValueError) as error:
            raise ModelError(
                f"the stored class shares cannot be read ({type(error).__name__}: {error})",
                hint="export the model again",
            ) from None
        if len(training) != classes or len(assumed) != classes:
            raise ModelError(
                f"the stored class shares are not those of {classes} classes", hint="export the model again"
            )
        return cls(training, assumed, strength)

    def ratio_to(self, wanted: Sequence[float]) -> tuple[float, ...]:
        """What each class's probability is multiplied by for the shares `wanted`, at most 1."""
        ratio = np.asarray(wanted) / np.maximum(self.assumed, _LEAST_SHARE)
        return tuple((ratio / ratio.max()).tolist())

    def read(self, given: Given, classes: Sequence[str]) -> tuple[float, ...]:
        """Shares as a user gives them, in class order, with the sum 1; raises RecipeError.

        Classes that are not named share the rest as among the training images.
        """
        if given == UNIFORM:
            return _normalised([1.0] * len(classes))
        if given == TRAINING:
            return self.training
        named = {name: _share(name, value) for name, value in _named(given).items()}
        unknown = [name for name in named if name not in classes]
        if unknown:
            raise RecipeError(
                f"--priors names no class of the model: {', '.join(unknown)}",
                hint=class_meant(unknown[0], classes),
            )
        return self._completed(named, classes)

    def _completed(self, named: Mapping[str, float], classes: Sequence[str]) -> tuple[float, ...]:
        rest = 1 - sum(named.values())
        others = [i for i, name in enumerate(classes) if name not in named]
        if others and rest < _ROUNDING:
            raise RecipeError(
                f"--priors leaves nothing for {', '.join(classes[i] for i in others)}: the shares that are "
                f"given sum to {1 - rest:g}",
                hint="give shares below 1, or a share for each class",
            )
        left = sum(self.training[i] for i in others) or 1.0
        shares = [named.get(name, rest * self.training[i] / left) for i, name in enumerate(classes)]
        try:
            return _normalised(shares)
        except ValueError as error:
            raise RecipeError(f"--priors: {error}", hint=HOW) from None


_LEAST_SHARE = 1e-9
_ROUNDING = 1e-9


def reweighed(probabilities: ArrayLike, ratio: Sequence[float]) -> NDArray[np.float64]:
    """(images, classes) probabilities times the ratio (classes,), each row divided by its sum.

    A row of which nothing is left stands for classes that cannot be told apart, and gets the ratio itself.

    >>> reweighed([[0.5, 0.5]], (1.0, 0.25)).tolist()
    [[0.8, 0.2]]
    """
    factors = np.asarray(ratio, dtype=np.float64)
    values = np.asarray(probabilities, dtype=np.float64) * factors
    values = np.where(values.sum(axis=-1, keepdims=True) > 0, values, factors)
    return np.asarray(values / values.sum(axis=-1, keepdims=True))


def class_meant(name: str, classes: Sequence[str]) -> str:
    """The hint for a name that is no class: the nearest, else all of them.

    >>> class_meant("roze", ["rose", "tulip"]), class_meant("car", ["rose", "tulip"])
    ("did you mean 'rose'?", 'the classes are rose, tulip')
    """
    close = difflib.get_close_matches(name, classes, n=1)
    return f"did you mean {close[0]!r}?" if close else f"the classes are {', '.join(classes)}"


def _named(given: Given) -> Mapping[str, Any]:
    """Values by class name, out of NAME=SHARE,... or a file."""
    if not isinstance(given, str):
        return given
    path = Path(given)
    if path.suffix.lower() in (".csv", ".json"):
        return _from_file(path)
    pairs = [part.rsplit("=", 1) for part in given.split(",") if part.strip()]
    if not pairs or any(len(pair) != 2 for pair in pairs):
        raise RecipeError(f"--priors cannot be read: {given!r}", hint=HOW)
    return {name.strip(): value for name, value in pairs}


def _from_file(path: Path) -> Mapping[str, Any]:
    """{"rose": 0.2, ...} as JSON, or a CSV with the columns label and share."""
    try:
        text = read_text(path)
        if path.suffix.lower() == ".json":
            values = parse_json(text)
            return {str(name): value for name, value in values.items()}
        return {row["label"]: row["share"] for row in csv.DictReader(io.StringIO(text))}
    except OSError as error:
        raise RecipeError(
            f"--priors cannot be read: {path} ({error.strerror})", hint="check the path"
        ) from None
    except (ValueError, KeyError, AttributeError, DataError) as error:
        raise RecipeError(
            f"--priors: {path} has no shares by class name ({type(error).__name__}: {error})",
            hint='as JSON {"rose": 0.2, "tulip": 0.8}; as CSV with the columns label and share',
        ) from None


def _share(name: str, value: Any) -> float:
    try:
        share = float(value)
    except (TypeError, ValueError):
        share = math.nan
    if not 0 <= share < math.inf or isinstance(value, bool):
        raise RecipeError(f"--priors: the share of {name} is no number from 0 up: {value!r}", hint=HOW)
    return share


def _normalised(values: Sequence[float]) -> tuple[float, ...]:
    """Shares with the sum 1; raises ValueError where there are none."""
    numbers = np.asarray(values, dtype=np.float64)
    if numbers.ndim != 1 or not len(numbers) or not np.isfinite(numbers).all() or (numbers < 0).any():
        raise ValueError(f"no shares: {str(values)[:80]}")
    if not numbers.sum() > 0:
        raise ValueError("all shares are 0")
    total = float(numbers.sum())
    # what sums to 1 already comes back as it is
    return tuple((numbers if abs(total - 1) < _ROUNDING else numbers / total).tolist())
