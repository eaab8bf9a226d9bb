"""Edited copies are found, different pictures are not, and nothing depends on order or threads."""

from __future__ import annotations

import sys
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from saccade.errors import MissingExtraError
from saccade.near_duplicates import (
    CrossChecker,
    Descriptions,
    PairIndices,
    cross_check,
    describe_many,
    find_pairs,
)
from saccade.near_duplicates.verify import Verifier

Pixels = NDArray[np.uint8]
Edit = Callable[[Pixels, str], Pixels]

EDITS = {  # how each of them must be described, in part
    "smaller": "different size",
    "jpeg": "the same framing",
    "mirrored": "mirrored",
    "gray": "the same framing",
    "darker": "the same framing",
    "inverted": "inverted",
    "corner": "cropped to about 8",
    "mirrored corner": "mirrored, cropped to about 8",
    "rotated": "",
    "bordered": "border removed",
    "text bar": "",
}
COPIED = 6


@pytest.fixture(scope="module")
def pool(photos: list[Pixels], edited: Edit) -> Descriptions:
    """Forty photos, then six copies under each edit."""
    copies = [edited(photo, name) for name in EDITS for photo in photos[:COPIED]]
    return describe_many([*photos, *copies])


@pytest.fixture(scope="module")
def pairs(pool: Descriptions) -> list[PairIndices]:
    return find_pairs(pool, workers=1)


def original(image: int) -> int:
    return image if image < 40 else (image - 40) % COPIED


@pytest.mark.parametrize("name", EDITS)
def test_an_edited_copy_is_verified_with_its_original(name: str, pairs: list[PairIndices]) -> None:
    found = {(pair.first, pair.second): pair for pair in pairs}
    first = 40 + COPIED * list(EDITS).index(name)
    for photo in range(COPIED):
        pair = found[photo, first + photo]
        assert pair.band != "look"
        assert EDITS[name] in pair.how


def test_different_pictures_are_no_pairs(pairs: list[PairIndices]) -> None:
    assert len(pairs) > 200
    assert [pair for pair in pairs if original(pair.first) != original(pair.second)] == []


@pytest.mark.parametrize("name", EDITS)
def test_the_limits_of_large_data_sets_lose_hardly_a_copy(
    name: str, monkeypatch: pytest.MonkeyPatch, photos: list[Pixels], edited: Edit
) -> None:
    """The limits that hold from 20,000 images on, on 80 of 40 x 32 pixels and without patches."""
    small = [np.asarray(Image.fromarray(photo).resize((40, 32))) for photo in photos]
    copies = [Image.fromarray(edited(photo, name)) for photo in photos]
    many = describe_many([*small, *(np.asarray(copy.resize((40, 32))) for copy in copies)])
    monkeypatch.setattr("saccade.near_duplicates.verify.LARGE_FROM", 1)
    monkeypatch.setattr("saccade.near_duplicates.pairs.PATCH_IMAGES", 0)
    found = {(pair.first, pair.second) for pair in find_pairs(many, workers=1) if pair.band != "look"}
    assert len(found & {(photo, 40 + photo) for photo in range(40)}) >= 38
    assert all(second == 40 + first for first, second in found)


def test_pairs_are_sorted_and_each_named_once(pairs: list[PairIndices]) -> None:
    keys = [(pair.first, pair.second) for pair in pairs]
    assert keys == sorted(set(keys))
    assert all(first < second for first, second in keys)


def test_order_and_threads_change_nothing(pool: Descriptions, pairs: list[PairIndices]) -> None:
    order = np.random.default_rng(0).permutation(len(pool))
    shuffled = find_pairs(pool[order], workers=2)
    back = {tuple(sorted((int(order[p.first]), int(order[p.second])))): p.band for p in shuffled}
    straight = {(pair.first, pair.second): pair.band for pair in pairs}
    certain = {key for key, band in straight.items() if band == "certain"}
    assert certain <= back.keys()
    assert len(back.keys() ^ straight.keys()) <= 0.02 * len(straight)


def test_the_same_call_gives_the_same_pairs(pool: Descriptions, pairs: list[PairIndices]) -> None:
    assert find_pairs(pool, workers=2) == pairs


def test_only_pairs_with_new_images_are_searched_for(pool: Descriptions, pairs: list[PairIndices]) -> None:
    new = np.arange(len(pool)) >= len(pool) - COPIED  # the text bars
    found = find_pairs(pool, new=new, workers=1)
    assert found
    assert all(pair.second >= len(pool) - COPIED for pair in found)
    with_original = {(pair.first, pair.second) for pair in found} & {
        (photo, len(pool) - COPIED + photo) for photo in range(COPIED)
    }
    assert len(with_original) == COPIED


def test_equal_pictures_that_are_both_old_are_not_named_again(photos: list[Pixels]) -> None:
    described = describe_many([photos[0], photos[0], photos[1], photos[1]])
    pairs = find_pairs(described, new=np.array([False, False, False, True]))
    assert [(pair.first, pair.second) for pair in pairs] == [(2, 3)]


def test_equal_and_blank_pictures(photos: list[Pixels]) -> None:
    blank = [np.full((20, 20, 3), level, np.uint8) for level in (0, 0, 255)]
    pairs = find_pairs(describe_many([*blank, photos[0], photos[1], photos[0], photos[0]]))
    assert [(pair.first, pair.second, pair.band) for pair in pairs] == [(3, 5, "certain"), (3, 6, "certain")]
    assert {pair.how for pair in pairs} == {"the same picture"}


@pytest.mark.parametrize("count", [0, 1, 2])
def test_few_images_are_no_problem(count: int, photos: list[Pixels]) -> None:
    assert find_pairs(describe_many(photos[:count])) == []
    assert cross_check(describe_many(photos[:count]), ["train"] * count).verified == ()


def test_turned_pictures_are_found_when_asked_for(photos: list[Pixels]) -> None:
    turned = [
        np.ascontiguousarray(np.rot90(photo, turns))
        for photo, turns in zip(photos[:6], (1, 2, 3) * 2, strict=True)
    ]
    described = describe_many([*photos[:12], *turned])
    assert find_pairs(described, symmetries=2) == []
    found = find_pairs(described, symmetries=8)
    assert [(pair.first, pair.second) for pair in found] == [(i, 12 + i) for i in range(6)]
    assert all("turned by" in pair.how for pair in found)


def test_a_turned_hue_is_found_though_no_map_fits_better_by_it() -> None:
    """Channels that have nothing in common: what was light against dark is not so any more."""
    rng = np.random.default_rng(5)
    frequency = np.hypot(np.fft.fftfreq(96)[:, None], np.fft.rfftfreq(96))
    frequency[0, 0] = 1
    vivid = []
    for _ in range(24):
        spectrum = rng.normal(size=(3, *frequency.shape)) + 1j * rng.normal(size=(3, *frequency.shape))
        waves = np.fft.irfft2(spectrum / frequency**1.2, s=(96, 96))
        vivid.append(np.clip(128 + 45 * waves / waves.std(), 0, 255).transpose(1, 2, 0).astype(np.uint8))
    turned = []
    for photo in vivid[:6]:
        channels = np.array(Image.fromarray(photo).convert("HSV"))
        channels[..., 0] += 60
        turned.append(np.asarray(Image.frombytes("HSV", (96, 96), channels.tobytes()).convert("RGB")))
    pairs = find_pairs(describe_many([*vivid, *turned]))
    assert [(p.first, p.second) for p in pairs if p.band != "look"] == [(i, 24 + i) for i in range(6)]


def test_pictures_in_the_same_frame_are_no_copies(photos: list[Pixels]) -> None:
    framed = []
    for photo in photos[:30]:
        picture = np.full((128, 160, 3), 255, np.uint8)
        picture[20:-20, 25:-25] = photo[20:-20, 25:-25] // 2
        framed.append(picture)
    assert find_pairs(describe_many(framed)) == []


def test_photos_that_overlap_only_in_part_are_found(photos: list[Pixels]) -> None:
    left = [photo[:, :115] for photo in photos[:8]]
    right = [photo[:, 40:] for photo in photos[:8]]
    pairs = find_pairs(describe_many([*left, *right, *photos[8:]]))
    assert {(pair.first, pair.second) for pair in pairs if pair.band != "look"} == {
        (i, 8 + i) for i in range(8)
    }


def test_pictures_of_one_kind_are_not_taken_for_copies() -> None:
    """The same soft shape with other texture: alike by nature, yet no copies; real copies still are."""
    rng = np.random.default_rng(5)
    y, x = np.mgrid[0:96, 0:96] / 96
    shape = 120 * np.exp(-((x - 0.35) ** 2 / 0.02 + (y - 0.5) ** 2 / 0.1))
    shape += 120 * np.exp(-((x - 0.65) ** 2 / 0.02 + (y - 0.5) ** 2 / 0.1))
    images = []
    for _ in range(80):
        texture = Image.fromarray(rng.normal(0, 12, (12, 12)).astype(np.float32)).resize((96, 96))
        gray = np.clip(shape + np.asarray(texture) + rng.normal(0, 3, (96, 96)), 0, 255).astype(np.uint8)
        images.append(np.repeat(gray[..., None], 3, axis=2))
    copies = [np.asarray(Image.fromarray(image).resize((70, 70))) for image in images[:10]]
    pairs = find_pairs(describe_many([*images, *copies]))
    assert {(p.first, p.second) for p in pairs if p.band != "look"} == {(i, 80 + i) for i in range(10)}


def test_without_faiss_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, pool: Descriptions) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(
        MissingExtraError, match=r"(?s)near-duplicates needs the package 'faiss-cpu'.*saccade\[train\]"
    ):
        find_pairs(pool)


def test_progress_is_told_from_beginning_to_end(pool: Descriptions) -> None:
    told: list[tuple[int, int]] = []
    find_pairs(pool[:20], progress=lambda done, total, detail="": told.append((done, total)))
    assert told[0][0] == 0
    assert told[-1][0] == told[-1][1]
    assert [done for done, _ in told] == sorted(done for done, _ in told)


# --- the second search ------------------------------------------------------------------------------------


def test_copies_across_parts_are_found_by_other_means(photos: list[Pixels], edited: Edit) -> None:
    names = ["jpeg", "mirrored", "darker", "bordered"]
    copies = [edited(photos[i], name) for i, name in enumerate(names)]
    parts = ["train"] * 40 + ["test", "validation", "train", "test"]
    check = cross_check(describe_many([*photos, *copies]), parts)
    assert [(pair.first, pair.second) for pair in check.verified] == [(0, 40), (1, 41), (3, 43)]
    assert check.unresolved == ()
    assert check.compared > 0
    assert "cosine transform" in check.descriptor


def test_what_is_known_or_in_no_part_is_not_named(photos: list[Pixels], edited: Edit) -> None:
    described = describe_many([*photos[:10], *(edited(photos[i], "jpeg") for i in range(3))])
    parts = ["train"] * 10 + ["test", "test", ""]
    assert [p.second for p in cross_check(described, parts).verified] == [10, 11]
    assert [p.second for p in cross_check(described, parts, ignored=[(0, 10)]).verified] == [11]


def test_equal_pictures_across_parts_are_named(photos: list[Pixels]) -> None:
    check = cross_check(describe_many([photos[0], photos[0]]), ["train", "test"])
    assert [(pair.first, pair.second, pair.band) for pair in check.verified] == [(0, 1, "certain")]


def test_every_copy_counts_in_its_own_part(photos: list[Pixels], edited: Edit) -> None:
    described = describe_many([photos[0], photos[0], edited(photos[0], "jpeg"), photos[1]])
    check = cross_check(described, ["train", "test", "train", "train"])
    assert [(pair.first, pair.second) for pair in check.verified] == [(0, 1), (1, 2)]


MOVED = [  # parts of 43 pictures, of which the last three are copies of the first three
    ["train"] * 40 + ["test", "test", "train"],
    ["train"] * 39 + ["", "train", "test", "test"],
    ["test"] + ["train"] * 39 + ["", "test", "validation"],
]


@pytest.mark.parametrize("large_from", [1, 20_000])
def test_a_split_made_again_is_checked_as_if_it_were_the_first(
    large_from: int, monkeypatch: pytest.MonkeyPatch, photos: list[Pixels], edited: Edit
) -> None:
    monkeypatch.setattr("saccade.near_duplicates.verify.LARGE_FROM", large_from)
    described = describe_many([*photos, *(edited(photos[i], "jpeg") for i in range(3))])
    checker = CrossChecker(described)
    for parts in MOVED:
        again, anew = checker(parts), cross_check(described, parts)
        assert {(p.first, p.second) for p in again.verified} == {(p.first, p.second) for p in anew.verified}
        assert all(
            parts[p.first] and parts[p.second] and parts[p.first] != parts[p.second] for p in again.verified
        )
        assert again.verified
    assert {(p.first, p.second) for p in checker(MOVED[0]).verified} == {(0, 40), (1, 41)}


def test_a_pair_of_a_large_set_is_registered_once(
    monkeypatch: pytest.MonkeyPatch, photos: list[Pixels], edited: Edit
) -> None:
    monkeypatch.setattr("saccade.near_duplicates.verify.LARGE_FROM", 1)
    checker = CrossChecker(describe_many([*photos, *(edited(photos[i], "jpeg") for i in range(3))]))
    registered = []
    verify = Verifier.verify
    monkeypatch.setattr(
        Verifier, "verify", lambda self, fits: registered.append(len(fits)) or verify(self, fits)
    )
    for parts in (MOVED[0], MOVED[0], MOVED[1]):
        checker(parts)
    assert registered[0] > 0
    assert registered[1] == 0
    assert registered[2] > 0


def test_many_pictures_are_checked_through_codes(
    monkeypatch: pytest.MonkeyPatch, photos: list[Pixels], edited: Edit
) -> None:
    copies = [edited(photo, "mirrored" if i % 2 else "jpeg") for i, photo in enumerate(photos)]
    described, parts = describe_many([*photos, *copies]), ["train"] * 40 + ["test"] * 40
    exactly = cross_check(described, parts)
    monkeypatch.setattr(sys.modules["saccade.near_duplicates.cross_check"], "COMPRESSED_FROM", 40)
    assert cross_check(described, parts).verified == exactly.verified
    assert [(pair.first, pair.second) for pair in exactly.verified] == [(i, 40 + i) for i in range(40)]
