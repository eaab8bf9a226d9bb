"""How much any two pictures of a data set agree: the allowance that every score is reduced by.

Two lungs, two digits or two boxes on white agree more than two holiday photos although they are different
ones. Pairs drawn at random show how much; what goes beyond the usual is taken off every score.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from saccade.data.similarity.descriptors import Symmetry, Variants
from saccade.data.similarity.verify import Fits, Run, Verifier
from saccade.data.similarity.views import View

DRAWN_PAIRS = 1000
FEWEST_IMAGES = 40  # below, pairs drawn at random are too often true copies
QUANTILE = 0.99
USUAL_FITTED = 2.6  # the quantile in ordinary photos, of scores with a fitted map
USUAL_UNMOVED = 5.2  # and of pictures compared as they stand
COPIES_FROM = 9.7  # scores from here on are taken for true copies and left out

_found: dict[bytes, float] = {}  # the audit and the search across parts ask about the same pictures


def calibrated_verifier(pictures: Variants, run: Run) -> Verifier:
    """A verifier whose scores are already reduced by the allowance of these pictures."""
    verifier = Verifier(pictures, run)
    verifier.allowed = allowance(pictures, verifier)
    return verifier


def allowance(pictures: Variants, verifier: Verifier) -> float:
    """What to take off every score in this data set; 0 for ordinary photos and for few images."""
    whole = np.flatnonzero(~pictures.trimmed)
    if len(whole) < FEWEST_IMAGES:
        return 0.0
    rng = np.random.default_rng(0)
    first = rng.integers(0, len(whole), DRAWN_PAIRS)
    second = (first + rng.integers(1, len(whole), DRAWN_PAIRS)) % len(whole)
    drawn = whole[np.stack([first, second])]
    key = _digest(pictures, drawn.ravel())
    if key not in _found:
        _found[key] = _beyond_usual(drawn, verifier)
    return _found[key]


def _digest(pictures: Variants, rows: NDArray[np.int64]) -> bytes:
    """Of all that registering these pictures depends on."""
    digest = hashlib.sha256()
    for column in (pictures.thumbnails, pictures.sizes, pictures.boxes):
        digest.update(np.ascontiguousarray(column[rows]).data)
    return digest.digest()


def _beyond_usual(drawn: NDArray[np.int64], verifier: Verifier) -> float:
    """By how much pairs (2, DRAWN_PAIRS) of pictures agree more than those of ordinary photos, 0 if not."""
    start = np.tile(View("whole", Symmetry()).start, (DRAWN_PAIRS, 1, 1))
    fits = Fits(
        drawn[0].astype(np.int32),
        drawn[1].astype(np.int32),
        start,
        start,
        np.zeros(DRAWN_PAIRS, np.int64),
        np.zeros(DRAWN_PAIRS, np.float32),
    )
    fitted, _ = verifier.fine(verifier.coarse_round(verifier.rough_round(fits)), check=False)
    unmoved, _ = verifier.fine(fits, steps=0, check=False)
    beyond = [_quantile(fitted) - USUAL_FITTED, _quantile(unmoved) - USUAL_UNMOVED]
    return float(max(0.0, *beyond))


def _quantile(fits: Fits) -> float:
    scores = fits.quality[fits.quality < COPIES_FROM]
    return float(np.quantile(scores, QUANTILE)) if len(scores) else 0.0
