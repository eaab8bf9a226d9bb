"""Scenes that many images share (a fixed camera, one form), and what each image shows beyond its scene.

Shots of different parts on one camera line differ only in a scratch, the light and the noise, so registration
verifies all pairs of them. If random pairs are alike, the shared scene is estimated as the median of aligned
images and subtracted from each image that shows it. The rest, in units of the usual deviation at each pixel,
is then compared instead of the image (below).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from saccade.near_duplicates.candidates import View
from saccade.near_duplicates.descriptors import (
    THUMBNAIL_SIDE,
    WHOLE_BOX,
    Floats,
    Variants,
    in_batches,
    shrink,
    symmetry_list,
    unit,
)
from saccade.near_duplicates.registration import (
    Fits,
    Pictures,
    Run,
    best_order,
    grid_points,
    inside,
    inverted,
)
from saccade.near_duplicates.verify import (
    CERTAIN_SCORE,
    COPIES_FROM,
    IDENTITY,
    LIKELY_SCORE,
    LOOK_SCORE,
    Verifier,
    drawn_pairs,
)

ALIKE_SHARE = 0.2  # of pairs drawn at random; fewer may well be true copies
FURTHER_SHARE = 0.04  # of the pairs drawn, for each scene after the first
MOST_SCENES = 8
FEWEST_OF_SCENE = 12  # pictures
SHOWS_SCENE = 5.0  # score on the scene's median; any two photos reach half of it once in a hundred times
SAME_FRAMING = 0.15  # of any entry of a map from identity: a fixed camera neither mirrors nor zooms
SEEN_FOR_MEDIAN = 256  # pictures at most that a scene is estimated from
REFINEMENTS = 2
MEDIAN_DEVIATION = 0.6745  # of a normal distribution, in standard deviations
USUAL_LEAST = 0.5  # levels; thumbnails are rounded to whole ones
MIDDLE, UNITS = 127.5, 24.0  # levels of what is left: nothing, and each usual deviation more
BATCH = 128
LEVEL = 1  # the column of `_shared` that holds the scene itself
QUADRANT_STARTS = ("whole", "top left", "top right", "bottom left", "bottom right")

_POINTS = grid_points(THUMBNAIL_SIDE)


@dataclass(frozen=True)
class Laid:
    """Pictures laid on a scene: `row` of each (m,), `maps` (m, 2, 3) from the scene into it."""

    row: NDArray[np.int64]
    maps: Floats

    def __len__(self) -> int:
        return len(self.row)

    def __getitem__(self, chosen: slice) -> Laid:
        return Laid(self.row[chosen], self.maps[chosen])


@dataclass(frozen=True)
class Scenes:
    """`rest`: what each picture shows beyond the scene it shares with many, laid on that scene.

    `laid` holds the pictures of each scene; pictures of none stand in `rest` as they are.
    """

    rest: Variants
    laid: tuple[Laid, ...] = ()

    @property
    def alone(self) -> NDArray[np.int64]:
        """Rows of the pictures that share no scene."""
        shared = np.zeros(len(self.rest), bool)
        for laid in self.laid:
            shared[laid.row] = True
        return np.flatnonzero(~shared)

    @property
    def images(self) -> int:
        """How many images share a scene with others."""
        return len({image for laid in self.laid for image in self.rest.image[laid.row].tolist()})


def find_scenes(pictures: Variants, run: Run, *, symmetries: int = 2) -> Scenes:
    """The scenes that many pictures share; none where pairs drawn at random are not alike."""
    drawn = drawn_pairs(pictures, run)
    moved = np.abs(drawn.maps - IDENTITY).reshape(len(drawn), 6).max(axis=1, initial=0)
    alike = (drawn.fitted >= COPIES_FROM) & (moved <= SAME_FRAMING)  # verified, in the same framing
    if alike.sum() <= ALIKE_SHARE * len(drawn):
        return Scenes(pictures)
    rest = pictures[np.arange(len(pictures))]
    free = np.ones(len(pictures), bool)
    found: list[Laid] = []
    while len(found) < MOST_SCENES:
        left = alike & free[drawn.first] & free[drawn.second]
        if left.sum() <= FURTHER_SHARE * len(drawn):
            break
        linked = np.concatenate([drawn.first[left], drawn.second[left]])
        scene = _scene_around(pictures, int(np.bincount(linked).argmax()), np.flatnonzero(free), run)
        laid = _all_laid(pictures, scene, np.flatnonzero(free), run, symmetries)
        if len(laid) < FEWEST_OF_SCENE:
            break
        free[laid.row] = False
        _put_rest(rest, pictures, laid, run)
        found.append(laid)
    return Scenes(rest, tuple(found))


# --- which pictures show the scene, and how they lie on it --------------------------------------------------


def _scene_around(pictures: Variants, begin: int, rows: NDArray[np.int64], run: Run) -> NDArray[np.uint8]:
    """(64, 64) the median of what lies on the picture `begin`, found anew from each better median."""
    scene: NDArray[np.uint8] = pictures.thumbnails[begin]
    sample = rows[:: -(-len(rows) // SEEN_FOR_MEDIAN)]
    for _ in range(REFINEMENTS):
        laid = _laid(pictures, scene, sample, run)
        if len(laid) < 2:
            break
        levels = scene.mean() + scene.std() * np.median(_on_scene(pictures, laid), axis=0)
        scene = np.array(np.clip(np.rint(levels), 0, 255), np.uint8).reshape(scene.shape)
    return scene


def _all_laid(
    pictures: Variants, scene: NDArray[np.uint8], rows: NDArray[np.int64], run: Run, symmetries: int
) -> Laid:
    """What of these rows shows the scene, as the camera does or as a crop or mirror image of it."""
    upright = _laid(pictures, scene, rows, run)
    edited = _laid_edited(pictures, scene, np.setdiff1d(rows, upright.row), run, symmetries)
    return Laid(np.concatenate([upright.row, edited.row]), np.concatenate([upright.maps, edited.maps]))


def _laid(pictures: Variants, scene: NDArray[np.uint8], rows: NDArray[np.int64], run: Run) -> Laid:
    """Those in the scene's own framing."""
    verifier = _with_scene(pictures, scene, rows, run)
    start = np.tile(IDENTITY, (len(rows), 1, 1))
    fits = started_fits(np.full(len(rows), len(rows)), np.arange(len(rows)), start)
    fitted, _ = verifier.fine(verifier.coarse_round(verifier.rough_round(fits)), check=False)
    found = np.flatnonzero(fitted.quality >= SHOWS_SCENE)
    return Laid(rows[found], fitted.maps[found])


def _laid_edited(
    pictures: Variants, scene: NDArray[np.uint8], rows: NDArray[np.int64], run: Run, symmetries: int
) -> Laid:
    """Those that look like the scene or a quadrant of it, mirrored (or turned) too; each by its best map."""
    views = [View(part, each) for each in symmetry_list(symmetries) for part in QUADRANT_STARTS]
    starts = np.stack([view.start for view in views])
    which, view = (each.ravel() for each in np.indices((len(rows), len(views))))
    fits = started_fits(which, np.full(len(which), len(rows)), starts[view])
    verified, _ = _with_scene(pictures, scene, rows, run).verify(fits)
    best = verified[best_order(verified, np.arange(len(rows) + 1))]
    best = best[best.quality >= LIKELY_SCORE]
    return Laid(rows[best.template], inverted(best.maps))


def _with_scene(pictures: Variants, scene: NDArray[np.uint8], rows: NDArray[np.int64], run: Run) -> Verifier:
    """A verifier of these rows and, as the last picture, the scene."""
    some = pictures[rows]
    return Verifier(
        Variants(
            np.concatenate([some.thumbnails, scene[None]]),
            np.concatenate([some.sizes, np.full((1, 2), THUMBNAIL_SIDE, np.int32)]),
            np.append(some.image, -1),
            np.append(some.trimmed, False),
            np.concatenate([some.boxes, WHOLE_BOX[None]]),
        ),
        run,
    )


def started_fits(template: NDArray[np.int64], other: NDArray[np.int64], start: Floats) -> Fits:
    """Pairs to register from these maps."""
    nothing = np.zeros(len(start), np.float32)
    return Fits(
        template.astype(np.int32), other.astype(np.int32), start, start, nothing.astype(np.int64), nothing
    )


def _on_scene(pictures: Variants, laid: Laid) -> Floats:
    """(m, 64 * 64) the pictures at the points of the scene, with mean 0 and standard deviation 1."""
    levels = Pictures(pictures.thumbnails).at(_POINTS, laid.row, laid.maps, smooth=True)
    levels -= levels.mean(axis=1, keepdims=True)
    levels /= np.maximum(levels.std(axis=1, keepdims=True), 1e-3)
    return levels


# --- what is left without the scene -------------------------------------------------------------------------


def _put_rest(changed: Variants, pictures: Variants, laid: Laid, run: Run) -> None:
    """Write what is left of the pictures, in units of the usual deviation, in place of the pictures."""
    sample = laid[:: -(-len(laid) // SEEN_FOR_MEDIAN)]
    scene = np.median(_on_scene(pictures, sample), axis=0)
    shared = _shared(scene)
    deviation = np.abs(_rest(pictures, sample, shared))
    usual = np.maximum(np.median(deviation, axis=0) / MEDIAN_DEVIATION, USUAL_LEAST)

    def work(rows: slice) -> None:
        some = laid[rows]
        rest = np.rint(MIDDLE + UNITS * _rest(pictures, some, shared) / usual)
        changed.thumbnails[some.row] = np.clip(rest, 0, 255).reshape(-1, THUMBNAIL_SIDE, THUMBNAIL_SIDE)
        changed.boxes[some.row] = _seen_boxes(some.maps)

    run(work, list(in_batches(len(laid), BATCH)))


def _shared(scene: Floats) -> Floats:
    """(points, 14) what any picture of the scene may hold of it: its tone, shading, and slight moves."""
    side, (x, y, one) = THUMBNAIL_SIDE, _POINTS
    level = (scene - scene.mean()) / max(float(scene.std()), 1e-3)
    by_y, by_x = (each.ravel() for each in np.gradient(level.reshape(side, side)))
    tones = (one, level, level**2, level**3)
    shades = (x, y, x * level, y * level)
    moves = (by_x, by_y, x * by_x, y * by_x, x * by_y, y * by_y)
    return np.stack([*tones, *shades, *moves], axis=1).astype(np.float32)


def _rest(pictures: Variants, laid: Laid, shared: Floats) -> Floats:
    """(m, points) what is left of the pictures without what fits the scene; 0 where they do not show it."""
    levels = Pictures(pictures.thumbnails).at(_POINTS, laid.row, laid.maps, smooth=True)
    seen = inside(_POINTS, laid.maps).astype(np.float32)
    weighted = shared * seen[:, :, None]
    normal = np.matmul(weighted.transpose(0, 2, 1), shared)
    diagonal = np.arange(shared.shape[1])
    normal[:, diagonal, diagonal] += 1e-3 * shared.shape[0]
    fit = np.linalg.solve(normal, np.matmul(levels[:, None], weighted).transpose(0, 2, 1))
    rest: Floats = (levels - np.matmul(shared, fit)[:, :, 0]) * seen
    return rest * np.where(fit[:, LEVEL] < 0, -1, 1).astype(np.float32)  # inverted pictures turned back


def _seen_boxes(maps: Floats) -> Floats:
    """(m, 4) left, right, top, bottom of what a picture shows of the scene."""
    seen = inside(_POINTS, maps).reshape(-1, THUMBNAIL_SIDE, THUMBNAIL_SIDE)
    sides = []
    for lines in (seen.mean(axis=1), seen.mean(axis=2)):  # columns, then rows
        full = lines >= 0.5 * lines.max(axis=1, keepdims=True)
        first, last = full.argmax(axis=1), THUMBNAIL_SIDE - full[:, ::-1].argmax(axis=1)
        sides += [2 * first / THUMBNAIL_SIDE - 1, 2 * last / THUMBNAIL_SIDE - 1]
    return np.stack(sides, axis=1).astype(np.float32)


# -- beyond ----------------------------------------------------------------------------------------------
# Which pictures of one scene are near-duplicates: those that agree beyond what any two of them agree.
# Pictures laid on their scene need no search and no registration: what is left of each is compared with what
# is left of every other. How much any two agree is measured on the scene's own pictures, for each of them: a
# copy agrees several deviations more.


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
