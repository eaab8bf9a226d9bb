"""Pictures of more images than fit in memory: what is compared, on disk, and copies planted among them."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from saccade.near_duplicates.descriptors import (
    SMALLEST_BORDER,
    THUMBNAIL_SIDE,
    WHOLE_BOX,
    Descriptions,
    Variants,
    in_batches,
    variants,
)
from saccade.near_duplicates.stored import Chosen, chosen_rows, let_go, stored_array

BLANK_LEVELS = 1.5  # standard deviation of gray levels below which a picture has nothing to compare
PLANTED = 1000  # copies at most, one in PLANTED_EVERY images at most
PLANTED_EVERY = 10
READ_AT_ONCE = 16_384  # pictures


class Pictures(NamedTuple):
    """What is compared, on disk; image n + i is a copy of image `originals[i]`, planted to be found."""

    among: Variants
    originals: NDArray[np.int64]
    equal: NDArray[np.int64]  # (pairs, 2): images with equal thumbnails


def stored_pictures(descriptions: Descriptions, *, planting: bool = True) -> Pictures:
    """What is not blank, as it is and without its border.

    With `planting` only the first of equal ones, and planted copies: what a search for copies begins with.
    """
    count = len(descriptions)
    bordered = descriptions.borders.max(axis=1, initial=0) >= SMALLEST_BORDER
    originals = np.flatnonzero(~bordered)
    originals = originals[:: max(PLANTED_EVERY, -(-len(originals) // PLANTED))][: PLANTED if planting else 0]
    made = stored_array((int(bordered.sum()) + len(originals), THUMBNAIL_SIDE, THUMBNAIL_SIDE), np.uint8)
    wholes, insides, done = [], [], 0
    for batch in in_batches(count, READ_AT_ONCE):
        whole, inside = variants(descriptions[batch])
        wholes.append(_without_thumbnails(whole, batch.start))
        insides.append(_without_thumbnails(inside, batch.start))
        made[done : done + len(inside)] = inside.thumbnails
        done += len(inside)
        let_go(descriptions.thumbnails, made)
    made[done:] = planted(chosen_rows([descriptions.thumbnails], originals)[:])
    several = [*wholes, *insides, _planted_columns(descriptions, originals)]
    digests = np.concatenate([digest for digest, _ in several])
    names = ("sizes", "image", "trimmed", "boxes")
    columns = [np.concatenate([getattr(some, name) for _, some in several]) for name in names]
    stored = chosen_rows([descriptions.thumbnails, made], np.arange(count + len(made)))
    kept, equal = _first_of_equal(digests, columns[1] if planting else 0 * columns[1])
    return Pictures(picked(Variants(stored, *columns), kept), originals, equal)


def _without_thumbnails(pictures: Variants, first: int) -> tuple[NDArray[np.uint64], Variants]:
    """Hashes of the thumbnails, and all else; `first` is the number of the first image."""
    image, nothing = pictures.image + first, pictures.thumbnails[:0]
    return _digests(pictures.thumbnails), replace(pictures, thumbnails=nothing, image=image)


def _planted_columns(
    descriptions: Descriptions, originals: NDArray[np.int64]
) -> tuple[NDArray[np.uint64], Variants]:
    """Like `_without_thumbnails`; hashes that are no others, for each copy is compared."""
    count, image = len(originals), len(descriptions) + np.arange(len(originals))
    boxes, nothing = np.tile(WHOLE_BOX, (count, 1)), descriptions.thumbnails[:0]
    digests = np.stack([np.zeros(count, np.uint64), 1 + np.arange(count, dtype=np.uint64)], axis=1)
    return digests, Variants(nothing, descriptions.sizes[originals], image, np.zeros(count, bool), boxes)


def textured(thumbnails: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """(m,) which are not blank."""
    rows = np.zeros(len(thumbnails), bool)
    for some in in_batches(len(thumbnails), 256):
        levels = thumbnails[some].reshape(-1, THUMBNAIL_SIDE**2).astype(np.float32)
        levels -= levels.mean(axis=1, keepdims=True)
        energy = np.einsum("np,np->n", levels, levels)  # in half the time of std
        rows[some] = energy >= BLANK_LEVELS**2 * THUMBNAIL_SIDE**2
    return rows


def _digests(thumbnails: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """(m, 2) a hash of each thumbnail; 0 where it is blank."""
    digests = np.zeros((len(thumbnails), 2), np.uint64)
    for row in np.flatnonzero(textured(thumbnails)).tolist():
        digest = hashlib.blake2b(thumbnails[row].tobytes(), digest_size=16).digest()
        digests[row] = np.frombuffer(digest, np.uint64)
    return digests


def _first_of_equal(
    digests: NDArray[np.uint64], image: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows that are not blank and equal no earlier one of another image; images of the others with theirs."""
    order = np.lexsort((digests[:, 1], digests[:, 0]))  # stable: the first of equal ones comes first
    new = np.ones(len(order), bool)
    new[1:] = (digests[order][1:] != digests[order][:-1]).any(axis=1)
    first = np.empty(len(order), np.int64)
    first[order] = order[np.maximum.accumulate(np.where(new, np.arange(len(order)), 0))]
    seen = digests.any(axis=1)
    other = seen & (image[first] != image[: len(first)])
    equal = np.sort(np.stack([image[first], image[: len(first)]], axis=1)[other], axis=1)
    return np.flatnonzero(seen & ~other), equal


def planted(thumbnails: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(n, 64, 64) edited copies: cropped to 85 to 95 %, mirrored, blurred, darker, with noise, in turn."""
    rng, copies = np.random.default_rng(0), np.empty_like(thumbnails)
    side = THUMBNAIL_SIDE
    for row, thumbnail in enumerate(thumbnails):
        image = Image.fromarray(thumbnail)
        kept = side * (1.0, 0.95, 0.9, 0.85)[row % 4]
        left, top = rng.uniform(0, side - kept, 2)
        box = (left, top, left + kept, top + kept)
        image = image.resize((side, side), Image.Resampling.BILINEAR, box=box)
        if row % 5 == 0:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        if row % 3 == 0:
            image = image.filter(ImageFilter.GaussianBlur(0.8))
        levels = np.asarray(image) / 255
        if row % 3 == 1:
            levels = levels**1.5
        if row % 3 == 2:
            levels = levels + rng.normal(0, 6 / 255, levels.shape)
        copies[row] = np.clip(np.rint(255 * levels), 0, 255)
    return copies


def picked(pictures: Variants, rows: NDArray[np.integer[Any]]) -> Variants:
    """Some of the pictures, their thumbnails left on disk."""
    stored = cast(Chosen, pictures.thumbnails)
    return Variants(
        chosen_rows(stored.parts, stored.rows[rows]),
        *(column[rows] for column in (pictures.sizes, pictures.image, pictures.trimmed, pictures.boxes)),
    )
