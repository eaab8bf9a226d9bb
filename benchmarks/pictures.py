"""Remake docs/pictures/: audit page, report and contact sheet of generated photos, as Chromium shows them.

    python benchmarks/pictures.py

Needs a `chromium` on the path. Every photo is made here, with damage that the audit must find.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

PICTURES = Path(__file__).parents[1] / "docs" / "pictures"
WIDTH = 1200
SPECIES = ("beetle", "bug", "ladybird")
IMAGES = 100


def ellipse(
    side: int, centre: tuple[float, float], radii: tuple[float, float], turn: float
) -> NDArray[np.bool_]:
    y, x = (np.mgrid[0:side, 0:side] + 0.5) / side - np.reshape(centre, (2, 1, 1))
    along, across = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
    return np.asarray((along / radii[0]) ** 2 + (across / radii[1]) ** 2 < 1)


def insect(kind: int, rng: np.random.Generator, side: int = 240) -> Image.Image:
    """A drawn insect on a leafy ground: its outline, colour and spots tell the kind, mostly."""
    ground = rng.integers(40, 150, (7, 7, 3)) * np.array([0.7, 1.0, 0.5])
    size = (side, side)
    pixels = np.asarray(
        Image.fromarray(ground.astype(np.uint8)).resize(size, Image.Resampling.BICUBIC)
    ).astype(float)
    centre, turn = tuple(rng.uniform(0.4, 0.6, 2)), rng.uniform(0, np.pi)
    length = rng.uniform(0.2, 0.3)
    width = length * (0.55, 0.7, 0.85)[kind] * rng.uniform(0.8, 1.25)
    body = ellipse(side, centre, (length, width), turn)
    pixels[body] = np.array([(80, 60, 40), (110, 90, 50), (160, 60, 45)][kind]) + rng.normal(0, 27, 3)
    for _ in range(rng.poisson((0.7, 3, 7)[kind])):
        offset = rng.uniform(-0.6, 0.6, 2) * width
        spot = ellipse(side, (centre[0] + offset[0], centre[1] + offset[1]), (0.025, 0.025), 0)
        pixels[spot & body] = 20
    pixels += rng.normal(0, 8, pixels.shape)
    photo = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
    return photo.filter(ImageFilter.GaussianBlur(rng.uniform(0, 0.8)))


def write_photos(root: Path) -> None:
    """`IMAGES` photos of each kind, and four faults: two labels, a near-duplicate, damage, blur."""
    rng = np.random.default_rng(0)
    for kind, name in enumerate(SPECIES):
        (root / name).mkdir(parents=True)
        for number in range(IMAGES):
            insect(kind, rng).save(root / name / f"IMG_{1000 * kind + number:04d}.jpg", quality=90)
    first = root / "beetle" / "IMG_0000.jpg"
    shutil.copy(first, root / "bug" / "copy of IMG_0000.jpg")
    with Image.open(root / "ladybird" / "IMG_2001.jpg") as photo:
        photo.crop((8, 8, 230, 230)).save(root / "ladybird" / "IMG_2001 cropped.jpg", quality=70)
    (root / "bug" / "IMG_1002.jpg").write_bytes((root / "bug" / "IMG_1002.jpg").read_bytes()[:2000])
    with Image.open(root / "beetle" / "IMG_0003.jpg") as photo:
        photo.filter(ImageFilter.GaussianBlur(12)).save(root / "beetle" / "IMG_0003.jpg")


def write_new_photos(root: Path) -> None:
    """A dozen more, whose kind nobody has written down."""
    rng = np.random.default_rng(1)
    root.mkdir()
    for number in range(12):
        insect(number % 3, rng).save(root / f"IMG_{3000 + number}.jpg", quality=90)


def screenshot(page: Path, picture: str, height: int, *, section: str = "") -> None:
    """The top of the page, or one section of it, at `WIDTH`, as a PNG of 128 colours."""
    target = PICTURES / picture
    if section:
        others = f"<style>section:not(#{section}), header, nav, #appendix {{ display: none }}</style>"
        page = Path(shutil.copy(page, page.with_name(f"{section}.html")))
        page.write_text(page.read_text("utf-8") + others, "utf-8")
    chromium = [
        "chromium",
        "--headless",
        "--no-sandbox",
        "--hide-scrollbars",
        f"--window-size={WIDTH},{height}",
    ]
    subprocess.run([*chromium, f"--screenshot={target}", page.as_uri()], check=True, capture_output=True)
    with Image.open(target) as image:
        image.convert("RGB").quantize(128, dither=Image.Dither.NONE).save(target, optimize=True)
    print(f"{target.relative_to(PICTURES.parents[1])}: {target.stat().st_size / 1000:.0f} kB")


def main() -> None:
    PICTURES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        desk = Path(folder)
        write_photos(desk / "photos")
        write_new_photos(desk / "new")
        subprocess.run(["saccade", "audit", "photos", "--out", "audit"], cwd=desk)  # 1: it found something
        subprocess.run(["saccade", "train", "photos", "--method", "head"], cwd=desk, check=True)
        predict = ["saccade", "predict", "runs/photos-1", "new", "--contact-sheet", "sheet.html"]
        subprocess.run(predict, cwd=desk, check=True)
        screenshot(desk / "sheet.html", "sheet.png", 760)
        screenshot(desk / "audit" / "audit.html", "audit.png", 1100)
        report = desk / "runs" / "photos-1" / "report" / "report.html"
        screenshot(report, "report.png", 970)
        screenshot(report, "confusion.png", 450, section="confusion")


if __name__ == "__main__":
    main()
