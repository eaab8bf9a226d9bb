"""How much any two pictures of a data set agree: the allowance that every score is reduced by.

Two lungs, two digits or two boxes on white agree more than two holiday photos although they are different
ones. Pairs drawn at random show how much; what goes beyond the usual is taken off every score.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from saccade.near_duplicates.descriptors import Floats, Symmetry, Variants
from saccade.near_duplicates.verify import Fits, Run, Verifier
from saccade.near_duplicates.views import View

DRAWN_PAIRS = 1000
FEWEST_IMAGES = 40  # below, pairs drawn at random are too often true copies
QUANTILE = 0.99
USUAL_FITTED = 2.6  # the quantile in ordinary photos, of scores with a fitted map
USUAL_UNMOVED = 5.2  # and of pictures compared as they stand
COPIES_FROM = 9.7  # scores from here on are taken for true copies and left out


@dataclass(frozen=True)
class Drawn:
    """Pairs of pictures drawn at random, arrays (m,): the scores by the `maps` fitted, and as they stand."""

    first: NDArray[np.int64]
    second: NDArray[np.int64]
    maps: Floats
    fitted: Floats
    unmoved: Floats

    def __len__(self) -> int:
        return len(self.first)


_found: dict[bytes, Drawn] = {}  # the audit and the search across parts ask about the same pictures


def calibrated_verifier(pictures: Variants, run: Run) -> Verifier:
    """A verifier whose scores are already reduced by the allowance of these pictures."""
    verifier = Verifier(pictures, run)
    verifier.allowed = allowance(drawn_pairs(pictures, run))
    return verifier


def drawn_pairs(pictures: Variants, run: Run) -> Drawn:
    """Up to DRAWN_PAIRS pairs of whole pictures, each laid on the other; none where there are few images."""
    whole = np.flatnonzero(~pictures.trimmed)
    if len(whole) < FEWEST_IMAGES:
        whole = whole[:0]
    rng = np.random.default_rng(0)
    first = rng.integers(0, max(1, len(whole)), DRAWN_PAIRS)
    second = (first + rng.integers(1, max(2, len(whole)), DRAWN_PAIRS)) % max(1, len(whole))
    drawn = whole[np.stack([first, second])[:, : DRAWN_PAIRS if len(whole) else 0]]
    key = _digest(pictures, drawn.ravel())
    if key not in _found:
        _found[key] = _registered(drawn, pictures, run)
    return _found[key]


def allowance(drawn: Drawn) -> float:
    """What to take off every score in this data set; 0 for ordinary photos and for few images."""
    beyond = [_quantile(drawn.fitted) - USUAL_FITTED, _quantile(drawn.unmoved) - USUAL_UNMOVED]
    return float(max(0.0, *beyond))


def _digest(pictures: Variants, rows: NDArray[np.int64]) -> bytes:
    """Of all that registering these pictures depends on."""
    digest = hashlib.sha256()
    for column in (pictures.thumbnails, pictures.sizes, pictures.boxes):
        digest.update(np.ascontiguousarray(column[rows]).data)
    return digest.digest()


def _registered(drawn: NDArray[np.int64], pictures: Variants, run: Run) -> Drawn:
    """The pairs (2, m) registered, whatever comes of it."""
    rows, place = np.unique(drawn, return_inverse=True)
    verifier = Verifier(pictures[rows], run)
    first, second = place.reshape(2, -1).astype(np.int32)
    count = len(first)
    start = np.tile(View("whole", Symmetry()).start, (count, 1, 1))
    fits = Fits(first, second, start, start, np.zeros(count, np.int64), np.zeros(count, np.float32))
    fitted, _ = verifier.fine(verifier.coarse_round(verifier.rough_round(fits)), check=False)
    unmoved, _ = verifier.fine(fits, steps=0, check=False)
    return Drawn(drawn[0], drawn[1], fitted.maps, fitted.quality, unmoved.quality)


def _quantile(quality: Floats) -> float:
    scores = quality[quality < COPIES_FROM]
    return float(np.quantile(scores, QUANTILE)) if len(scores) else 0.0
