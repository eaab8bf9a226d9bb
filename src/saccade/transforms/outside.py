"""Augmentations of other packages: `augment(image, rng) -> image`, found by the names in `augment.extra` and
`augment.steps`."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable

import numpy as np
from torch import Tensor

from saccade import extensions
from saccade.errors import DataError, RecipeError, SaccadeError
from saccade.recipe.augmentation import OWN_STEPS

Augment = Callable[[Tensor, np.random.Generator], Tensor]
_REMEDY = "correct it; saccade.testing.check_augmentation says what it must keep to"


def check_known(names: Iterable[str]) -> None:
    """Raise RecipeError for names of augmentations that nobody offers."""
    for name in names:
        find_augmentation(name)


def find_augmentation(name: str) -> Augment:
    """The augmentation of that name; raises SaccadeError where nobody offers it or it cannot be imported."""
    found: Augment | None = extensions.find("augmentations", name)
    if found is None:
        known = ", ".join(extensions.names("augmentations")) or "none is installed or registered"
        close = difflib.get_close_matches(name, OWN_STEPS, n=1)
        meant = f"did you mean the step {close[0]!r}? " if close else ""
        raise RecipeError(
            f"augment.extra or augment.steps: unknown augmentation {name!r}",
            hint=f"{meant}known from outside: {known}; register_augmentation or an entry point adds one, and "
            "module:function names one of yours",
        )
    return found


def apply_from_outside(image: Tensor, names: Iterable[str], rng: np.random.Generator) -> Tensor:
    """uint8 (3, S, S), or other channels, float32 from 0 to 65535 where they have 16 bits -> the same shape
    and type, each augmentation with random numbers of its own.

    Raises DataError, naming it, for one that fails or gives something else.
    """
    names = tuple(names)
    for name, own in zip(names, rng.spawn(len(names)), strict=True):
        image = _applied(name, image, own)
    return image


def _applied(name: str, image: Tensor, rng: np.random.Generator) -> Tensor:
    try:
        with extensions.blaming("augmentations", name):
            changed = find_augmentation(name)(
                image.clone(), rng
            )  # a copy: what is given may be kept for later
    except SaccadeError as error:
        raise DataError(*error.args, hint=error.hint) from error
    except Exception as error:  # code of others may raise whatever it likes
        raise DataError(
            f"augmentation {name!r} failed: {type(error).__name__}: {error}", hint=_REMEDY
        ) from error
    if not isinstance(changed, Tensor) or changed.dtype != image.dtype or changed.shape != image.shape:
        what = f"{changed.dtype} {tuple(changed.shape)}" if isinstance(changed, Tensor) else type(changed)
        kind = str(image.dtype).removeprefix("torch.")
        raise DataError(
            f"augmentation {name!r} gave {what}, not a {kind} tensor {tuple(image.shape)}", hint=_REMEDY
        )
    return changed
