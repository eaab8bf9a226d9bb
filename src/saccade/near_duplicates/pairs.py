"""Near-duplicate pairs: search, verification by registration, clusters, and how two images differ."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from saccade.errors import MissingExtraError
from saccade.near_duplicates.buckets import InBatches, StoredSearch, planted_fits, stored_verifier
from saccade.near_duplicates.candidates import (
    EXACT_IMAGES,
    CandidateSearch,
    View,
    inverted_lists,
    missed_share,
    no_candidates,
)
from saccade.near_duplicates.descriptors import (
    Descriptions,
    Floats,
    Variants,
    symmetry_list,
    variants,
)
from saccade.near_duplicates.registration import (
    Fits,
    Run,
    best_order,
    joined_fits,
    pair_keys,
    starting_fits,
)
from saccade.near_duplicates.relation import relation_words
from saccade.near_duplicates.scene import find_scenes, pairs_beyond
from saccade.near_duplicates.stored import fit_in_memory
from saccade.near_duplicates.stored_pictures import stored_pictures, textured
from saccade.near_duplicates.verify import (
    CERTAIN_SCORE,
    LIKELY_SCORE,
    LOOK_SCORE,
    Verifier,
    calibrated_verifier,
)
from saccade.near_duplicates.views import PATCH_IMAGES, all_views, fit_whitening, patch_fits, view_vectors
from saccade.records import Confidence
from saccade.terminal import Progress, silent
from saccade.threads import available_cores

SEARCHING_VERSION = 2  # rises with every change of which pairs `search_pairs` finds, or how they are told
STAGES = ("whole", "quadrant", "band")
SAME_SCORE = 100.0  # of pictures whose thumbnails are equal to the last bit


@dataclass(frozen=True)
class Verified:
    """Verified pairs as arrays (m,), before they are put into words; `other` was laid onto `template`."""

    fits: Fits
    correlation: Floats

    def __getitem__(self, rows: NDArray[np.intp]) -> Verified:
        return Verified(self.fits[rows], self.correlation[rows])


class Planted(NamedTuple):
    """Copies that were planted and can be verified, and how many of them the search found."""

    copies: int
    found: int


class PairSearch(NamedTuple):
    """The pairs, and `same_scene`: how many images show a scene that many share (a fixed camera, a form).

    `planted`: where the search was not exhaustive, of how many planted copies how many were found.
    """

    pairs: list[PairIndices]
    same_scene: int = 0
    planted: Planted | None = None


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
    found = search_pairs(descriptions, symmetries=symmetries, new=new, workers=workers, progress=progress)
    if new is None:
        return found.pairs
    return [pair for pair in found.pairs if new[pair.first] or new[pair.second]]


def search_pairs(
    descriptions: Descriptions,
    *,
    symmetries: int = 2,
    new: NDArray[np.bool_] | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
) -> PairSearch:
    """`find_pairs`, and how many images show the same scene.

    Two of these are a pair by what they show beyond the scene. As that depends on all of them, `new` has no
    effect where there is a scene: all pairs are searched for. Pictures of more images than fit in memory lie
    on disk; no scenes are looked for, and `planted` is measured. Raises DataError where the disk is full.
    """
    need_faiss()
    if not fit_in_memory(len(descriptions)):
        with running(workers) as run:
            return _search_stored(descriptions, symmetries, new, run, progress or silent)
    among, copies = pictures_to_compare(descriptions, equal_once=True)
    if len(among) < 2:
        return PairSearch(unique_pairs(copies))
    with running(workers) as run:
        scenes = find_scenes(among, run, symmetries=symmetries)
        alone = among[scenes.alone] if scenes.laid else among
        new_rows = None if new is None or scenes.laid else new[alone.image]
        found = in_words(alone, _verified(alone, symmetries, new_rows, run, progress or silent))
        if scenes.laid:
            found += in_words(among, best_of_each(Verified(*pairs_beyond(scenes, run)), among.image))
    pairs = unique_pairs(found + copies)
    if new is not None and not scenes.laid:
        pairs = [pair for pair in pairs if new[pair.first] or new[pair.second]]
    return PairSearch(pairs, scenes.images)


def unique_pairs(pairs: Iterable[PairIndices]) -> list[PairIndices]:
    """Sorted by (first, second), each once, by its best score."""
    best: dict[tuple[int, int], PairIndices] = {}
    for pair in pairs:
        key = (pair.first, pair.second)
        if key not in best or pair.score > best[key].score:
            best[key] = pair
    return [best[key] for key in sorted(best)]


def band_of(score: float) -> Confidence:
    return "certain" if score >= CERTAIN_SCORE else "likely" if score >= LIKELY_SCORE else "look"


def need_faiss() -> None:
    try:
        import faiss  # noqa: F401
    except ImportError:
        raise MissingExtraError("faiss-cpu", "train", "the search for near-duplicates") from None


@contextmanager
def running(workers: int | None) -> Iterator[Run]:
    """A `run(work, slices)` that spreads slices over threads, each with one thread for linear algebra.

    Between such runs faiss and linear algebra may use as many threads.
    """
    import faiss
    from threadpoolctl import threadpool_info, threadpool_limits  # type: ignore[import-untyped]

    threads = workers or available_cores()
    before = faiss.omp_get_max_threads()
    blas = [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]
    most = min([threads, *blas])  # never more than were there: who asked for one thread keeps to it

    def run(work: Callable[[slice], None], slices: Sequence[slice]) -> None:
        with threadpool_limits(1, "blas"):
            for _ in pool.map(work, slices):
                pass
        faiss.omp_set_num_threads(threads)  # shares its threads with a BLAS that was just limited

    try:
        with threadpool_limits(most, "blas"), ThreadPoolExecutor(threads) as pool:
            faiss.omp_set_num_threads(threads)
            yield run
    finally:
        faiss.omp_set_num_threads(before)


def pictures_to_compare(
    descriptions: Descriptions, *, equal_once: bool
) -> tuple[Variants, list[PairIndices]]:
    """What is not blank, as it is and without its border; and the pairs that equal thumbnails make.

    With `equal_once` only the first of equal thumbnails is compared with others.
    """
    first: dict[bytes, int] = {}
    copies: list[PairIndices] = []
    chosen = []
    for pictures in variants(descriptions):
        rows = textured(pictures.thumbnails)
        for row in np.flatnonzero(rows).tolist() if equal_once else ():
            image = int(pictures.image[row])
            original = first.setdefault(pictures.thumbnails[row].tobytes(), image)
            if original != image:
                low, high = min(original, image), max(original, image)
                copies.append(PairIndices(low, high, "certain", SAME_SCORE, "the same picture"))
                rows[row] = False
        chosen.append((pictures, rows))
    return Variants.chosen(chosen), copies


def _verified(
    among: Variants,
    symmetries: int,
    new: NDArray[np.bool_] | None,
    run: Run,
    progress: Progress,
) -> Verified:
    """The best registration of every pair that reaches the band "look"."""
    views = all_views(symmetry_list(symmetries))
    total, found = 8, _nothing(views)
    if len(among) < 2:
        progress(total, total, "done")
        return found
    progress(0, total, "describing")
    vectors = view_vectors(among.thumbnails, views, fit_whitening(among.thumbnails), run)
    verifier = calibrated_verifier(among, run)
    if len(among) > EXACT_IMAGES:
        missed = missed_share(inverted_lists(vectors[0]), vectors[0])
        progress(0, total, f"the index misses about {missed:.1%} of near neighbours (1,000 exact searches)")
    candidate_search = CandidateSearch(vectors, views, new=new)
    for number, kind in enumerate(STAGES):
        progress(1 + 2 * number, total, f"searching ({kind})")
        candidates = candidate_search.find(kind)
        fits = _not_yet(starting_fits(candidates, views), found.fits, among.image)
        progress(2 + 2 * number, total, f"verifying {len(fits)} pairs ({kind})")
        found = _with_verified(verifier, kind, fits, found, among.image)
    if len(among) <= PATCH_IMAGES:
        progress(7, total, "searching and verifying (patches)")
        fits = patch_fits(among.thumbnails, symmetry_list(symmetries), new=new, run=run)
        patched = verifier.verify_started(_not_yet(fits, found.fits, among.image))
        found = best_of_each(joined(found, Verified(*patched)), among.image)
    progress(total, total, "done")
    return found


def _nothing(views: Sequence[View]) -> Verified:
    return Verified(starting_fits(no_candidates(), views), np.zeros(0, np.float32))


def _with_verified(
    verifier: Verifier | InBatches, kind: str, fits: Fits, found: Verified, image: NDArray[np.int64]
) -> Verified:
    """What was found so far, with what is verified of these fits of one kind."""
    fitted = verifier.verify_both_ways(fits) if kind == "whole" else verifier.verify(fits)
    found = best_of_each(joined(found, Verified(*fitted)), image)
    if kind != "quadrant":
        unmoved = verifier.verify_unmoved(_not_yet(fits, found.fits, image))
        found = best_of_each(joined(found, Verified(*unmoved)), image)
    return found


def _search_stored(
    descriptions: Descriptions,
    symmetries: int,
    new: NDArray[np.bool_] | None,
    run: Run,
    progress: Progress,
) -> PairSearch:
    """`search_pairs` with everything on disk but some dozen bytes an image, and the pairs themselves."""
    total = 9
    progress(0, total, "reading")
    pictures, originals, equal = stored_pictures(descriptions)
    copies = [PairIndices(a, b, "certain", SAME_SCORE, "the same picture") for a, b in equal.tolist()]
    images = len(descriptions)
    if len(pictures) < 2:
        return PairSearch(unique_pairs(copies))
    asking = None if new is None else np.append(new, np.ones(len(originals), bool))
    progress(1, total, "describing")
    search = StoredSearch(pictures, symmetries, run, new=asking)
    del pictures  # the search has them in another order
    among, verifier = search.among, stored_verifier(search.among, run)
    found: defaultdict[int, Verified] = defaultdict(lambda: _nothing(search.views))
    for number, kind in enumerate(STAGES):
        progress(2 + 2 * number, total, f"searching ({kind})")
        selected = search.find(kind)
        progress(3 + 2 * number, total, f"verifying about {selected.pairs} pairs ({kind})")
        for part, candidates in enumerate(selected):
            fits = _not_yet(starting_fits(candidates, search.views), found[part].fits, among.image)
            found[part] = _with_verified(verifier, kind, fits, found[part], among.image)
    pairs = unique_pairs([*copies, *(pair for part in found.values() for pair in in_words(among, part))])
    progress(8, total, "looking for what was planted")
    true = planted_fits(search, images, originals)
    shown = _with_verified(verifier, "whole", true, _nothing(search.views), among.image)
    wanted = {(pair.first, pair.second) for pair in in_words(among, shown) if pair.band != "look"}
    known = {(pair.first, pair.second) for pair in pairs if pair.band != "look"}
    progress(total, total, "done")
    pairs = [pair for pair in pairs if pair.second < images]
    if new is not None:
        pairs = [pair for pair in pairs if new[pair.first] or new[pair.second]]
    return PairSearch(pairs, planted=Planted(len(wanted), len(wanted & known)))


def _not_yet(fits: Fits, found: Fits, image: NDArray[np.int64]) -> Fits:
    """Without the pairs that are known to be likely at least, and those of an image with itself."""
    known = pair_keys(found, image)[found.quality >= LIKELY_SCORE]
    other = image[fits.template] != image[fits.other]
    return fits[other & ~np.isin(pair_keys(fits, image), known)]


def joined(first: Verified, second: Verified) -> Verified:
    correlation = np.concatenate([first.correlation, second.correlation])
    return Verified(joined_fits(first.fits, second.fits), correlation)


def best_of_each(found: Verified, image: NDArray[np.int64]) -> Verified:
    """Each pair of images once, by its highest score, if that reaches the band "look"."""
    rows = best_order(found.fits, image)
    return found[rows[found.fits.quality[rows] >= LOOK_SCORE]]


def in_words(among: Variants, found: Verified) -> list[PairIndices]:
    """Verified pairs of images, with their band and what differs."""
    fits = found.fits
    words = relation_words(among, fits, found.correlation)
    images = np.sort(np.stack([among.image[fits.template], among.image[fits.other]], axis=1), axis=1)
    return [
        PairIndices(first, second, band_of(score), round(score, 2), how)
        for (first, second), score, how in zip(images.tolist(), fits.quality.tolist(), words, strict=True)
    ]


# -- clusters --------------------------------------------------------------------------------------------
# Groups of near-duplicates, with a guard against chains of weak links.


LARGEST_SHARE = 0.01  # of the images, above which a cluster is suspected to be a chain
LARGEST_LEAST = 50  # images that a cluster may always have


@dataclass(frozen=True, slots=True)
class PairIndices:
    """Images `first` < `second` show the same thing: band, score, and a text about what differs."""

    first: int
    second: int
    band: Confidence
    score: float
    how: str = ""


class Clusters(NamedTuple):
    """`labels` (n,): equal numbers belong together. `broken`: links that the guard did not follow."""

    labels: NDArray[np.int64]
    notes: tuple[str, ...]
    broken: tuple[PairIndices, ...]


def cluster(
    count: int,
    pairs: Iterable[PairIndices],
    *,
    largest_share: float = LARGEST_SHARE,
    largest_least: int = LARGEST_LEAST,
) -> Clusters:
    """Which of `count` images belong together, by verified pairs; weak links of chains are left out.

    Only pairs called certain or likely join. Where following every link would make a cluster of more than
    `largest_share` of the images (but at least `largest_least`), the strongest links are followed first and
    a likely link that would pass the limit is left out; certain links always hold, and a note says so.

    >>> links = [PairIndices(0, 2, "certain", 20.0), PairIndices(1, 2, "look", 8.5)]
    >>> cluster(4, links).labels.tolist()
    [0, 1, 0, 2]
    """
    links = sorted(
        (pair for pair in pairs if pair.band != "look"),
        key=lambda pair: (-pair.score, pair.first, pair.second),
    )
    limit = max(largest_least, int(largest_share * count))
    free = Forest(count)
    for link in links:
        free.join(link.first, link.second)
    too_large = {root for root in range(count) if free.parent[root] == root and free.size[root] > limit}
    if not too_large:
        return Clusters(free.labels(), (), ())
    return _guarded(count, links, free, too_large, limit)


def _guarded(
    count: int, links: Sequence[PairIndices], free: Forest, too_large: set[int], limit: int
) -> Clusters:
    forest = Forest(count)
    for link in links:
        if link.band == "certain" or free.root(link.first) not in too_large:
            forest.join(link.first, link.second)
    for link in links:  # strongest first
        if forest.size[forest.root(link.first)] + forest.size[forest.root(link.second)] <= limit:
            forest.join(link.first, link.second)
    broken = tuple(link for link in links if forest.root(link.first) != forest.root(link.second))
    notes = tuple(_note(root, free, forest, broken, limit) for root in sorted(too_large))
    return Clusters(forest.labels(), notes, broken)


def _note(root: int, free: Forest, forest: Forest, broken: Sequence[PairIndices], limit: int) -> str:
    members = [i for i in range(len(free.parent)) if free.root(i) == root]
    sizes = sorted((forest.size[r] for r in {forest.root(i) for i in members}), reverse=True)
    cut = sum(free.root(link.first) == root for link in broken)
    what = f"a chain of {len(members)} images that look alike is more than {limit} images"
    if not cut:
        return f"{what}; all its links are certain, so it stays together"
    return f"{what}; {cut} of its weakest links were not followed, its largest part has {sizes[0]} images"


class Forest:
    """Union-find over 0..n-1, by size and with path halving (Tarjan and van Leeuwen, 1984).

    >>> forest = Forest(4)
    >>> forest.join(1, 3)
    >>> forest.sets()
    [[0], [1, 3], [2]]
    """

    def __init__(self, count: int) -> None:
        self.parent = list(range(count))
        self.size = [1] * count

    def root(self, item: int) -> int:
        parent = self.parent
        while parent[item] != item:
            parent[item] = parent[parent[item]]
            item = parent[item]
        return item

    def join(self, first: int, second: int) -> None:
        first, second = self.root(first), self.root(second)
        if first == second:
            return
        if self.size[first] < self.size[second]:
            first, second = second, first
        self.parent[second] = first
        self.size[first] += self.size[second]

    def sets(self) -> list[list[int]]:
        """Items that belong together, in ascending order; the sets by their first item."""
        members: dict[int, list[int]] = {}
        for item in range(len(self.parent)):
            members.setdefault(self.root(item), []).append(item)
        return list(members.values())

    def labels(self) -> NDArray[np.int64]:
        """(n,) the number of each item's set."""
        labels = np.empty(len(self.parent), np.int64)
        for number, members in enumerate(self.sets()):
            labels[members] = number
        return labels
