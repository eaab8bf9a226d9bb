"""Images that a program hands over: every Pillow mode, bytes, open files, arrays; none stops the others."""

from __future__ import annotations

import io
import pathlib
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageSequence

from saccade.errors import DataError, ImageError
from saccade.images import given
from saccade.images.decoder import DEFAULT_LIMITS, Limits, decode
from saccade.predict import Predictor, inputs_of, pixels_of

ORANGE = Image.new("RGB", (12, 8), (230, 120, 20))


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def read(content: Any, limits: Limits = DEFAULT_LIMITS) -> np.ndarray:
    return given.pixels(given.take(content, limits), limits)


# ── Pillow modes ─────────────────────────────────────────────────────────────────────────────────────

NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 12, 3), dtype=np.uint8))
CLEAR = NOISE.convert("RGBA")
CLEAR.putalpha(Image.fromarray(np.linspace(0, 255, 96).astype(np.uint8).reshape(8, 12)))
GRAY_16 = np.linspace(0, 65535, 96).astype(np.uint16).reshape(8, 12)
PGM = b"P5 12 8 65535\n" + GRAY_16.astype(">u2").tobytes()
SCALED_16 = np.repeat(((GRAY_16.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)[..., None], 3, 2)

SAME_AS_THE_FILE: dict[str, tuple[Image.Image, bytes]] = {
    "1": (NOISE.convert("1"), encoded(NOISE.convert("1"), "PNG")),
    "L": (NOISE.convert("L"), encoded(NOISE.convert("L"), "PNG")),
    "P": (NOISE.convert("P"), encoded(NOISE.convert("P"), "PNG")),
    "LA": (CLEAR.convert("LA"), encoded(CLEAR.convert("LA"), "PNG")),
    "RGB": (NOISE, encoded(NOISE, "PNG")),
    "RGBA": (CLEAR, encoded(CLEAR, "PNG")),
    "I;16": (Image.fromarray(GRAY_16), encoded(Image.fromarray(GRAY_16), "PNG")),
    "I of a PGM": (Image.open(io.BytesIO(PGM)), PGM),
    "CMYK": (NOISE.convert("CMYK"), encoded(NOISE.convert("CMYK"), "TIFF")),
    "P with a transparent colour": (
        Image.open(io.BytesIO(encoded(NOISE.convert("P"), "PNG", transparency=3))),
        encoded(NOISE.convert("P"), "PNG", transparency=3),
    ),
    "GIF": (
        Image.open(io.BytesIO(encoded(NOISE.convert("P"), "GIF"))),
        encoded(NOISE.convert("P"), "GIF"),
    ),
    "JPEG": (Image.open(io.BytesIO(encoded(NOISE, "JPEG"))), encoded(NOISE, "JPEG")),
    "WebP": (
        Image.open(io.BytesIO(encoded(CLEAR, "WEBP", lossless=True))),
        encoded(CLEAR, "WEBP", lossless=True),
    ),
    "TIFF": (Image.open(io.BytesIO(encoded(NOISE, "TIFF"))), encoded(NOISE, "TIFF")),
    "BMP": (Image.open(io.BytesIO(encoded(NOISE, "BMP"))), encoded(NOISE, "BMP")),
}


@pytest.mark.parametrize("mode", SAME_AS_THE_FILE)
def test_a_pillow_image_is_read_like_the_same_image_in_a_file(mode: str) -> None:
    image, file = SAME_AS_THE_FILE[mode]
    np.testing.assert_array_equal(read(image), decode(file).pixels)


@pytest.mark.parametrize("mode", ["La", "RGBa"])
def test_premultiplied_alpha_is_undone_before_the_background(mode: str) -> None:
    straight = {"La": "LA", "RGBa": "RGBA"}[mode]
    expected = read(CLEAR.convert(straight).convert(mode).convert(straight))
    np.testing.assert_array_equal(read(CLEAR.convert(straight).convert(mode)), expected)
    assert expected.std() > 1


@pytest.mark.parametrize("mode", ["PA", "RGBX", "YCbCr", "HSV"])
def test_further_modes_keep_their_colours(mode: str) -> None:
    image = ORANGE.convert("P").convert(mode) if mode == "PA" else ORANGE.convert(mode)
    assert np.abs(read(image)[4, 6].astype(int) - np.asarray(image.convert("RGB"))[4, 6]).max() == 0


def test_lab_keeps_its_colours_where_pillow_knows_them() -> None:
    srgb, lab = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    image = ImageCms.profileToProfile(ORANGE, srgb, lab, outputMode="LAB")
    found = pixels_of("x", image, DEFAULT_LIMITS)
    assert isinstance(found, ImageError) or np.abs(found[4, 6].astype(int) - (230, 120, 20)).max() <= 2


@pytest.mark.parametrize("mode", ["I;16", "I;16L", "I;16B", "I;16N"])
def test_16_bits_are_scaled_in_every_byte_order(mode: str) -> None:
    order = {"I;16B": ">u2", "I;16N": "=u2"}.get(mode, "<u2")
    image = Image.frombytes(mode, (12, 8), GRAY_16.astype(order).tobytes())
    np.testing.assert_array_equal(read(image), SCALED_16)


REFUSED: dict[str, tuple[Image.Image, str]] = {
    "F from 0 to 1": (Image.fromarray(GRAY_16.astype(np.float32) / 65535), r"unknown range \(mode F\)"),
    "F from 0 to 255": (Image.fromarray(SCALED_16[..., 0].astype(np.float32)), r"unknown range \(mode F\)"),
    "F with NaN": (Image.fromarray(np.full((8, 8), np.nan, np.float32)), r"unknown range \(mode F\)"),
    "I of nobody knows what": (Image.fromarray(GRAY_16.astype(np.int32)), r"unknown range \(mode I\)"),
    "I after a resize": (Image.open(io.BytesIO(PGM)).resize((6, 4)), r"unknown range \(mode I\)"),
    "no pixels": (Image.new("RGB", (0, 5)), "0 x 5 pixels"),
    "a line": (Image.new("RGB", (100, 1)), "extreme shape"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_pillow_images_that_say_too_little_are_refused_by_name(name: str) -> None:
    image, words = REFUSED[name]
    with pytest.raises(ImageError, match=words):
        read(image)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "TIFF", "WEBP", "BMP"])
def test_a_truncated_image_that_is_not_loaded_yet_is_refused(kind: str) -> None:
    """Pillow finds out only when the pixels are asked for."""
    noise = Image.fromarray(np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    file = encoded(noise, kind)
    try:
        image = Image.open(io.BytesIO(file[: len(file) * 3 // 4]))
    except OSError:
        pytest.skip("Pillow refuses to open it at all")
    with pytest.raises(ImageError, match="Left out"):
        read(image)


def test_a_lazy_bomb_is_refused_by_its_header() -> None:
    image = Image.open(io.BytesIO(encoded(NOISE, "PNG")))
    with pytest.raises(ImageError, match="more than the limit of 50"):
        read(image, Limits(max_pixels=50))
    assert image.fp is not None, "it has not been decoded"


def test_a_closed_image_is_refused(tmp_path: pathlib.Path) -> None:
    (tmp_path / "a.png").write_bytes(encoded(NOISE, "PNG"))
    with Image.open(tmp_path / "a.png") as image:
        pass
    with pytest.raises(ImageError, match="cannot be read"):
        read(image)


def test_what_hangs_on_an_image_neither_breaks_nor_turns_it() -> None:
    image = NOISE.copy()
    image.info = {"icc_profile": "no bytes", "exif": b"Exif\0\0broken", "dpi": "x", "gamma": object()}
    np.testing.assert_array_equal(read(image), np.asarray(NOISE))


def test_a_broken_orientation_is_ignored() -> None:
    for value in (0, 9, 2**15):
        exif = Image.Exif()
        exif[0x0112] = value
        image = Image.open(io.BytesIO(encoded(NOISE, "PNG", exif=exif)))
        np.testing.assert_array_equal(read(image), np.asarray(NOISE))


def test_an_orientation_is_undone_once() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    for kind in ("JPEG", "PNG", "TIFF", "WEBP"):
        options = {"lossless": True} if kind == "WEBP" else {}
        file = encoded(NOISE, kind, exif=exif, **options)
        np.testing.assert_array_equal(read(Image.open(io.BytesIO(file))), decode(file).pixels, kind)


def gray_tiff(bits: int, photometric: int, pixels: bytes) -> bytes:
    """A TIFF of 12 x 8 gray pixels, as `bits` each; photometric 0: zero is white."""
    tags = {256: 12, 257: 8, 258: bits, 259: 1, 262: photometric, 273: 8, 277: 1, 278: 8, 279: len(pixels)}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    start = struct.pack("<I", 8 + len(pixels))
    return b"II*\0" + start + pixels + struct.pack("<H", len(tags)) + entries + bytes(4)


def packed_12_bits(values: np.ndarray) -> bytes:
    pairs = values.ravel().reshape(-1, 2).tolist()
    return b"".join((first << 12 | second).to_bytes(3, "big") for first, second in pairs)


@pytest.mark.parametrize("gray_maximum", [0, 1023])
@pytest.mark.parametrize(
    "file",
    [
        encoded(Image.fromarray(GRAY_16), "PNG"),
        encoded(Image.fromarray(GRAY_16), "TIFF"),
        gray_tiff(16, 0, GRAY_16.tobytes()),
        gray_tiff(12, 1, packed_12_bits(GRAY_16 >> 4)),
        PGM,
    ],
    ids=["png", "tiff", "tiff where zero is white", "tiff of 12 bits", "pgm"],
)
def test_deep_gray_has_the_range_of_its_file(file: bytes, gray_maximum: int) -> None:
    limits = Limits(gray_maximum=gray_maximum)
    expected = decode(file, limits=limits).pixels
    assert expected.max() == 255
    np.testing.assert_array_equal(read(Image.open(io.BytesIO(file)), limits), expected)
    np.testing.assert_array_equal(read(file, limits), expected)


def test_floats_are_refused_from_a_file_and_from_pillow_alike() -> None:
    file = encoded(Image.fromarray(GRAY_16.astype(np.float32)), "TIFF")
    remedies = set()
    for content in (file, Image.open(io.BytesIO(file))):
        with pytest.raises(ImageError, match=r"floating-point|unknown range") as caught:
            read(content)
        remedies.add(caught.value.remedy)
    assert len(remedies) == 1


def test_phone_photos_opened_by_pillow_are_those_of_the_file() -> None:
    heif = pytest.importorskip("pillow_heif")
    pytest.importorskip("pillow_jxl")
    exif = Image.Exif()
    exif[0x0112] = 6
    written = io.BytesIO()
    heif.from_pillow(NOISE).save(written, exif=exif.tobytes())
    opened: list[tuple[Callable[[Any], Image.Image], bytes]] = [
        (heif.HeifImageFile, written.getvalue()),
        (Image.open, encoded(NOISE, "AVIF", exif=exif)),
        (Image.open, encoded(NOISE, "JXL", exif=exif.tobytes(), use_container=True, lossless=True)),
    ]
    for open_with, file in opened:
        np.testing.assert_array_equal(read(open_with(io.BytesIO(file))), decode(file).pixels)


def test_a_palette_of_16_bit_gray_stays_in_its_range() -> None:
    dark = Image.open(io.BytesIO(b"P5 12 8 65535\n" + struct.pack(">96H", *[257] * 96)))
    assert read(dark).max() == 1


# ── bytes and open files ─────────────────────────────────────────────────────────────────────────────

JPEG = encoded(ORANGE, "JPEG")


class Odd:
    """A file object whose `read` does what it is told."""

    def __init__(self, answer: Callable[[], Any]) -> None:
        self.answer = answer

    def read(self, size: int = -1) -> Any:
        return self.answer()


def unplugged() -> bytes:
    raise TimeoutError("the camera is unplugged")


@pytest.mark.parametrize("make", [bytes, bytearray, memoryview, io.BytesIO, lambda data: Odd(lambda: data)])
def test_the_content_of_a_file_is_an_image(make: Callable[[bytes], Any]) -> None:
    np.testing.assert_array_equal(pixels_of("x", make(JPEG), DEFAULT_LIMITS), decode(JPEG).pixels)


def test_an_open_file_is_read_from_its_start(tmp_path: pathlib.Path) -> None:
    (tmp_path / "a.jpg").write_bytes(JPEG)
    with (tmp_path / "a.jpg").open("rb") as file:
        file.seek(0, 2)
        np.testing.assert_array_equal(read(file), decode(JPEG).pixels)


closed = io.BytesIO(JPEG)
closed.close()
BAD_CONTENT: dict[str, tuple[Any, str]] = {
    "no bytes": (b"", "empty"),
    "text in bytes": (b"hello, world", "Left out"),
    "bytes cut short": (JPEG[:200], "Left out"),
    "a closed file": (closed, "cannot be read"),
    "a text file": (io.StringIO("hello"), "returns str, not bytes"),
    "read() gives nothing": (Odd(lambda: None), "returns NoneType, not bytes"),
    "read() fails": (Odd(unplugged), "the camera is unplugged"),
    "a number": (7, "a int is no image"),
    "nothing": (None, "a NoneType is no image"),
    "a list": (["a.jpg"], "a list is no image"),
    "a dict": ({"a": 1}, "a dict is no image"),
    "a float array": (np.zeros((4, 4, 3)), r"float64 \(4, 4, 3\)"),
    "a gray array of floats": (np.zeros((4, 4)), r"float64 \(4, 4\)"),
    "an array of planes": (np.zeros((3, 9, 9), np.uint8), r"uint8 \(3, 9, 9\)"),
    "a number in an array": (np.array(3), r"int64 \(\)"),
    "a very long array": (np.zeros((1, 5000, 3), np.uint8), "extreme shape"),
    "an empty name": ("", "no such file"),
    "a name with NUL": ("a\0b.jpg", "no such file"),
    "a name too long for any file": ("x" * 5000, "no such file"),
    "a folder's device": ("/dev/zero", "not a regular file"),
}


@pytest.mark.parametrize("name", BAD_CONTENT)
def test_bad_content_is_an_answer_and_no_exception(name: str) -> None:
    content, words = BAD_CONTENT[name]
    error = pixels_of("x", content, DEFAULT_LIMITS)
    assert isinstance(error, ImageError)
    with pytest.raises(ImageError, match=words):
        raise error


def test_an_endless_file_is_read_up_to_the_limit() -> None:
    asked = []

    class Endless:
        def read(self, size: int) -> bytes:
            asked.append(size)
            return bytes(size)

    with pytest.raises(ImageError, match="more than the limit of 0 MB"):
        read(Endless(), Limits(max_bytes=1000))
    assert asked == [1001]


# ── one after the other ──────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def predictor(make_model: Callable[..., pathlib.Path], tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    return Predictor(make_model(tmp_path_factory.mktemp("given") / "model.onnx"))


def test_no_bad_image_stops_the_others(predictor: Predictor) -> None:
    red, bad = Image.new("RGB", (9, 9), "red"), [image for image, _ in REFUSED.values()]
    bad += [content for content, _ in BAD_CONTENT.values()]
    mixed = [content for one in bad for content in (one, red)]
    answers = list(predictor.answers(mixed))
    assert [bool(answer.error) for answer in answers] == [True, False] * len(bad)
    assert {answer.predicted for answer in answers if not answer.error} == {"red"}


def test_arrays_that_are_no_images_are_said_once_with_what_to_do(predictor: Predictor) -> None:
    with pytest.raises(DataError) as caught:
        predictor.predict(np.zeros((5, 3, 8, 8), np.uint8))
    said = str(caught.value)
    assert said.startswith("5 of 5 inputs failed: image 0, image 1, image 2 and 2 more: an array of uint8")
    assert said.count("an array of") == said.count("Move channels last: numpy.moveaxis(image, 0, -1)") == 1
    with pytest.raises(DataError, match=r"Give values from 0 to 255: \(255 \* image\)"):
        predictor.predict([np.zeros((8, 8, 3))])


def test_one_image_as_bytes_or_as_an_open_file_is_one_image(predictor: Predictor) -> None:
    red = encoded(Image.new("RGB", (9, 9), "red"), "PNG")
    for single in (red, bytearray(red), memoryview(red), io.BytesIO(red)):
        assert predictor.predict(single) == ["red"]
        assert predictor.predict([single, single]) == ["red", "red"]


def test_arrays_of_paths_and_of_images(predictor: Predictor, tmp_path: pathlib.Path) -> None:
    for name in ("red", "blue"):
        Image.new("RGB", (9, 9), name).save(tmp_path / f"{name}.png")
    paths = [str(tmp_path / "red.png"), str(tmp_path / "blue.png")]
    images = np.empty(2, dtype=object)
    images[:] = [np.asarray(Image.open(path)) for path in paths]
    for given_array in (np.array(paths), np.array(paths, dtype=object), np.array([paths]), images):
        assert predictor.predict(given_array) == ["red", "blue"]
    assert predictor.predict(np.array(paths[0])) == ["red"]
    assert predictor.predict(np.array([])) == []


def test_frames_of_an_animation_are_taken_when_they_come(predictor: Predictor) -> None:
    """`ImageSequence` gives one object again and again, each time turned to the next frame."""
    frames = [Image.new("RGB", (9, 9), name) for name in ("red", "lime", "blue") * 3]
    file = io.BytesIO(encoded(frames[0], "TIFF", save_all=True, append_images=frames[1:]))
    frames_again = ImageSequence.Iterator(Image.open(file))
    assert predictor.predict(frames_again) == ["red", "green", "blue"] * 3


def test_names_are_those_of_the_inputs() -> None:
    names = [name for name, _ in inputs_of(["a.jpg", pathlib.Path("b.jpg"), b"", np.str_("c.jpg")])]
    assert names == ["a.jpg", "b.jpg", "image 2", "c.jpg"]
