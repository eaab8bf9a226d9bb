"""Searches against exhaustive ones, budgets against a naive loop."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from saccade.near_duplicates import describe_many
from saccade.near_duplicates.candidates import (
    BUDGETS,
    SURE_COSINE,
    Candidates,
    CandidateSearch,
    View,
    best_of_pairs,
    build_index,
    halves,
    inverted_lists,
    missed_share,
    reranked_index,
)
from saccade.near_duplicates.descriptors import symmetry_list
from saccade.near_duplicates.registration import starting_fits
from saccade.near_duplicates.views import all_views, fit_whitening, view_vectors

Pixels = NDArray[np.uint8]


def one_after_another(work, slices) -> None:
    for rows in slices:
        work(rows)


@pytest.fixture(scope="module")
def vectors(photos: list[Pixels]) -> NDArray[np.float16]:
    pictures = describe_many([*photos, *(photo[:, ::-1] for photo in photos[:10])]).thumbnails
    return view_vectors(pictures, all_views(symmetry_list(2)), fit_whitening(pictures), one_after_another)


def pairs_of(candidates, views: tuple[View, ...]) -> set[tuple[int, int, bool]]:
    rows = zip(candidates.like.tolist(), candidates.viewed.tolist(), candidates.view.tolist(), strict=True)
    return {(min(i, j), max(i, j), views[view].symmetry.mirrored) for i, j, view in rows}


def test_mirror_images_are_proposed_as_such(vectors: NDArray[np.float16]) -> None:
    views = all_views(symmetry_list(2))
    found = pairs_of(CandidateSearch(vectors, views).find("whole"), views)
    assert {(i, 40 + i, True) for i in range(10)} <= found
    assert all(i < j for i, j, _ in found)


def test_every_pair_is_proposed_once_for_each_symmetry(vectors: NDArray[np.float16]) -> None:
    views = all_views(symmetry_list(2))
    for kind in ("whole", "quadrant", "band"):
        candidates = CandidateSearch(vectors, views).find(kind)
        assert len(pairs_of(candidates, views)) == len(candidates)


def test_only_pairs_with_a_new_image_are_proposed(vectors: NDArray[np.float16]) -> None:
    views = all_views(symmetry_list(2))
    new = np.arange(vectors.shape[1]) >= 40
    found = pairs_of(CandidateSearch(vectors, views, new=new).find("whole"), views)
    assert {(i, 40 + i, True) for i in range(10)} <= found
    assert all(j >= 40 for _, j, _ in found)


def test_bands_of_large_sets_are_compared_among_near_wholes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Views drawn at random: bands of 1,000 images are near those of 1,000 others; of 900 the wholes, too."""
    rng, views = np.random.default_rng(0), all_views(symmetry_list(1))
    vectors = rng.standard_normal((len(views), 2000, 64))
    bands = [number for number, view in enumerate(views) if view.part in ("upper", "lower")]
    vectors[bands, 1000:] = vectors[bands, :1000] + 0.5 * rng.standard_normal((len(bands), 1000, 64))
    vectors[0, 1000:1900] = vectors[0, :900] + 0.9 * rng.standard_normal((900, 64))
    vectors /= np.linalg.norm(vectors, axis=2, keepdims=True)
    halves_ = vectors.astype(np.float16)
    everywhere = CandidateSearch(halves_, views).find("band")
    monkeypatch.setattr("saccade.near_duplicates.candidates.COMPRESSED_FROM", 1000)
    search = CandidateSearch(halves_, views)
    search.find("whole")
    among_near = search.find("band")

    def planted(found: Candidates) -> set[int]:
        low, high = np.minimum(found.like, found.viewed), np.maximum(found.like, found.viewed)
        return set(low[high == low + 1000].tolist())

    assert planted(everywhere) == set(range(1000))
    assert len(planted(among_near) & set(range(900))) >= 895
    assert len(planted(among_near) & set(range(900, 1000))) <= 20  # by chance among the 100 nearest
    assert (among_near.cosine >= BUDGETS["band"].floor).all()
    for row in range(0, len(among_near), 97):
        like, viewed, view = (column[row] for column in (among_near.like, among_near.viewed, among_near.view))
        product = halves_[view, like].astype(np.float32) @ halves_[view, viewed].astype(np.float32)
        assert among_near.cosine[row] == pytest.approx(product, abs=1e-5)


def test_new_and_old_images_meet_exactly_once() -> None:
    new = np.array([True, False, True, False, False])
    met = [(int(i), int(j)) for asked, among in halves(5, new) for i in asked for j in among]
    assert len(met) == len(set(met)) == 16  # all ordered pairs but those of two old images


@given(
    st.lists(
        st.tuples(st.integers(0, 5), st.integers(0, 5), st.integers(0, 1), st.integers(0, 99)), max_size=40
    ),
    st.integers(0, 10),
    st.integers(1, 3),
)
def test_the_best_of_each_pair_are_kept(
    rows: list[tuple[int, int, int, int]], allowed: int, each: int
) -> None:
    rows = [row for row in rows if row[0] != row[1]]
    like, viewed, symmetry, level = (
        (np.array(column, np.int64) for column in zip(*rows, strict=True))
        if rows
        else [np.zeros(0, np.int64)] * 4
    )
    cosine = (level / 100).astype(np.float32)
    kept = best_of_pairs(like, viewed, symmetry, cosine, 6, allowed, each=each).tolist()
    by_pair: dict[tuple[int, int, int], list[float]] = {}
    for i, j, turn, level_ in rows:
        by_pair.setdefault((min(i, j), max(i, j), turn), []).append(level_ / 100)
    best = [value for values in by_pair.values() for value in sorted(values, reverse=True)[:each]]
    sure = sum(value >= SURE_COSINE for value in best)
    assert len(kept) == len(set(kept)) == sure + min(allowed, len(best) - sure)
    expected = sorted(best, reverse=True)[: len(kept)]
    assert sorted((cosine[row] for row in kept), reverse=True) == pytest.approx(expected, abs=1e-6)


def random_units(count: int) -> NDArray[np.float16]:
    vectors = np.random.default_rng(0).standard_normal((count, 64)).astype(np.float32)
    vectors[-100:] = vectors[:100] + 0.4 * vectors[-100:]
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)


def test_what_an_index_misses_is_measured() -> None:
    vectors = random_units(8000)
    exact = build_index(vectors, compressed=False)
    assert missed_share(exact, vectors) == 0
    lists = inverted_lists(vectors)
    assert missed_share(lists, vectors) < 0.1
    lists.nprobe = 1
    assert missed_share(lists, vectors) > 0.1


def test_reranking_puts_what_compressed_codes_found_in_exact_order() -> None:
    rng = np.random.default_rng(3)
    centres = rng.normal(size=(1000, 64))
    vectors = np.repeat(centres, 24, axis=0) + 0.7 * rng.normal(size=(24_000, 64))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)
    assert missed_share(build_index(vectors, compressed=True), vectors) > 0.1
    assert missed_share(reranked_index(vectors), vectors) < 0.01


def test_views_start_where_they_look(vectors: NDArray[np.float16]) -> None:
    views = all_views(symmetry_list(2))
    starts = {(view.part, view.symmetry.mirrored): view.start for view in views}
    corner = np.array([-1, -1, 1], np.float32)
    assert starts["whole", False] @ corner == pytest.approx([-1, -1])
    assert starts["whole", True] @ corner == pytest.approx([1, -1])
    assert starts["top left", False] @ corner == pytest.approx([-1, -1], abs=1e-6)
    assert starts["top left", False] @ np.array([1, 1, 1]) == pytest.approx([0.8, 0.8], abs=1e-6)
    assert starts["bottom right", False] @ corner == pytest.approx([-0.8, -0.8], abs=1e-6)
    assert starts["top right", True] @ corner == pytest.approx([1, -1], abs=1e-6)
    fits = starting_fits(CandidateSearch(vectors, views).find("quadrant"), views)
    assert (np.diff(fits.template) >= 0).all()
