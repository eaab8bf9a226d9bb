"""Each version constant of the caches stands for what the code beside it makes.

A test here fails when that changes. If the change is meant, raise the constant and write the new values down:
caches of earlier versions are then no longer used. If it is not meant, it would have been served from caches.
Values are compared where rounding may differ between processors and library versions, digests where integers
alone decide.
"""

from __future__ import annotations

import base64
import hashlib
import io

import numpy as np
import pytest
from PIL import Image

from saccade.audit.quality import MEASURING_VERSION, PIXEL_VALUES, measure_images
from saccade.audit.scan import EXAMINING_VERSION, ScannedFile
from saccade.images.decoder import DECODING_VERSION, Limits, decode
from saccade.near_duplicates import describe, describe_many, search_pairs
from saccade.near_duplicates.descriptors import DESCRIBING_VERSION
from saccade.near_duplicates.pairs import SEARCHING_VERSION

# Stored, not written on the spot: what an encoder writes is its own affair.
JPEG = base64.b64decode(
    "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAAMCAgMCAgMDAwMEAwMEBQgFBQQEBQoHBwYIDAoMDAsKCwsNDhIQDQ4RDgsLEBYQ"
    "ERMUFRUVDA8XGBYUGBIUFRT/2wBDAQMEBAUEBQkFBQkUDQsNFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQU"
    "FBQUFBQUFBQUFBQUFBT/wAARCAAQABADAREAAhEBAxEB/8QAHwAAAQUBAQEBAQEAAAAAAAAAAAECAwQFBgcICQoL/8QAtRAA"
    "AgEDAwIEAwUFBAQAAAF9AQIDAAQRBRIhMUEGE1FhByJxFDKBkaEII0KxwRVS0fAkM2JyggkKFhcYGRolJicoKSo0NTY3ODk6"
    "Q0RFRkdISUpTVFVWV1hZWmNkZWZnaGlqc3R1dnd4eXqDhIWGh4iJipKTlJWWl5iZmqKjpKWmp6ipqrKztLW2t7i5usLDxMXG"
    "x8jJytLT1NXW19jZ2uHi4+Tl5ufo6erx8vP09fb3+Pn6/8QAHwEAAwEBAQEBAQEBAQAAAAAAAAECAwQFBgcICQoL/8QAtREA"
    "AgECBAQDBAcFBAQAAQJ3AAECAxEEBSExBhJBUQdhcRMiMoEIFEKRobHBCSMzUvAVYnLRChYkNOEl8RcYGRomJygpKjU2Nzg5"
    "OkNERUZHSElKU1RVVldYWVpjZGVmZ2hpanN0dXZ3eHl6goOEhYaHiImKkpOUlZaXmJmaoqOkpaanqKmqsrO0tba3uLm6wsPE"
    "xcbHyMnK0tPU1dbX2Nna4uPk5ebn6Onq8vP09fb3+Pn6/9oADAMBAAIRAxEAPwD5i+IHjYePm0zOmHT/ALJ5hwJTKW37Mfwr"
    "jBTA+vavhnUe1/6+/wDr8/2KliL6df6/r8zLsNKy6HAbdlcEdR2OPwP09PXlqVFJW/4f5ns0q97tvT+rmnYaVsRCEPJ9e/4d"
    "Oc9f/rVxyrc+iZ8HTrq1l0/r+v8AM6Gw0YlBIcZJz1+nQn+tQ5Lpp/X/AA35nrU8Qnov6/rqf//Z"
)
"""16 x 16 pixels, 4:4:4, quality 90."""


def picture(seed: int, height: int = 48, width: int = 64) -> np.ndarray:
    """Smooth colours, some noise and a bright corner, by integer arithmetic alone."""
    y, x = np.mgrid[0:height, 0:width]
    noise = np.random.default_rng(seed).integers(0, 24, (height, width, 3))
    waves = np.stack([(x * 3 + seed * 40) % 160, (y * 4 + x) % 140, (x * y // (seed + 3)) % 120], axis=2)
    pixels = waves + noise
    pixels[: height // 4, : width // 4] += 80
    return pixels.clip(0, 255).astype(np.uint8)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def turned(way: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = way
    return exif


def files() -> dict[str, bytes]:
    """One file for each way in which the decoder makes pixels; all but the JPEG lossless."""
    plain = Image.fromarray(picture(1))
    layered = plain.convert("RGBA")
    layered.putalpha(Image.fromarray(picture(2)[:, :, 0]))
    deep = Image.fromarray(picture(3)[:, :, 0].astype(np.uint16) * 211)
    drawn = Image.fromarray(picture(1)[:, :, 0] // 8)
    drawn.putpalette(picture(6, 1, 32).tobytes())
    return {
        "jpeg": JPEG,
        "png": encoded(plain, "PNG"),
        **{f"turned-{way}": encoded(plain, "PNG", exif=turned(way)) for way in range(2, 9)},
        "alpha": encoded(layered, "PNG"),
        "palette": encoded(drawn, "PNG"),
        "gray": encoded(Image.fromarray(picture(1)[:, :, 1]), "PNG"),
        "deep": encoded(deep, "PNG"),
        "bilevel": encoded(Image.fromarray(picture(1)[:, :, 0] > 90), "PNG"),
        "bmp": encoded(plain, "BMP"),
        "ppm": encoded(plain, "PPM"),
        "tiff": encoded(plain, "TIFF", compression="tiff_lzw"),
    }


def decoded(name: str) -> str:
    limits = Limits(background=(10, 20, 30), gray_maximum=60_000 if name == "deep" else 0)
    found = decode(files()[name], limits=limits, name=f"a.{name}")
    digest = hashlib.sha256(repr((found.pixels.shape, found.mode, found.format)).encode())
    digest.update(found.pixels.tobytes())
    return digest.hexdigest()[:12]


DECODED = {
    "jpeg": "13f13bfc8acc",
    "png": "2fbc9168dc61",
    "turned-2": "b44e86397848",
    "turned-3": "9ebc1ae49609",
    "turned-4": "77d942b41767",
    "turned-5": "d38a0e9beafd",
    "turned-6": "02b250b4682d",
    "turned-7": "7758efbd6796",
    "turned-8": "ee71eddbe80c",
    "alpha": "c525eb71c733",
    "palette": "19dc5ef48c2f",
    "gray": "248d4511b7e1",
    "deep": "63325928b3ff",
    "bilevel": "94a67c48b09b",
    "bmp": "0e9621002a54",
    "ppm": "e5ee15cf6f7a",
    "tiff": "f6f1eda0d01e",
}


@pytest.mark.parametrize("name", DECODED)
def test_decoded_pixels_belong_to_their_version(name: str) -> None:
    assert (DECODING_VERSION, decoded(name)) == (3, DECODED[name])


MEASURED = {
    "brightness": [0.3243, 0.4179],
    "contrast": [0.1091, 0.1985],
    "darkest": [0.102, 0.1098],
    "brightest": [0.5686, 0.749],
    "sharpness": [0.1341, 0.1353],
    "saturation": [0.5929, 0.4717],
    "border": [0.0, 0.0848],
    "border_brightness": [0.3109, 0.5923],
}


def test_measurements_belong_to_their_version() -> None:
    framed = picture(4, 300, 400)
    framed[:30] = framed[-30:] = (200, 190, 180)
    values = measure_images([picture(1), framed])
    assert MEASURING_VERSION == 1
    assert set(MEASURED) == set(PIXEL_VALUES)
    for name, expected in MEASURED.items():
        assert values[name] == pytest.approx(expected, abs=2e-3), name


DESCRIBED = [
    (80.18, 24.7, 6.84, [0, 0, 0, 0], [48, 64]),
    (105.01, 46.55, 7.93, [25, 25, 0, 0], [300, 400]),
    (81.17, 26.59, 7.32, [0, 0, 0, 0], [64, 64]),
]


def test_descriptions_belong_to_their_version() -> None:
    framed = picture(4, 300, 400)
    framed[:30] = framed[-30:] = (200, 190, 180)
    images = [picture(1), framed, picture(5, 64, 64)]
    assert DESCRIBING_VERSION == 1
    for image, (mean, spread, edges, border, size) in zip(images, DESCRIBED, strict=True):
        found = describe(image)
        thumbnail = found.thumbnail.astype(float)
        assert thumbnail.mean() == pytest.approx(mean, abs=0.1)
        assert thumbnail.std() == pytest.approx(spread, abs=0.1)
        assert np.abs(np.diff(thumbnail, axis=1)).mean() == pytest.approx(edges, abs=0.1)
        assert found.border.tolist() == border
        assert found.size.tolist() == size


FOUND = [
    (0, 4, "likely", "the same framing", 10.46),
    (0, 8, "likely", "the same framing", 10.14),
    (1, 5, "likely", "the same framing", 10.83),
    (1, 9, "likely", "the same framing", 10.34),
    (3, 12, "certain", "mirrored", 35.31),
    (5, 13, "certain", "cropped to about 83 %", 22.09),
    (7, 14, "certain", "inverted", 28.78),
]


def test_pairs_belong_to_their_version() -> None:
    images = [picture(seed, 96, 96) for seed in range(12)]
    images += [images[3][:, ::-1], images[5][8:88, 8:88], 255 - images[7]]
    found = [pair for pair in search_pairs(describe_many(images)).pairs if pair.band != "look"]
    assert SEARCHING_VERSION == 2
    assert [(pair.first, pair.second, pair.band, pair.how) for pair in found] == [row[:4] for row in FOUND]
    assert [pair.score for pair in found] == pytest.approx([row[4] for row in FOUND], abs=0.2)


def test_what_is_written_of_a_file_belongs_to_its_version() -> None:
    fields = (
        *("sha256", "pixel_sha256", "width", "height", "mode", "format", "note", "refusal"),
        *("camera", "compression"),
    )
    assert (EXAMINING_VERSION, ScannedFile._fields) == (1, fields)
