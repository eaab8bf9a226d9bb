"""`find_pairs`: which images show the same photo, found by search and verified by registration."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from saccade.data.similarity.candidates import find_candidates, no_candidates
from saccade.data.similarity.clusters import PairIndices
from saccade.data.similarity.descriptors import Descriptions, Floats, in_batches, symmetry_list
from saccade.data.similarity.relation import relation_words
from saccade.data.similarity.verify import Fits, Run, Verifier, starting_fits, the_other_way
from saccade.data.similarity.views import all_views, fit_whitening, view_vectors
from saccade.data.workers import available_cores
from saccade.errors import MissingExtraError
from saccade.records import Confidence
from saccade.terminal import Progress, silent

# What the bands mean, measured on photos of 32 and 128 pixels: docs/near-duplicates.md
CERTAIN_SCORE = 12.5
LIKELY_SCORE = 8.8
LOOK_SCORE = 7.0
BLANK_LEVELS = 1.5  # standard deviation of gray levels below which a picture has nothing to compare
SAME_SCORE = 100.0  # of pictures whose thumbnails are equal to the last bit


@dataclass(frozen=True)
class Verified:
    """Verified pairs as arrays (m,), before they are put into words; `other` was laid onto `template`."""

    fits: Fits
    correlation: Floats

    def __getitem__(self, rows: NDArray[np.intp]) -> Verified:
        return Verified(self.fits[rows], self.correlation[rows])


def find_pairs(
    descriptions: Descriptions,
    *,
    symmetries: int = 2,
    new: NDArray[np.bool_] | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
) -> list[PairIndices]:
    """Pairs of images that show the same photo: resized, recompressed, mirrored, cropped, recoloured, ...

    `symmetries` 2 knows mirror images, 8 also quarter turns, 1 neither. `new` (n,) restricts the search
    to pairs with at least one new image. Pairs come sorted by (first, second), each once; whatever lies below
    the band "look" is left out. Raises MissingExtraError without faiss.
    """
    need_faiss()
    rows, copies = representatives(descriptions)
    among = descriptions[rows]
    new_rows = None if new is None else new[rows]
    with running(workers) as run:
        found = _verified(among, symmetries, new_rows, run, progress or silent)
    pairs = in_words(among, found, rows)
    pairs += [PairIndices(i, j, "certain", SAME_SCORE, "the same picture") for i, j in copies]
    if new is not None:
        pairs = [pair for pair in pairs if new[pair.first] or new[pair.second]]
    return sorted(pairs, key=lambda pair: (pair.first, pair.second))


def band_of(score: float) -> Confidence:
    return "certain" if score >= CERTAIN_SCORE else "likely" if score >= LIKELY_SCORE else "look"


def need_faiss() -> None:
    try:
        import faiss  # noqa: F401
    except ImportError:
        raise MissingExtraError("faiss-cpu", "train", "the search for near-duplicates") from None


@contextmanager
def running(workers: int | None) -> Iterator[Run]:
    """A `run(work, slices)` that spreads slices over threads; the libraries underneath then use one each."""
    import faiss
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    threads = workers or available_cores()
    faiss.omp_set_num_threads(threads)
    with threadpool_limits(1, "blas"), ThreadPoolExecutor(threads) as pool:

        def run(work: Callable[[slice], None], slices: Sequence[slice]) -> None:
            for _ in pool.map(work, slices):
                pass

        yield run


def representatives(descriptions: Descriptions) -> tuple[NDArray[np.intp], list[tuple[int, int]]]:
    """Rows to search among, and (row, copy) where a thumbnail equals an earlier one; no blank ones."""
    textured = np.concatenate(
        [np.zeros(0, bool)]
        + [
            descriptions.thumbnails[rows].std(axis=(1, 2)) >= BLANK_LEVELS
            for rows in in_batches(len(descriptions), 1024)
        ]
    )
    first: dict[bytes, int] = {}
    copies = []
    for row in np.flatnonzero(textured).tolist():
        original = first.setdefault(descriptions.thumbnails[row].tobytes(), row)
        if original != row:
            copies.append((original, row))
    return np.array(sorted(first.values()), np.intp), copies


def _verified(
    among: Descriptions,
    symmetries: int,
    new: NDArray[np.bool_] | None,
    run: Run,
    progress: Progress,
) -> Verified:
    """The best registration of every pair that reaches the band "look"."""
    views = all_views(symmetry_list(symmetries))
    stages, total = ("whole", "quadrant", "band"), 8
    progress(0, total, "describing")
    vectors = view_vectors(among.thumbnails, views, fit_whitening(among.thumbnails), run)
    verifier = Verifier(among, run)
    found = Verified(starting_fits(no_candidates(), views), np.zeros(0, np.float32))
    for number, kind in enumerate(stages):
        progress(1 + 2 * number, total, f"searching ({kind})")
        candidates = find_candidates(vectors, views, kind, new=new) if len(among) > 1 else no_candidates()
        fits = _not_yet(starting_fits(candidates, views), found.fits, len(among))
        progress(2 + 2 * number, total, f"verifying {len(fits)} pairs ({kind})")
        fine, correlation = verify_both_ways(verifier, fits) if kind == "whole" else verifier.verify(fits)
        found = best_of_each(joined(found, Verified(fine, correlation)), len(among))
    progress(total, total, "done")
    return found


def verify_both_ways(verifier: Verifier, fits: Fits) -> tuple[Fits, Floats]:
    """Like `Verifier.verify`, each picture being the template once; the better way ends in the last round."""
    ways = [verifier.coarse(each) for each in (fits, the_other_way(fits))]
    both = _joined_fits(*ways)
    return verifier.fine(_best_rows(both, len(verifier.thumbnails)))


def _not_yet(fits: Fits, found: Fits, count: int) -> Fits:
    """Without the pairs that are already known to be at least likely."""
    known = _keys(found, count)[found.quality >= LIKELY_SCORE]
    return fits[~np.isin(_keys(fits, count), known)]


def _keys(fits: Fits, count: int) -> NDArray[np.int64]:
    low, high = np.minimum(fits.template, fits.other), np.maximum(fits.template, fits.other)
    keys: NDArray[np.int64] = low.astype(np.int64) * count + high
    return keys


def _joined_fits(first: Fits, second: Fits) -> Fits:
    return Fits(*(np.concatenate(columns) for columns in zip(first.columns, second.columns, strict=True)))


def joined(first: Verified, second: Verified) -> Verified:
    correlation = np.concatenate([first.correlation, second.correlation])
    return Verified(_joined_fits(first.fits, second.fits), correlation)


def _best_order(fits: Fits, count: int) -> NDArray[np.intp]:
    """Rows of the best fit of each pair, ordered by template."""
    keys = _keys(fits, count)
    order = np.lexsort((-fits.quality, keys))
    first = np.ones(len(order), bool)
    first[1:] = keys[order][1:] != keys[order][:-1]
    rows = order[first]
    return rows[np.argsort(fits.template[rows], kind="stable")]


def _best_rows(fits: Fits, count: int) -> Fits:
    return fits[_best_order(fits, count)]


def best_of_each(found: Verified, count: int) -> Verified:
    """Each pair once, by its highest score, if that reaches the band "look"."""
    rows = _best_order(found.fits, count)
    return found[rows[found.fits.quality[rows] >= LOOK_SCORE]]


def in_words(among: Descriptions, found: Verified, rows: NDArray[np.intp]) -> list[PairIndices]:
    """Verified pairs with their band and what differs; `rows` are the images' numbers outside."""
    fits = found.fits
    words = relation_words(among, fits, found.correlation)
    pairs = []
    for template, other, score, how in zip(
        rows[fits.template].tolist(), rows[fits.other].tolist(), fits.quality.tolist(), words, strict=True
    ):
        first, second = min(template, other), max(template, other)
        pairs.append(PairIndices(first, second, band_of(score), round(score, 2), how))
    return pairs
