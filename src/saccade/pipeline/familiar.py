"""The score of how unlike the training images an image is: fitted once a run, kept beside its weights.

Features are those of the trained network, on images as they are evaluated. Where only a head or the last
layers were trained, they are the pretrained backbone's, or nearly so.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from saccade.evaluation.unfamiliar import LEAST_IMAGES, Unfamiliar, fit_unfamiliar
from saccade.run_folder import RunFolder

if TYPE_CHECKING:
    from saccade.bundle import Bundle

Features = NDArray[np.float32]

MOST_IMAGES = 1000  # of each part: more change the score little
MOST_CAUGHT = 20_000  # images whose features are kept while a part is measured
VALUES = ("centre", "basis", "usual")
COUNTS = "counts"  # images fitted on, and held out


def has_features(bundle: Bundle) -> bool:
    """Whether the network gives one vector an image; several networks as one graph do not."""
    from saccade.models.network import Classifier

    return isinstance(bundle.module, Classifier)


def keep_unfamiliar(run: RunFolder, features: Callable[[str], Features | None]) -> None:
    """Fit the score and keep it, where it is not there yet.

    `features(part)` gives those of images of the part, None where it has none. Without enough images of
    validation half of the training images are held out.
    """
    train, held_out = features("train"), features("validation")
    if train is None:
        return
    train = _sample(train)
    fitted = (
        fit_unfamiliar(train[::2], train[1::2])
        if held_out is None or len(held_out) < LEAST_IMAGES
        else fit_unfamiliar(train, _sample(held_out))
    )
    if fitted:
        run.write(run.unfamiliar, _as_bytes(fitted))


def read_unfamiliar(run: RunFolder) -> Unfamiliar | None:
    """As it was kept; raises RunError for a damaged file."""
    from safetensors.numpy import load

    if not run.has(run.unfamiliar):
        return None
    found = load(run.read(run.unfamiliar))
    centre, basis, usual = (found[name].astype(np.float64) for name in VALUES)
    images, held_out = found[COUNTS].tolist()
    return Unfamiliar(centre, basis, float(usual[0]), images, held_out)


def _as_bytes(fitted: Unfamiliar) -> bytes:
    from safetensors.numpy import save

    values = {name: np.array(getattr(fitted, name), np.float32, ndmin=1, order="C") for name in VALUES}
    return bytes(save({**values, COUNTS: np.array([fitted.images, fitted.held_out])}))


def _sample(features: Features) -> Features:
    return features[:: -(-len(features) // MOST_IMAGES)]
