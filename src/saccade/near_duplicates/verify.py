"""Registration of candidate pairs in three rounds, each finer and with fewer pairs; score calibration."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saccade.near_duplicates.agreement import (
    INNER_WEIGHT,
    NATIVE_POINTS,
    POINTS_POWER,
    UNMOVED_BONUS,
    Edges,
    agreement,
    correlation,
    edges_evidence,
    gradient_products,
    total_evidence,
)
from saccade.near_duplicates.candidates import View
from saccade.near_duplicates.descriptors import Floats, Indices, Symmetry, Variants, in_batches
from saccade.near_duplicates.registration import (
    COARSE_GRID,
    COARSE_SIDE,
    FINE_GRID,
    WINDOWS,
    Fits,
    Pictures,
    Run,
    Templates,
    best_order,
    coarse_pictures,
    fine_pictures,
    grid_points,
    inside,
    inside_boxes,
    joined_fits,
    robust_fit,
    rough_fit,
    the_other_way,
    window_weights,
)
from saccade.near_duplicates.stored import chosen_rows, let_go

# What the bands mean, measured on photos of 32 and 128 pixels: docs/near-duplicates.md
CERTAIN_SCORE = 13.5
LIKELY_SCORE = 9.7
LOOK_SCORE = 8.0

ROUGH_STEPS, COARSE_STEPS, FINE_STEPS = 3, 4, 3
# Correlations of the gradients that a pair needs to go on: docs/near-duplicates.md says what each costs.
ROUGH_CORRELATION = 0.55  # after the rough round
COARSE_CORRELATION = 0.8  # after the coarse one
LARGE_FROM = 20_000  # pictures; below, time is not worth the last pair in a thousand
# The same in large data sets, as evidence (agreement.py), which tells a plain sky from a true copy earlier.
ROUGH_EVIDENCE, OTHER_WAY_EVIDENCE, COARSE_EVIDENCE, STANDING_EVIDENCE = 3.8, 2.6, 5.8, 3.6
WORTH_EVIDENCE = 0.5  # correlation from which the evidence is looked at, which takes longer to find
FITTING_GAIN = 0.2  # that the fine round is trusted to add to the correlation
STANDING_CORRELATION = 0.62  # of blurred pictures that are compared without fitting
UNMOVED_CORRELATION = 0.65  # of the full thumbnails, without fitting
COARSE_BATCH, FINE_BATCH = 512, 256
LARGE_FINE_BATCH = 128  # fits the processor's cache; other batches round differently, so not below LARGE_FROM
SMALLEST_COVER = 0.33  # share of the template that must lie on the other picture
BORDER_REACH = 2 / FINE_GRID  # of a border into the picture, once smoothed
IDENTITY = np.eye(2, 3, dtype=np.float32)
AREA_CHANGES = (0.45, 2.2)


@dataclass(frozen=True)
class Thresholds:
    """What a pair needs to go on after the rough round, after the coarse one, and where no map is fitted."""

    rough: float
    coarse: float
    standing: float


SMALL_THRESHOLDS = Thresholds(ROUGH_CORRELATION, COARSE_CORRELATION, STANDING_CORRELATION)
LARGE_THRESHOLDS = Thresholds(ROUGH_EVIDENCE, COARSE_EVIDENCE, STANDING_EVIDENCE)


# Some pairs, the distinct templates among them, which of those each pair has -> maps, quality.
Work = Callable[[Fits, Templates, Indices], tuple[Floats, Floats]]


class Verifier:
    """Holds the pictures that pairs are registered on; `run` may spread batches over threads."""

    def __init__(self, pictures: Variants, run: Run, *, blurred: NDArray[np.uint8] | None = None) -> None:
        self.thumbnails = thumbnails = pictures.thumbnails
        self.run = run
        self.allowed = 0.0  # taken off every score, see calibration
        self.large = len(thumbnails) >= LARGE_FROM
        self.thresholds = LARGE_THRESHOLDS if self.large else SMALL_THRESHOLDS
        self.fine_batch = LARGE_FINE_BATCH if self.large else FINE_BATCH
        # a box that begins inside the picture is smaller by what the edge of its border reaches inwards
        reach = np.array([1, -1, 1, -1], np.float32) * BORDER_REACH
        self.boxes = np.where(np.abs(pictures.boxes) < 1, pictures.boxes + reach, pictures.boxes)
        pixels = pictures.sizes.astype(np.float32).prod(axis=1)
        self.native_share = np.minimum(1, pixels / NATIVE_POINTS).astype(np.float32)
        if blurred is None:
            blurred = np.empty((len(thumbnails), COARSE_SIDE, COARSE_SIDE), np.uint8)
        self.blurred = Pictures(blurred)  # like the thumbnails they may lie on disk

        def blur(rows: slice) -> None:
            self.blurred.pixels[rows] = coarse_pictures(self.thumbnails[rows])

        slices = list(in_batches(len(thumbnails), 1024))
        for some in in_batches(len(slices), 16):
            run(blur, slices[some])
            let_go(blurred)

    def few(self, rows: NDArray[np.integer[Any]]) -> Verifier:
        """This verifier for some of its pictures, of which it holds the blurred ones in memory."""
        part = copy.copy(self)
        part.thumbnails = chosen_rows([self.thumbnails], rows)
        part.blurred = Pictures(chosen_rows([self.blurred.pixels], rows)[:])
        part.boxes, part.native_share = self.boxes[rows], self.native_share[rows]
        return part

    def verify(self, fits: Fits) -> tuple[Fits, Floats]:
        """What survives all three rounds, its quality being the score; and the correlations, signed."""
        return self.fine(self.coarse(self.rough_round(fits)))

    def verify_both_ways(self, fits: Fits) -> tuple[Fits, Floats]:
        """Like `verify`, each picture being the template once; the better way ends in the last round.

        In large data sets in the coarse round already, and only what is promising one way is tried the other.
        """
        rough = self.rough_round(fits)
        everything = np.arange(len(self.thumbnails))
        back = self.rough_round(
            the_other_way(fits[rough.quality >= OTHER_WAY_EVIDENCE] if self.large else fits)
        )
        if self.large:
            both = joined_fits(rough, back)
            return self.fine(self.coarse(both[best_order(both, everything)]))
        both = joined_fits(self.coarse(rough), self.coarse(back))
        return self.fine(both[best_order(both, everything)])

    def verify_unmoved(self, fits: Fits) -> tuple[Fits, Floats]:
        """Like `verify`, the map left as it started: what was only recoloured agrees without any fitting."""
        standing = self.standing_round(fits)
        return self.fine(standing[standing.quality >= self.thresholds.standing], steps=0)

    def verify_started(self, fits: Fits) -> tuple[Fits, Floats]:
        """Like `verify` without the rough round, which expects one picture to lie within the other."""
        coarse = self.coarse_round(fits)
        return self.fine(coarse[coarse.quality >= self.thresholds.coarse])

    def coarse(self, rough: Fits) -> Fits:
        """What survives the coarse round, of what agrees enough so far."""
        coarse = self.coarse_round(rough[rough.quality >= self.thresholds.rough])
        return coarse[coarse.quality >= self.thresholds.coarse]

    def rough_round(self, fits: Fits) -> Fits:
        """Plain steps on the blurred pictures."""
        points = grid_points(COARSE_GRID)

        def work(some: Fits, templates: Templates, row: Indices) -> tuple[Floats, Floats]:
            solver = templates.solver()[row]
            maps = rough_fit(solver, self.blurred, some.other, some.start, steps=ROUGH_STEPS)
            values = self.blurred.at(points, some.other, maps, smooth=False)
            return maps, self._first_promise(some, templates, row, values)

        return self._round(fits, work)

    def standing_round(self, fits: Fits) -> Fits:
        """No steps: how much the blurred pictures agree as they are."""
        points = grid_points(COARSE_GRID)

        def work(some: Fits, templates: Templates, row: Indices) -> tuple[Floats, Floats]:
            values = self.blurred.at(points, some.other, some.start, smooth=False)
            return some.start, self._first_promise(some, templates, row, values)

        return self._round(fits, work)

    def coarse_round(self, fits: Fits) -> Fits:
        """Robust steps on the blurred pictures, pixels outside left out."""
        points = grid_points(COARSE_GRID)

        def work(some: Fits, templates: Templates, row: Indices) -> tuple[Floats, Floats]:
            own, pictures = templates[row], self.blurred
            maps = robust_fit(
                own, pictures, some.other, some.maps, some.start, grid=COARSE_GRID, steps=COARSE_STEPS
            )
            values = pictures.at(points, some.other, maps, smooth=True)
            return maps, self._promise(some, own.contrast, values, inside(points, maps) & (own.window > 0))

        return self._round(fits, work)

    def _first_promise(self, fits: Fits, templates: Templates, row: Indices, values: Floats) -> Floats:
        """(m,) `_promise` where pixels beyond the edge count like others: in large data sets evidence."""
        if self.large and templates.window.all():
            edges = Edges.of(templates.contrast)[row]
            return edges_evidence(edges, Edges.of(values), self._native(fits))
        return self._promise(fits, templates.contrast[row], values, templates.window[row] > 0)

    def _native(self, fits: Fits) -> Floats:
        """(m,) `native_share` of the smaller picture of each pair."""
        smaller: Floats = np.minimum(self.native_share[fits.template], self.native_share[fits.other])
        return smaller

    def _promise(self, fits: Fits, template: Floats, values: Floats, counts: NDArray[np.bool_]) -> Floats:
        """(m,) correlation of the gradients; in large data sets evidence, 0 where they hardly correlate."""
        agree = _agree(template, values, counts)
        if not self.large:
            return agree
        rows = np.flatnonzero(agree >= WORTH_EVIDENCE)
        if not len(rows):
            return np.zeros(len(fits), np.float32)
        native = self._native(fits[rows])
        promise = np.zeros(len(fits), np.float32)
        promise[rows] = total_evidence(template[rows], values[rows], counts[rows], native)
        return promise

    def _round(self, fits: Fits, work: Work) -> Fits:
        """`work` on batches of pairs with the templates of the blurred pictures."""
        maps, quality = np.empty_like(fits.maps), np.empty(len(fits), np.float32)

        def batch(rows: slice) -> None:
            some = fits[rows]
            keys, row = np.unique(some.template * len(WINDOWS) + some.window, return_inverse=True)
            window = window_weights(keys % len(WINDOWS), COARSE_GRID)
            templates = Templates.of(self.blurred.pixels[keys // len(WINDOWS)], COARSE_GRID, window)
            maps[rows], quality[rows] = work(some, templates, row)

        self.run(batch, list(in_batches(len(fits), COARSE_BATCH)))
        return Fits(fits.template, fits.other, maps, fits.start, fits.window, quality)

    def fine(self, fits: Fits, *, steps: int = FINE_STEPS, check: bool = True) -> tuple[Fits, Floats]:
        """Robust steps on the full thumbnails; quality becomes the score, 0 where it cannot be one.

        Without steps the score gains what fitting a map by chance is worth. `check` leaves out early what
        hardly agrees so far.
        """
        maps, score = fits.maps.copy(), np.zeros(len(fits), np.float32)
        signed = np.zeros(len(fits), np.float32)

        def batch(rows: slice) -> None:
            some = fits[rows]
            images, row = np.unique(np.stack([some.template, some.other]), return_inverse=True)
            pictures = Pictures(fine_pictures(self.thumbnails[images]))
            template, other = row.reshape(2, -1)
            kept = np.arange(len(some))
            if check:
                worth = self._worth_fitting(some, pictures, template, other, unmoved=not steps)
                kept = np.flatnonzero(worth)
            if len(kept):
                found = self._fit_and_score(some[kept], pictures, template[kept], other[kept], steps)
                at = rows.start + kept
                maps[at], score[at], signed[at] = found

        self.run(batch, list(in_batches(len(fits), self.fine_batch)))
        return Fits(fits.template, fits.other, maps, fits.start, fits.window, score), signed

    def _worth_fitting(
        self, fits: Fits, pictures: Pictures, template: Indices, other: Indices, *, unmoved: bool
    ) -> NDArray[np.bool_]:
        """Whether the full thumbnails agree already to some degree, by the map so far."""
        points = grid_points(FINE_GRID)
        own = pictures.at(points, template, np.tile(IDENTITY, (len(fits), 1, 1)), smooth=True)
        values = pictures.at(points, other, fits.maps, smooth=True)
        counts = inside(points, fits.maps) & (window_weights(fits.window, FINE_GRID) > 0)
        agree = _agree(own, values, counts)
        native = self._native(fits)
        if unmoved:
            hopeful = hopeful_correlation(LOOK_SCORE + self.allowed - UNMOVED_BONUS, native)
            return np.greater_equal(agree, np.maximum(hopeful, UNMOVED_CORRELATION))
        return np.greater_equal(agree, hopeful_correlation(LOOK_SCORE + self.allowed, native))

    def _fit_and_score(
        self, fits: Fits, pictures: Pictures, template: Indices, other: Indices, steps: int
    ) -> tuple[Floats, Floats, Floats]:
        """Maps, scores and signed correlations."""
        points, weights = grid_points(FINE_GRID), window_weights(fits.window, FINE_GRID)
        templates = Templates.of(pictures.pixels[template], FINE_GRID, weights)
        maps = robust_fit(templates, pictures, other, fits.maps, fits.start, grid=FINE_GRID, steps=steps)
        values = pictures.at(points, other, maps, smooth=True)
        on_other = inside(points, maps)
        upright = np.tile(IDENTITY, (len(fits), 1, 1))
        counts = inside_boxes(points, upright, self.boxes[fits.template])
        counts &= inside_boxes(points, maps, self.boxes[fits.other]) & on_other & (weights > 0)
        native = self._native(fits)
        found = agreement(templates.contrast, values, counts, maps, native)
        area = np.abs(maps[:, 0, 0] * maps[:, 1, 1] - maps[:, 0, 1] * maps[:, 1, 0])
        possible = (area >= AREA_CHANGES[0]) & (area <= AREA_CHANGES[1])
        possible &= on_other.mean(axis=1) >= SMALLEST_COVER
        earned = found.score - self.allowed + (0 if steps else UNMOVED_BONUS)
        return maps, np.where(possible, earned, 0).astype(np.float32), found.correlation


def _agree(template: Floats, values: Floats, counts: NDArray[np.bool_]) -> Floats:
    """(m,) correlation of the gradients, whether inverted or not."""
    agree: Floats = np.abs(correlation(*gradient_products(template, values, counts)))
    return agree


def hopeful_correlation(score: float, native_share: Floats) -> Floats:
    """(m,) correlation from which the fine round can still reach the score, by experience."""
    most = (1 + INNER_WEIGHT) * ((FINE_GRID - 2) ** 2 * native_share) ** POINTS_POWER
    hopeful: Floats = np.tanh(score / most) - FITTING_GAIN
    return hopeful


# -- calibration -----------------------------------------------------------------------------------------
# How much any two pictures of a data set agree: the allowance that every score is reduced by.
# Two lungs, two digits or two boxes on white agree more than two holiday photos although they are different
# ones. Pairs drawn at random show how much; what goes beyond the usual is taken off every score.


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


def calibrated_verifier(
    pictures: Variants, run: Run, *, blurred: NDArray[np.uint8] | None = None
) -> Verifier:
    """A verifier whose scores are already reduced by the allowance of these pictures.

    `blurred` (n, 32, 32) is where it keeps blurred pictures, if not in memory.
    """
    verifier = Verifier(pictures, run, blurred=blurred)
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
    columns = (pictures.thumbnails, pictures.sizes, pictures.boxes)  # all that registering depends on
    key = hashlib.sha256(b"".join(column[drawn.ravel()].tobytes() for column in columns)).digest()
    if key not in _found:
        _found[key] = _registered(drawn, pictures, run)
    return _found[key]


def allowance(drawn: Drawn) -> float:
    """What to take off every score in this data set; 0 for ordinary photos and for few images."""
    beyond = [_quantile(drawn.fitted) - USUAL_FITTED, _quantile(drawn.unmoved) - USUAL_UNMOVED]
    return float(max(0.0, *beyond))


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
