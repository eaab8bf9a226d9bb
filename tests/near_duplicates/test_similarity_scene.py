"""Sets of which every picture shows the same scene: copies are found, different things are not joined."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageEnhance, ImageOps

from saccade.near_duplicates import (
    Descriptions,
    PairIndices,
    PairSearch,
    cluster,
    cross_check,
    describe_many,
    find_pairs,
    search_pairs,
)

SIDE = 160
Pixels = NDArray[np.uint8]
Levels = NDArray[np.float64]
Shoot = Callable[[int], Pixels]


def jpeg(image: Image.Image, quality: int) -> Image.Image:
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=quality)
    return Image.open(stream).convert("RGB")


def station(seed: int, *, things: int = 40) -> Levels:
    """What the camera always sees: boxes and lines."""
    rng = np.random.default_rng([1, seed])
    image = Image.new("RGB", (SIDE, SIDE), (90, 95, 100))
    draw = ImageDraw.Draw(image)
    for _ in range(things):
        x, y = rng.integers(0, SIDE, 2)
        width, height = rng.integers(4, SIDE // 5, 2)
        colour = tuple(rng.integers(30, 230, 3).tolist())
        draw.rectangle((x, y, x + width, y + height), fill=colour)
        draw.line(rng.integers(0, SIDE, 4).tolist(), fill=colour[::-1], width=2)
    return np.asarray(image, float)


def waves(seed: int, *, fall: float) -> Levels:
    """(side, side, 1) texture of mean 0 and deviation 1 whose amplitudes fall with the frequency."""
    rng = np.random.default_rng([2, seed])
    frequency = np.hypot(np.fft.fftfreq(SIDE)[:, None], np.fft.rfftfreq(SIDE))
    frequency[0, 0] = 1
    spectrum = rng.normal(size=frequency.shape) + 1j * rng.normal(size=frequency.shape)
    texture = np.fft.irfft2(spectrum / frequency**fall, s=(SIDE, SIDE))
    return ((texture - texture.mean()) / texture.std())[..., None]


def shot(
    levels: Levels, seed: int, *, move: int = 2, turn: float = 0.5, noise: float = 4, light: float = 0.12
) -> Pixels:
    """One exposure: slightly moved and turned, under its own light, with its own noise, as JPEG."""
    rng = np.random.default_rng([3, seed])
    image = Image.fromarray(np.clip(levels, 0, 255).astype(np.uint8))
    by = tuple(rng.integers(-move, move + 1, 2).tolist())
    turned = image.rotate(
        rng.normal(0, turn), Image.Resampling.BICUBIC, translate=by, fillcolor=(90, 95, 100)
    )
    lit = np.asarray(turned, float) * rng.uniform(0.88, 1.12) + rng.uniform(-8, 8)
    exposed = np.clip(lit + rng.normal(0, noise, lit.shape), 0, 255).astype(np.uint8)
    return np.asarray(jpeg(Image.fromarray(exposed), 90))


def scratched(levels: Levels, seed: int) -> Levels:
    """Every other part has a scratch of its own."""
    if seed % 2:
        return levels
    rng = np.random.default_rng([4, seed])
    image = Image.fromarray(levels.astype(np.uint8))
    points = rng.integers(20, SIDE - 20, 2) + rng.normal(0, 8, (6, 2))
    dark = (230, 40, 40) if rng.random() < 0.5 else (10, 10, 10)
    ImageDraw.Draw(image).line([tuple(point) for point in points.tolist()], fill=dark, width=3)
    return np.asarray(image, float)


def animal(levels: Levels, seed: int) -> Levels:
    """Two of three shots have a visitor somewhere."""
    if seed % 3 == 0:
        return levels
    rng = np.random.default_rng([5, seed])
    image = Image.fromarray(np.clip(levels, 0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    x, y = rng.uniform(30, SIDE - 30, 2)
    size = rng.uniform(8, 22)
    colour = tuple(rng.integers(20, 220, 3).tolist())
    draw.ellipse((x - size, y - size * 0.6, x + size, y + size * 0.6), fill=colour)
    for leg in (-0.6, 0.3, 0.7):
        draw.rectangle((x + leg * size, y, x + leg * size + 3, y + size * 1.3), fill=colour)
    return np.asarray(image, float)


def shaded(levels: Levels, seed: int) -> Levels:
    """Light from another side each time."""
    y, x = np.mgrid[-1 : 1 : SIDE * 1j, -1 : 1 : SIDE * 1j]
    angle = np.random.default_rng([6, seed]).uniform(0, 2 * np.pi)
    return levels * (1 + 0.12 * (np.cos(angle) * x + np.sin(angle) * y))[..., None]


def grained(levels: Levels, seed: int) -> Levels:
    """A surface of its own for each part, as wood and brushed metal have it."""
    return levels + 7 * waves(seed, fall=0.5)


def outdoors(seed: int) -> Levels:
    return 128 + 45 * waves(900 + seed, fall=1.2) * np.array([1.0, 0.9, 0.8])


CAMERAS: dict[str, Shoot] = {
    "scratches": lambda i: shot(scratched(station(0), i), i),
    "surfaces": lambda i: shot(grained(station(2, things=15), i), i),
    "dark": lambda i: shot(0.3 * scratched(station(4), i), i, noise=3),
    "light from all sides": lambda i: shot(shaded(scratched(station(6), i), i), i),
    "hardly any noise": lambda i: shot(scratched(station(8), i), i, noise=1),
    "loose mounting": lambda i: shot(scratched(station(9), i), i, move=5, turn=1),
    "one place outdoors": lambda i: shot(animal(outdoors(0), i), i, move=0, turn=0),
    "three stations": lambda i: shot(scratched(station(20 + i % 3), i), i),
}

COPIES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "encoded again": lambda image: jpeg(image, 75),
    "encoded coarsely": lambda image: jpeg(image, 50),
    "half the size": lambda image: image.resize((SIDE // 2, SIDE // 2), Image.Resampling.LANCZOS),
    "larger": lambda image: image.resize((SIDE * 3 // 2, SIDE * 3 // 2), Image.Resampling.BICUBIC),
    "squashed": lambda image: image.resize((SIDE * 3 // 4, SIDE), Image.Resampling.BICUBIC),
    "brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.15),
    "darker": lambda image: ImageEnhance.Brightness(image).enhance(0.7),
    "more contrast": lambda image: ImageEnhance.Contrast(image).enhance(1.3),
    "mirrored": ImageOps.mirror,
    "inverted": ImageOps.invert,
    "cropped": lambda image: image.crop((0, 0, SIDE * 9 // 10, SIDE * 9 // 10)),
}


SHOTS = 44
EACH = 2  # shots that each edit makes a copy of


def joining(pairs: Sequence[PairIndices]) -> list[tuple[int, int]]:
    return [(pair.first, pair.second) for pair in pairs if pair.band != "look"]


@pytest.mark.parametrize("camera", CAMERAS)
def test_different_things_before_one_camera_are_no_copies(camera: str) -> None:
    found = search_pairs(describe_many([CAMERAS[camera](i) for i in range(SHOTS)]), workers=1)
    assert found.same_scene >= 0.95 * SHOTS
    assert len(joining(found.pairs)) <= 0.1 * SHOTS
    assert np.bincount(cluster(SHOTS, found.pairs).labels).max() <= 3


# -- copies of shots ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pool() -> tuple[Descriptions, dict[str, list[tuple[int, int]]]]:
    """Shots of parts with a surface of their own, copies of some, and other shots of the first parts."""
    parts = [grained(station(2, things=15), i) for i in range(SHOTS)]
    pictures: list[Pixels] = [shot(part, i) for i, part in enumerate(parts)]
    source_of: dict[str, list[tuple[int, int]]] = {"shot again": []}
    for i in range(EACH):
        source_of["shot again"].append((i, len(pictures)))
        pictures.append(shot(parts[i], 1000 + i))
    for number, (name, edit) in enumerate(COPIES.items(), start=1):
        source_of[name] = []
        for source in range(number * EACH, (number + 1) * EACH):
            source_of[name].append((source, len(pictures)))
            pictures.append(np.asarray(edit(Image.fromarray(pictures[source]))))
    return describe_many(pictures), source_of


@pytest.fixture(scope="module")
def pairs(pool: tuple[Descriptions, dict[str, list[tuple[int, int]]]]) -> list[PairIndices]:
    return find_pairs(pool[0], workers=1)


@pytest.mark.parametrize("name", ["shot again", *COPIES])
def test_copies_of_a_shot_are_found(
    name: str, pool: tuple[Descriptions, dict[str, list[tuple[int, int]]]], pairs: list[PairIndices]
) -> None:
    assert set(pool[1][name]) <= set(joining(pairs))


def test_nothing_else_is_joined(
    pool: tuple[Descriptions, dict[str, list[tuple[int, int]]]], pairs: list[PairIndices]
) -> None:
    planted = {pair for some in pool[1].values() for pair in some}
    assert len(set(joining(pairs)) - planted) <= 1


def test_a_copy_is_described_by_what_differs(
    pool: tuple[Descriptions, dict[str, list[tuple[int, int]]]], pairs: list[PairIndices]
) -> None:
    how = {(pair.first, pair.second): pair.how for pair in pairs}
    assert {how[pair] for pair in pool[1]["mirrored"]} == {"mirrored"}
    assert {how[pair] for pair in pool[1]["cropped"]} == {"cropped to about 90 %"}


def test_threads_change_nothing(
    pool: tuple[Descriptions, dict[str, list[tuple[int, int]]]], pairs: list[PairIndices]
) -> None:
    assert find_pairs(pool[0], workers=3) == pairs


def test_new_images_of_a_scene_are_compared_with_all(
    pool: tuple[Descriptions, dict[str, list[tuple[int, int]]]], pairs: list[PairIndices]
) -> None:
    new = np.arange(len(pool[0])) >= SHOTS
    expected = [pair for pair in pairs if new[pair.first] or new[pair.second]]
    assert find_pairs(pool[0], new=new, workers=1) == expected


def test_the_second_search_knows_the_scene(
    pool: tuple[Descriptions, dict[str, list[tuple[int, int]]]],
) -> None:
    source_of = {copy: source for some in pool[1].values() for source, copy in some}
    parts = ["test" if i in source_of else "train" for i in range(len(pool[0]))]
    found = [(pair.first, pair.second) for pair in cross_check(pool[0], parts, workers=1).verified]
    planted = {(source, copy) for copy, source in source_of.items()}
    assert len(planted & set(found)) >= 0.8 * len(planted)
    assert len(set(found) - planted) <= 1


# -- what is no scene -----------------------------------------------------------------------------


def test_photos_share_no_scene(photos: list[Pixels]) -> None:
    assert search_pairs(describe_many(photos), workers=1) == PairSearch([])


TONES = ("smaller", "jpeg", "gray", "darker", "mirrored", "inverted", "corner", "rotated", "bordered")


def test_edited_copies_of_few_photos_are_no_camera(
    photos: list[Pixels], edited: Callable[[Pixels, str], Pixels]
) -> None:
    few = photos[:5]
    copies = [edited(each, name) for each in few for name in TONES]
    found = search_pairs(describe_many([*few, *copies]), workers=1)
    assert found.same_scene == 0
    labels = cluster(len(few) + len(copies), found.pairs).labels
    assert [i for i in range(len(copies)) if labels[len(few) + i] != labels[i // len(TONES)]] == []


def test_too_few_images_tell_nothing_about_a_scene() -> None:
    shots = [CAMERAS["scratches"](i) for i in range(20)]
    assert search_pairs(describe_many(shots), workers=1).same_scene == 0


def test_photos_among_shots_are_compared_as_ever(photos: list[Pixels]) -> None:
    shots = [CAMERAS["scratches"](i) for i in range(SHOTS)]
    few = photos[:6]
    copies = [np.asarray(ImageOps.mirror(Image.fromarray(each)).resize((70, 90))) for each in few]
    found = search_pairs(describe_many([*shots, *few, *copies]), workers=1)
    assert SHOTS * 0.95 <= found.same_scene <= SHOTS
    assert {(SHOTS + i, SHOTS + len(few) + i) for i in range(len(few))} <= set(joining(found.pairs))
