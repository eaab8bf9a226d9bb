"""Which pictures of one scene are near-duplicates: those that agree beyond what any two of them agree.

Pictures laid on their scene need no search and no registration: what is left of each is compared with what is
left of every other. How much any two agree is measured on the scene's own pictures, for each of them: a
copy agrees several deviations more.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from saccade.near_duplicates.descriptors import Floats, Variants, in_batches, shrink, unit
from saccade.near_duplicates.registration import inverted
from saccade.near_duplicates.scene import MEDIAN_DEVIATION, MIDDLE, UNITS, Laid, Scenes, started_fits
from saccade.near_duplicates.verify import CERTAIN_SCORE, LIKELY_SCORE, LOOK_SCORE, Fits, Run

COMPARED_SIDE = 32  # pixels
MOST_MODES = 20  # directions at most in which many pictures vary (light, moves below a pixel): no one's own
IMAGES_A_MODE = 20
SEEN_FOR_MODES = 512  # pictures at most that these directions are found from
LARGEST_UNITS = 4.0  # usual deviations that count, so that one spot does not speak for the picture
LARGEST_POINT = 2.0  # the same after the modes are gone
SMOOTHING = 2.0  # pixels; what is smoother is light, not form
NULL_SAMPLE = 2000  # pictures that say how much any two agree
COMPARED_ROWS = 256
# Deviations beyond what any two pictures of the scene agree, and the scores they stand for. Tried on made-up
# cameras only: docs/near-duplicates.md.
DEVIATIONS = (0.0, 5.5, 7.0, 12.0, 100.0)
AS_SCORES = (0.0, LOOK_SCORE, LIKELY_SCORE, CERTAIN_SCORE, 99.0)


def pairs_beyond(scenes: Scenes, run: Run) -> tuple[Fits, Floats]:
    """Pairs of pictures of one scene that agree in what is left, their quality as scores; correlations."""
    found = [_pairs_of(scenes.rest, laid, run) for laid in scenes.laid]
    fits = Fits(
        *(np.concatenate(column) for column in zip(*(each.columns for each, _ in found), strict=True))
    )
    return fits, np.concatenate([correlation for _, correlation in found])


def _pairs_of(rest: Variants, laid: Laid, run: Run) -> tuple[Fits, Floats]:
    vectors = _compared(rest.thumbnails[laid.row])
    centre, spread = _any_two(vectors)
    least = np.tanh(centre + DEVIATIONS[1] * spread)
    parts: list[tuple[NDArray[np.int64], NDArray[np.int64], Floats]] = []

    def work(rows: slice) -> None:
        agree = vectors[rows] @ vectors.T
        first, second = np.nonzero((agree >= least[rows, None]) & (agree >= least))
        correlation = agree[first, second]
        first += rows.start
        once = (first < second) & (rest.image[laid.row[first]] != rest.image[laid.row[second]])
        parts.append((first[once], second[once], correlation[once]))

    run(work, list(in_batches(len(laid), COMPARED_ROWS)))
    first, second, correlation = (np.concatenate(column) for column in zip(*parts, strict=True))
    order = np.lexsort((second, first))  # threads end in any order
    first, second, correlation = first[order], second[order], correlation[order]
    beyond = np.arctanh(np.minimum(correlation, 0.9999))
    deviations = np.minimum(*((beyond - centre[each]) / spread[each] for each in (first, second)))
    score = np.interp(deviations, DEVIATIONS, AS_SCORES).astype(np.float32)
    maps = _composed(laid.maps[second], inverted(laid.maps[first]))
    fits = started_fits(laid.row[first], laid.row[second], maps)
    return replace(fits, quality=score), correlation


def _compared(thumbnails: NDArray[np.uint8]) -> Floats:
    """(n, 32 * 32) unit vectors of what is left, without what varies in many pictures and what is smooth."""
    units = (shrink(thumbnails, COMPARED_SIDE).reshape(len(thumbnails), -1) - MIDDLE) / UNITS
    np.clip(units, -LARGEST_UNITS, LARGEST_UNITS, out=units)
    modes = _common_modes(units[:: -(-len(units) // SEEN_FOR_MODES)])
    units -= (units @ modes.T) @ modes
    square = units.reshape(-1, COMPARED_SIDE, COMPARED_SIDE)
    blur = _blur_matrix()
    units -= np.matmul(blur, np.matmul(square, blur.T)).reshape(units.shape)
    units /= np.maximum(np.median(np.abs(units), axis=1, keepdims=True) / MEDIAN_DEVIATION, 1e-6)
    np.clip(units, -LARGEST_POINT, LARGEST_POINT, out=units)
    return unit(units - units.mean(axis=1, keepdims=True))


def _common_modes(units: Floats) -> Floats:
    """(modes, points) the directions in which many pictures vary; orthonormal."""
    centred = units - units.mean(axis=0)
    directions: Floats = np.linalg.svd(centred, full_matrices=False)[2]
    return directions[: min(MOST_MODES, len(units) // IMAGES_A_MODE)]


def _blur_matrix() -> Floats:
    position = np.arange(COMPARED_SIDE)
    weight = np.exp(-0.5 * ((position[:, None] - position) / SMOOTHING) ** 2)
    blur: Floats = (weight / weight.sum(axis=1, keepdims=True)).astype(np.float32)
    return blur


def _any_two(vectors: Floats) -> tuple[Floats, Floats]:
    """(n,) the usual agreement of each picture with any other, as Fisher's z, and its robust deviation."""
    sample = vectors[:: -(-len(vectors) // NULL_SAMPLE)]
    centre, spread = np.empty(len(vectors), np.float32), np.empty(len(vectors), np.float32)
    for rows in in_batches(len(vectors), COMPARED_ROWS):
        agree = np.arctanh(np.clip(vectors[rows] @ sample.T, -0.9999, 0.9999))
        centre[rows] = np.median(agree, axis=1)
        spread[rows] = np.median(np.abs(agree - centre[rows, None]), axis=1) / MEDIAN_DEVIATION
    return centre, np.maximum(spread, 1 / COMPARED_SIDE)  # no less than by chance among as many points


def _composed(outer: Floats, inner: Floats) -> Floats:
    """Affine maps (m, 2, 3) one after the other, `inner` first."""
    linear = np.matmul(outer[:, :, :2], inner[:, :, :2])
    shift = np.matmul(outer[:, :, :2], inner[:, :, 2:]) + outer[:, :, 2:]
    return np.concatenate([linear, shift], axis=2)
