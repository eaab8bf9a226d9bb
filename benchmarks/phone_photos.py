"""808 photos as a phone makes them, from those of flowers5, to try the first steps on.

    python benchmarks/phone_photos.py FOLDER

12 megapixels, HEIC among JPEG, turned by EXIF, with umlauts and spaces in names, upper-case suffixes, copies,
bursts, a HEIC called .jpg, screenshots as PNG, damaged and empty files, and what lies about in such folders.
SACCADE_DATA names the folder with data/flowers5. The same photos each time.
"""

from __future__ import annotations

import os
import random
import shutil
import sys
from pathlib import Path

from PIL import Image, ImageEnhance

CLASSES = {
    "daisy": "Gänseblümchen",
    "dandelion": "Löwenzahn",
    "roses": "Rose",
    "sunflowers": "Sonnenblume",
    "tulips": "Tulpe",
}
PHOTOS, HEIC_EVERY, LONG_SIDE = 760, 12, 4032
ORIENTATIONS = (1, 1, 1, 6, 6, 8, 3)
UNTURN = {3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}


def main() -> None:
    import pillow_heif

    pillow_heif.register_heif_opener()
    target, rng = Path(sys.argv[1]), random.Random(0)
    source = Path(os.environ["SACCADE_DATA"]) / "data/flowers5/train"
    photos = [(path, CLASSES[path.parent.name]) for path in sorted(source.rglob("*.jpg"))]
    rng.shuffle(photos)
    made = []
    for number, (path, name) in enumerate(photos[:PHOTOS]):
        made.append(photo(path, target / name, number, rng))
    oddities(made, target, rng)
    print(f"{sum(len(files) for _, _, files in os.walk(target))} files in {target}")


def photo(path: Path, folder: Path, number: int, rng: random.Random) -> Path:
    """One photo in phone size, turned by its EXIF as a phone does it."""
    folder.mkdir(parents=True, exist_ok=True)
    with Image.open(path) as opened:
        image = opened.convert("RGB")
    scale = LONG_SIDE / max(image.size)
    image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)
    exif, orientation = Image.Exif(), rng.choice(ORIENTATIONS)
    if number % HEIC_EVERY == 0:
        file = folder / f"IMG_{2000 + number}.HEIC"
        image.resize((2016, round(2016 * image.height / image.width))).save(file, quality=60)
        return file
    exif[0x0112], exif[0x010F], exif[0x0132] = orientation, "Phone", "2026:05:01 10:00:00"
    if orientation in UNTURN:
        image = image.transpose(UNTURN[orientation])
    names = (f"IMG_{2000 + number}.JPG", f"Foto {number} (schön).jpg", f"20260501_{100000 + number}.jpeg")
    file = folder / names[number % 3]
    image.save(file, "JPEG", quality=75, exif=exif)
    return file


def oddities(made: list[Path], target: Path, rng: random.Random) -> None:
    """48 more: copies, bursts, wrong suffixes, screenshots, damaged and empty files."""
    jpegs = [path for path in made if path.suffix != ".HEIC"]
    for path in rng.sample(jpegs, 20):
        shutil.copy(path, path.with_name(f"{path.stem} - Kopie{path.suffix}"))
    for path in rng.sample(jpegs, 12):
        with Image.open(path) as image:
            ImageEnhance.Brightness(image).enhance(1.1).save(
                path.with_name(f"{path.stem}_2.jpg"), exif=image.getexif()
            )
    for path in rng.sample([path for path in made if path.suffix == ".HEIC"], 4):
        shutil.copy(path, path.with_name(f"{path.stem}_wa.jpg"))
    for path in rng.sample(jpegs, 4):
        with Image.open(path) as image:
            image.resize((1080, 1920)).save(path.with_name(f"Screenshot_{path.stem}.png"))
    for path in rng.sample(jpegs, 6):
        path.with_name(f"{path.stem}_kaputt.jpg").write_bytes(path.read_bytes()[: path.stat().st_size // 3])
    for path in rng.sample(jpegs, 2):
        path.with_name(f"{path.stem}_leer.jpg").write_bytes(b"")
    (target / "Thumbs.db").write_bytes(b"\0" * 100)
    (target / "Rose" / "desktop.ini").write_text("[x]")
    (target / "Notizen.txt").write_text("Garten, Mai 2026")


if __name__ == "__main__":
    main()
