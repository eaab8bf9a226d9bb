"""Label safety: classes that are mirror images of each other, on drawn arrows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from saccade.audit import audit
from saccade.audit.orientation import MOST_IMAGES, crossings
from saccade.audit.scan import scan
from saccade.recipe import AugmentConfig
from saccade.records import Dataset, Finding, ImageRecord
from saccade.sources.storage import FolderStorage

Saccade = Callable[..., "tuple[int, str, str]"]

# where the tip of an arrow lies, of a shaft along x
DIRECTIONS = {"right": (1, 0), "left": (-1, 0), "down": (0, 1), "up": (0, -1)}


def arrow(direction: str, rng: np.random.Generator, side: int = 48) -> Image.Image:
    """One arrow of random colour, size, place and slant, on a noisy ground."""
    ground = rng.integers(180, 250, 3) + rng.normal(0, 6, (side, side, 3))
    image = Image.fromarray(ground.clip(0, 255).astype(np.uint8))
    length, head, shaft = rng.uniform(12, 18), rng.uniform(6, 10), rng.uniform(2, 4)
    outline = np.array(
        [
            (-length, -shaft),
            (length - head, -shaft),
            (length - head, -head),
            (length, 0),
            (length - head, head),
            (length - head, shaft),
            (-length, shaft),
        ]
    )
    x, y = DIRECTIONS[direction]
    slant = rng.uniform(-0.2, 0.2)
    cos, sin = np.cos(slant), np.sin(slant)
    turn = np.array([(x, y), (-y, x)]) @ np.array([(cos, sin), (-sin, cos)])
    places = outline @ turn + side / 2 + rng.uniform(-4, 4, 2)
    colour = tuple(rng.integers(0, 120, 3).tolist())
    ImageDraw.Draw(image).polygon([tuple(place) for place in places.tolist()], fill=colour)
    return image


def arrows(root: Path, directions: tuple[str, ...], count: int = 30) -> Path:
    for number, direction in enumerate(directions):
        rng = np.random.default_rng(number)
        (root / direction).mkdir(parents=True)
        for image in range(count):
            arrow(direction, rng).save(root / direction / f"{image:03d}.png")
    return root


def found(root: Path, augment: AugmentConfig | None = None) -> list[Finding]:
    paths = sorted(path.relative_to(root).as_posix() for path in root.rglob("*.png"))
    records = tuple(ImageRecord(path, path.split("/")[0]) for path in paths)
    classes = tuple(sorted({record.label for record in records}))
    dataset = Dataset(root, records, classes, FolderStorage(root))
    chosen = augment or AugmentConfig()
    audited = audit(*scan(dataset), near_duplicates=False, flips=chosen.flips)
    return [finding for finding in audited.findings if finding.kind == "orientation"]


def test_arrows_to_the_left_and_right_are_a_warning_with_the_line_to_set(tmp_path: Path) -> None:
    flipped, turned = found(arrows(tmp_path, ("left", "right")))
    assert flipped.severity == "warning"
    assert flipped.figure["classes"] == ["left", "right"]
    assert flipped.figure["flip"] == "left to right"
    assert flipped.figure["share"] > 0.8
    assert "--augment.horizontal_flip 0" in flipped.remedy
    assert "horizontal_flip = 0" in flipped.remedy
    labels = [path.split("/")[0] for path in flipped.paths]
    assert labels == ["left", "right"] * 4
    assert (turned.severity, turned.figure["flip"]) == ("info", "upside down")  # nothing turns so far


@pytest.mark.parametrize(
    "augment",
    [
        AugmentConfig(horizontal_flip=0),
        AugmentConfig(policy="document"),
        AugmentConfig(steps=["rotation", "grayscale"]),
        AugmentConfig(steps=[{"name": "horizontal_flip", "probability": 0}]),
    ],
)
def test_without_flips_there_is_nothing_to_warn_of(tmp_path: Path, augment: AugmentConfig) -> None:
    assert {finding.severity for finding in found(arrows(tmp_path, ("left", "right")), augment)} == {"info"}


def test_each_flip_is_told_from_the_others(tmp_path: Path) -> None:
    findings = found(arrows(tmp_path, ("up", "down", "left", "right")), AugmentConfig(policy="texture"))
    crossed = {(finding.figure["flip"], tuple(finding.figure["classes"])) for finding in findings}
    assert crossed == {
        ("left to right", ("left", "right")),
        ("top to bottom", ("down", "up")),
        ("upside down", ("down", "up")),
        ("upside down", ("left", "right")),
    }
    assert {finding.severity for finding in findings} == {"warning"}


def test_classes_that_differ_otherwise_say_nothing(make_photos: Callable[..., Path], tmp_path: Path) -> None:
    assert found(make_photos("photos", images=20)) == []
    assert found(arrows(tmp_path / "few", ("left", "right"), count=7)) == []  # too few to tell


def test_what_says_nothing_about_the_label_crosses_nothing() -> None:
    rng = np.random.default_rng(0)
    for classes in (2, 3, 10):
        for _ in range(200):
            labels = np.repeat(np.arange(classes), 20)
            assert not crossings(labels, rng.permutation(labels), rng.permutation(len(labels)))


def test_a_mirror_image_that_stays_in_its_class_crosses_nothing() -> None:
    """Copies of an image in its own class make it known as it is, and say nothing of its mirror image."""
    labels = np.repeat([0, 1], 20)
    assert not crossings(labels, labels, np.arange(40))
    halves = np.where(np.arange(40) % 2, np.arange(40), 39 - np.arange(40))
    assert not crossings(labels, labels, halves)
    assert crossings(labels, labels, 39 - np.arange(40))


def test_many_images_are_sampled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from saccade.audit import orientation

    assert MOST_IMAGES >= 1000
    asked = []
    nearest = orientation._nearest
    monkeypatch.setattr(orientation, "MOST_IMAGES", 40)
    monkeypatch.setattr(orientation, "_nearest", lambda a, b: asked.append(len(a)) or nearest(a, b))
    assert found(arrows(tmp_path, ("left", "right")))
    assert set(asked) == {30}  # every second image of each class


def test_the_audit_says_it_and_knows_the_recipe(tmp_path: Path, saccade: Saccade) -> None:
    data = arrows(tmp_path / "arrows", ("left", "right"))
    quick = "--no-split.near_duplicates"
    assert "--augment.horizontal_flip 0" in saccade("audit", data, quick)[1]
    code, out, _ = saccade("audit", data, quick, "--augment", "document")
    assert (code, "--augment.horizontal_flip 0" in out) == (0, False)
    code, out, _ = saccade("audit", data, quick, "--augment", "document", "--evaluate.flip")
    assert (code, "--no-evaluate.flip" in out) == (1, True)  # it averages over mirror images


@pytest.mark.slow
def test_it_is_said_before_training_that_does_not_wait_for_the_search(
    tmp_path: Path, saccade: Saccade
) -> None:
    for part in ("train", "validation"):
        arrows(tmp_path / "given" / part, ("left", "right"), count=20 if part == "train" else 4)
    flags = ("--backbone", "fast_cnn", "--epochs", "1", "--image-size", "32", "--no-export.onnx")
    code, out, err = saccade("train", tmp_path / "given", "--out", tmp_path / "run", *flags)
    assert (code, err) == (0, "")
    assert out.index("--augment.horizontal_flip 0") < out.index("Split")
