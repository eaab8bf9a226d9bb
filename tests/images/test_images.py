"""The decoder: every mode to upright RGB, every refusal with its remedy."""

from __future__ import annotations

import copy
import io
import struct
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from saccade.errors import ImageError
from saccade.images.decoder import Decoded, Limits, decode, pixel_sha256, read_header

Pixels = NDArray[np.uint8]


def smooth(height: int = 48, width: int = 64) -> Pixels:
    """A colourful picture without fine detail, so that JPEG keeps it within a few levels."""
    y, x = np.mgrid[0:height, 0:width]
    channels = [40 + 160 * x / width, 200 - 150 * y / height, 60 + 120 * (x + y) / (height + width)]
    return np.stack(channels, axis=-1).astype(np.uint8)


def saved(image: Image.Image | Pixels, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    picture = image if isinstance(image, Image.Image) else Image.fromarray(image)
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def refusal(data: bytes, *, limits: Limits | None = None) -> ImageError:
    with pytest.raises(ImageError) as caught:
        decode(data, limits=limits or Limits())
    assert caught.value.reason
    assert caught.value.remedy[0].isupper()
    return caught.value


def largest_difference(decoded: Decoded, expected: Pixels) -> int:
    assert decoded.pixels.shape == expected.shape
    return int(np.abs(decoded.pixels.astype(int) - expected).max())


# --- modes ----------------------------------------------------------------------------------------


def test_pixels_are_writable_contiguous_rgb() -> None:
    decoded = decode(saved(smooth()))
    assert decoded.pixels.dtype == np.uint8
    assert decoded.pixels.flags.c_contiguous
    assert decoded.pixels.flags.writeable
    assert (decoded.height, decoded.width, decoded.mode, decoded.format) == (48, 64, "RGB", "PNG")
    assert np.array_equal(decoded.pixels, smooth())
    assert decoded.notes == ()


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM", "WEBP"])
def test_lossless_formats_give_their_pixels_back(kind: str) -> None:
    options = {"lossless": True} if kind == "WEBP" else {}
    decoded = decode(saved(smooth(), kind, **options), name=f"a.{kind.lower()}")
    assert decoded.format == kind
    assert np.array_equal(decoded.pixels, smooth())
    assert decoded.notes == ()


@pytest.mark.parametrize(("kind", "tolerance"), [("JPEG", 10), ("AVIF", 12), ("GIF", 60)])
def test_lossy_formats_are_close(kind: str, tolerance: int) -> None:
    decoded = decode(saved(smooth(), kind))
    assert decoded.format == kind
    assert largest_difference(decoded, smooth()) <= tolerance


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "tiff_adobe_deflate", "packbits"])
@pytest.mark.parametrize("big", [False, True])
def test_tiff_compressions_survive_the_rewritten_directory(compression: str, big: bool) -> None:
    decoded = decode(saved(smooth(), "TIFF", compression=compression, big_tiff=big))
    assert np.array_equal(decoded.pixels, smooth())


def test_gray_and_bilevel_become_three_equal_channels() -> None:
    gray = smooth()[..., 0]
    for image, expected in [
        (Image.fromarray(gray), gray),
        (Image.fromarray(gray > 100), np.where(gray > 100, 255, 0)),
    ]:
        decoded = decode(saved(image))
        assert np.array_equal(decoded.pixels, np.repeat(expected[..., None], 3, axis=2))


def test_transparency_lies_on_the_declared_background() -> None:
    red = np.zeros((4, 8, 4), np.uint8)
    red[..., 0] = 200
    red[:, 4:, 3] = 255  # left half transparent
    images = {
        "RGBA": Image.fromarray(red),
        "LA": Image.fromarray(red[..., [0, 3]], "LA"),
    }
    for mode, image in images.items():
        for colour in [(255, 255, 255), (10, 20, 30)]:
            decoded = decode(saved(image), limits=Limits(background=colour))
            assert decoded.mode == mode
            assert tuple(decoded.pixels[0, 0]) == colour
            assert decoded.pixels[0, 7, 0] == 200
            assert decoded.notes == ("transparent pixels laid on the background",)


def test_half_transparent_pixels_are_mixed() -> None:
    pixels = np.full((2, 2, 4), (100, 0, 0, 128), np.uint8)
    assert decode(saved(pixels), limits=Limits(background=(0, 0, 0))).pixels[0, 0, 0] in (50, 51)


def test_palette_with_transparency() -> None:
    image = Image.new("P", (8, 8), 1)
    image.putpalette([0, 0, 0, 10, 200, 30])
    image.putpixel((0, 0), 0)
    decoded = decode(saved(image, transparency=0))
    assert tuple(decoded.pixels[0, 0]) == (255, 255, 255)
    assert tuple(decoded.pixels[1, 1]) == (10, 200, 30)
    per_entry = decode(saved(image, transparency=bytes([255, 0])))
    assert tuple(per_entry.pixels[0, 0]) == (0, 0, 0)
    assert tuple(per_entry.pixels[1, 1]) == (255, 255, 255)


def test_opaque_alpha_is_not_mentioned() -> None:
    assert decode(saved(Image.fromarray(smooth()).convert("RGBA"))).notes == ()


# --- 16 bits and floating point ---------------------------------------------------------------------


def gray_16() -> NDArray[np.uint16]:
    return np.arange(0, 65536, 32, dtype=np.uint16).reshape(32, 64)


def expected_of_16(values: NDArray[np.uint16]) -> Pixels:
    eight = np.round(values.astype(float) * 255 / 65535).astype(np.uint8)
    return np.repeat(eight[..., None], 3, axis=2)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_16_bit_gray_is_scaled_and_not_clipped(kind: str) -> None:
    decoded = decode(saved(Image.fromarray(gray_16()), kind))
    assert np.array_equal(decoded.pixels, expected_of_16(gray_16()))
    assert decoded.notes == ("16-bit gray scaled to 8 bits",)


def tiff(bits: int, photometric: int, pixels: bytes, width: int, height: int, **more: int) -> bytes:
    """A big-endian or little-endian TIFF of one strip, written by hand."""
    order = ">" if more.get("big_endian") else "<"
    tags = {256: width, 257: height, 258: bits, 259: 1, 262: photometric, 273: 8, 277: 1, 278: height}
    tags |= {279: len(pixels), 339: more.get("sample_format", 1)}
    directory = struct.pack(order + "H", len(tags))
    for tag, value in sorted(tags.items()):
        directory += struct.pack(order + "HHII", tag, 4, 1, value)
    head = (b"MM\0*" if order == ">" else b"II*\0") + struct.pack(order + "I", 8 + len(pixels))
    return head + pixels + directory + struct.pack(order + "I", 0)


def test_16_bit_tiff_in_either_byte_order_and_with_white_as_zero() -> None:
    values = gray_16()
    expected = expected_of_16(values)
    little = decode(tiff(16, 1, values.astype("<u2").tobytes(), 64, 32))
    large = decode(tiff(16, 1, values.astype(">u2").tobytes(), 64, 32, big_endian=1))
    inverted = decode(tiff(16, 0, values.astype("<u2").tobytes(), 64, 32))
    assert np.array_equal(little.pixels, expected)
    assert np.array_equal(large.pixels, expected)
    assert np.array_equal(inverted.pixels, 255 - expected)


def test_12_bit_tiff_is_scaled_by_its_own_range() -> None:
    values = np.array([0, 1000, 2048, 4095], np.uint16)
    packed = b"".join(
        bytes([a >> 4, (a & 15) << 4 | b >> 8, b & 255]) for a, b in values.reshape(-1, 2).tolist()
    )
    decoded = decode(tiff(12, 1, packed, 4, 1))
    assert decoded.pixels[0, :, 0].tolist() == [0, 62, 128, 255]


def test_16_bit_colour_is_scaled() -> None:
    rows = b"".join(b"\0" + struct.pack(">3H", level, 65535 - level, 0) for level in (0, 32768, 65535))
    body = struct.pack(">IIBBBBB", 1, 3, 16, 2, 0, 0, 0)
    data = (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", body)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )
    assert decode(data).pixels[:, 0].tolist() == [[0, 255, 0], [128, 127, 0], [255, 0, 0]]


@pytest.mark.parametrize(
    ("bits", "sample_format", "words"), [(32, 3, "floating-point"), (16, 2, "signed"), (32, 1, "32-bit")]
)
def test_values_of_unknown_range_are_refused(bits: int, sample_format: int, words: str) -> None:
    error = refusal(tiff(bits, 1, bytes(bits // 8 * 16), 4, 4, sample_format=sample_format))
    assert words in error.reason
    assert error.remedy.startswith("Give the range")


def test_pfm_is_refused_too() -> None:
    assert "Give the range" in refusal(b"Pf\n2 2\n-1.0\n" + bytes(16)).remedy


# --- CMYK -------------------------------------------------------------------------------------------


def cmyk_and_its_rgb() -> tuple[Image.Image, Pixels]:
    inks = np.zeros((32, 64, 4), np.uint8)
    inks[:16, :32], inks[:16, 32:] = (200, 30, 60, 0), (0, 180, 40, 50)
    inks[16:, :32], inks[16:, 32:] = (10, 20, 220, 100), (0, 0, 0, 255)
    rgb = (255 - inks[..., :3].astype(int)) * (255 - inks[..., 3:].astype(int)) / 255
    return Image.fromarray(inks, "CMYK"), np.round(rgb).astype(np.uint8)


def test_adobe_inverted_cmyk_is_within_2_levels() -> None:
    image, expected = cmyk_and_its_rgb()
    decoded = decode(saved(image, "JPEG", quality=100))
    assert decoded.mode == "CMYK"
    assert largest_difference(decoded, expected) <= 2
    assert decoded.notes == ()


def test_inks_are_multiplied_and_rounded_down_as_in_browsers() -> None:
    inks = np.random.default_rng(0).integers(0, 256, (40, 50, 4), dtype=np.uint8)
    left = 255 - inks.astype(int)
    expected = left[..., :3] * left[..., 3:] // 255
    decoded = decode(saved(Image.fromarray(inks, "CMYK"), "TIFF"))
    np.testing.assert_array_equal(decoded.pixels, expected)


def test_ycck_is_within_2_levels() -> None:
    """YCCK as Adobe writes it: the inks as if RGB, turned to YCbCr, black inverted, transform flag 2."""
    image, expected = cmyk_and_its_rgb()
    inks = np.asarray(image)
    colour = np.asarray(Image.fromarray(inks[..., :3].copy()).convert("YCbCr"))
    stored = np.concatenate([colour, 255 - inks[..., 3:]], axis=-1)
    data = saved(Image.fromarray(255 - stored, "CMYK"), "JPEG", quality=100)  # Pillow inverts once more
    assert data.count(b"Adobe") == 1
    flag = data.index(b"Adobe") + 11
    decoded = decode(data[:flag] + b"\2" + data[flag + 1 :])
    assert largest_difference(decoded, expected) <= 2


def test_cmyk_without_adobes_marker_is_noted() -> None:
    image, expected = cmyk_and_its_rgb()
    data = saved(image, "JPEG", quality=100)
    start = data.index(b"\xff\xee")
    length = int.from_bytes(data[start + 2 : start + 4], "big")
    decoded = decode(data[:start] + data[start + 2 + length :])
    assert largest_difference(decoded, expected) <= 2
    assert "Adobe" in decoded.notes[0]


def test_cmyk_tiff() -> None:
    image, expected = cmyk_and_its_rgb()
    assert largest_difference(decode(saved(image, "TIFF")), expected) <= 1


# --- orientation, camera, quality -------------------------------------------------------------------

_HOW_TO_STORE = {  # what a camera would store so that each orientation gives the upright picture
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, 1),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: np.rot90(a, -1),
}


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_all_eight_orientations_give_one_picture(kind: str) -> None:
    options = {"lossless": True} if kind == "WEBP" else {}
    for orientation, store in _HOW_TO_STORE.items():
        exif = Image.Exif()
        exif[0x0112] = orientation
        data = saved(np.ascontiguousarray(store(smooth())), kind, exif=exif, **options)
        decoded = decode(data)
        assert np.array_equal(decoded.pixels, smooth()), orientation
        assert decoded.pixels.flags.c_contiguous


def test_jpeg_and_avif_are_turned_too() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    for kind in ("JPEG", "AVIF"):
        decoded = decode(saved(np.rot90(smooth(), 1).copy(), kind, exif=exif, quality=95))
        assert largest_difference(decoded, smooth()) <= 12, kind


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_senseless_orientations_are_upright(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert np.array_equal(decode(saved(smooth(), exif=exif)).pixels, smooth())


def test_broken_exif_is_harmless() -> None:
    data = saved(smooth(), "JPEG")
    for block in (
        b"",
        b"II*\0",
        b"II*\0\xff\xff\xff\xff",
        b"MM\0*\0\0\0\x08\xff\xff" + bytes(30),
        b"nonsense" * 9,
    ):
        body = b"Exif\0\0" + block
        broken = data[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + data[2:]
        assert np.array_equal(decode(broken).pixels, decode(data).pixels)


def test_jpegs_of_one_quality_have_one_hash_of_their_tables() -> None:
    first, again, other = (decode(saved(smooth(), "JPEG", quality=quality)) for quality in (80, 80, 81))
    assert first.compression == again.compression != other.compression
    assert first.compression
    assert not decode(saved(smooth())).compression


def test_camera_and_quality_are_read() -> None:
    exif = Image.Exif()
    exif[0x0110] = "Some Camera 3"
    for quality in (30, 50, 75, 92):
        decoded = decode(saved(smooth(), "JPEG", quality=quality, exif=exif))
        assert abs(decoded.quality - quality) <= 1
        assert decoded.camera == "Some Camera 3"
    assert decode(saved(smooth())).quality == 0


# --- first of several, names, profiles, tails ---------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "words"), [("GIF", "animation"), ("PNG", "animation"), ("WEBP", "animation"), ("TIFF", "pages")]
)
def test_the_first_of_several_pictures_is_used_and_said(kind: str, words: str) -> None:
    options = {"lossless": True} if kind == "WEBP" else {}
    other = Image.fromarray(255 - smooth())
    data = saved(smooth(), kind, save_all=True, append_images=[other], **options)
    decoded = decode(data)
    assert largest_difference(decoded, smooth()) <= (60 if kind == "GIF" else 0)
    assert len(decoded.notes) == 1
    assert words in decoded.notes[0]


def test_a_name_that_does_not_fit_is_noted() -> None:
    assert decode(saved(smooth()), name="cat/a.b.jpg").notes == ("a PNG named .jpg",)
    for name in ("a.png", "a.PNG", "a", "", ".png", "photos.v2/a"):
        assert decode(saved(smooth()), name=name).notes == ()
    for name in ("a.JPG", "a.jpeg", "a.Jpg", "a.jfif"):
        assert decode(saved(smooth(), "JPEG"), name=name).notes == ()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP"])
def test_bytes_behind_the_picture_are_noted_and_zeros_are_not(kind: str) -> None:
    data = saved(smooth(), kind)
    clean = decode(data)
    assert clean.notes == ()
    tailed = decode(data + b"PK\x03\x04" + bytes(50))
    assert np.array_equal(tailed.pixels, clean.pixels)
    assert "54 bytes after the end of the picture (a zip archive)" in tailed.notes[0]
    assert decode(data + bytes(16)).notes == ()


def test_an_end_marker_inside_a_thumbnail_is_not_the_end() -> None:
    body = b"Exif\0\0" + b"\xff\xd8\xff\xd9" * 5
    data = saved(smooth(), "JPEG", progressive=True)
    with_thumbnail = data[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + data[2:]
    assert decode(with_thumbnail).notes == ()


def icc_profile(name: str) -> bytes:
    text = name.encode() + b"\0"
    tag = b"desc" + bytes(4) + struct.pack(">I", len(text)) + text
    tags = struct.pack(">I4sII", 1, b"desc", 144, len(tag))
    return struct.pack(">I", 144 + len(tag)) + bytes(32) + b"acsp" + bytes(88) + tags + tag


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_colour_profiles_are_never_applied(kind: str) -> None:
    plain = decode(saved(smooth(), kind))
    for profile, note in [
        (icc_profile("sRGB IEC61966-2.1"), ()),
        (icc_profile("Display P3"), ("colour profile 'Display P3' not applied",)),
        (b"no profile at all" * 20, ("broken colour profile ignored",)),
    ]:
        decoded = decode(saved(smooth(), kind, icc_profile=profile))
        assert np.array_equal(decoded.pixels, plain.pixels)
        assert decoded.notes == note


# --- damage -------------------------------------------------------------------------------------------


def test_a_truncated_jpeg_says_its_row() -> None:
    noisy = np.random.default_rng(0).integers(1, 255, (480, 320, 3), dtype=np.uint8)
    data = saved(noisy, "JPEG")
    error = refusal(data[: len(data) // 2])
    row = int(error.reason.partition("row ")[2].partition(" ")[0])
    assert error.reason == f"truncated JPEG (row {row} of 480)"
    assert 200 <= row <= 280
    for cut in (3, 20, 200, len(data) - 1):
        assert "truncated" in refusal(data[:cut]).reason


def test_a_truncated_png_says_its_row() -> None:
    noisy = np.random.default_rng(0).integers(0, 255, (300, 40, 3), dtype=np.uint8)
    data = saved(noisy, "PNG")
    row = int(refusal(data[: len(data) // 2]).reason.partition("row ")[2].partition(" ")[0])
    assert 140 <= row <= 160
    for cut in (9, 30, 40, len(data) - 13, len(data) - 1):
        assert "truncated PNG" in refusal(data[:cut]).reason


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "BMP", "TIFF", "PPM", "AVIF"])
def test_other_formats_cut_in_the_middle_are_refused(kind: str) -> None:
    data = saved(smooth(), kind)
    reason = refusal(data[: len(data) // 2]).reason
    assert "truncated" in reason or kind == "AVIF"


def test_what_only_pillow_finds_is_an_image_error_too() -> None:
    data = bytearray(saved(smooth(), "BMP"))
    data[28:30] = struct.pack("<H", 30_000)
    assert refusal(bytes(data)).reason == "cannot be decoded (Unsupported BMP pixel depth (30000))"


def test_a_wrong_checksum_is_named() -> None:
    data = bytearray(saved(smooth(), "PNG"))
    data[data.index(b"IDAT") + 20] ^= 1
    assert refusal(bytes(data)).reason == "damaged PNG: wrong checksum in chunk 'IDAT'"


def test_a_png_whose_stream_ends_early_is_refused() -> None:
    """Every checksum holds, but the compressed pixels stop half way."""
    data = saved(smooth(), "PNG")
    start = data.index(b"IDAT") - 4
    length = int.from_bytes(data[start : start + 4], "big")
    half = chunk(b"IDAT", data[start + 8 : start + 8 + length // 2])
    assert "truncated PNG" in refusal(data[:start] + half + data[start + 12 + length :]).reason


def test_damaged_tiff_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    for compression in ("tiff_lzw", "tiff_adobe_deflate"):
        data = bytearray(saved(smooth(), "TIFF", compression=compression))
        start = struct.unpack_from("<I", data, 4)[0] // 2
        data[start : start + 60] = b"\xff" * 60
        assert "damaged TIFF" in refusal(bytes(data)).reason
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("data", "reason", "remedy"),
    [
        (b"", "empty", "Copy"),
        (b"  <!DOCTYPE html><html>404</html>", "is HTML", "Download"),
        (b"\xef\xbb\xbf<html><head>", "is HTML", "Download"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00", "git-LFS pointer", "run git lfs pull"),
        (b'<?xml version="1.0"?><svg xmlns="x"></svg>', "SVG", "Convert"),
        (b"%PDF-1.7\n", "PDF", "Convert"),
        (b"%!PS-Adobe-3.0 EPSF-3.0", "EPS", "Convert"),
        (b"8BPS\0\1" + bytes(30), "PSD", "Convert"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "truncated HEIC", "copy it again"),
        (b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom", "video", "Convert"),
        (b'{"error": "not found"}', "JSON", "Download"),
        (b"Not found\n", "is text", "Remove"),
        (bytes(500), "nothing but zero bytes", "Copy"),
        (b"\x80\x02}q\x00.", "pickle", "Export"),
        (b"\x93NUMPY\1\0", "NumPy", "Export"),
        (np.random.default_rng(0).bytes(5000), "not an image", "Convert"),
    ],
)  # fmt: skip
def test_what_is_no_image_is_named_with_a_remedy(data: bytes, reason: str, remedy: str) -> None:
    error = refusal(data)
    assert reason in error.reason
    assert remedy in error.remedy
    assert str(error) == f"{error.reason}. Left out. {error.remedy}"


def test_a_camera_raw_file_is_not_mistaken_for_its_thumbnail() -> None:
    data = tiff(8, 1, bytes(64), 8, 8)
    offset = struct.unpack_from("<I", data, 4)[0]
    count = struct.unpack_from("<H", data, offset)[0]
    entries = data[offset + 2 : offset + 2 + 12 * count]
    dng = struct.pack("<HHI4s", 50706, 1, 4, b"\1\4\0\0")
    raw = data[:offset] + struct.pack("<H", count + 1) + entries + dng + bytes(4)
    assert "raw" in refusal(raw).reason
    assert decode(data).pixels.shape == (8, 8, 3)


# --- limits -------------------------------------------------------------------------------------------


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png_bomb(width: int, height: int) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    packed = zlib.compress(bytes(10_000_000), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", packed) * 300 + chunk(b"IEND", b"")


def huge_headers() -> dict[str, bytes]:
    """Files that say 60,000 x 60,000 pixels in their first bytes, one for each format."""
    side = 60_000
    jpeg = bytearray(saved(smooth(), "JPEG"))
    frame = jpeg.index(b"\xff\xc0")
    jpeg[frame + 5 : frame + 9] = struct.pack(">HH", side, side)
    gif = bytearray(saved(smooth(), "GIF"))
    gif[6:10] = struct.pack("<HH", side, side)
    bmp = bytearray(saved(smooth(), "BMP"))
    bmp[18:26] = struct.pack("<ii", side, side)
    webp = bytearray(saved(smooth(), "WEBP", lossless=True))
    webp[21:25] = struct.pack("<I", 0x3FFF | 0x3FFF << 14)
    return {
        "PNG": png_bomb(side, side),
        "JPEG": bytes(jpeg),
        "GIF": bytes(gif),
        "BMP": bytes(bmp),
        "WEBP": bytes(webp),
        "TIFF": tiff(8, 1, bytes(16), side, side),
        "PPM": b"P6 60000 60000 255\n" + bytes(100),
    }


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF", "PPM"])
def test_too_many_pixels_are_refused_from_the_header_alone(kind: str) -> None:
    data = huge_headers()[kind]
    start = time.perf_counter()
    error = refusal(data)
    assert time.perf_counter() - start <= 0.1
    assert "more than the limit of 50,000,000" in error.reason
    assert "--data.max-pixels" in error.remedy


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF", "PPM"])
def test_the_size_is_checked_before_pillow_sees_the_file(kind: str) -> None:
    def refuse(width: int, height: int) -> None:
        raise ImageError(f"{width} x {height}", "Stop")

    with pytest.raises(ImageError, match="64 x 48"):
        read_header(saved(smooth(), kind), refuse)


def test_the_pixel_limit_can_be_raised_and_lowered() -> None:
    data = saved(smooth())
    assert "3,000" in refusal(data, limits=Limits(max_pixels=3000)).reason
    assert decode(data, limits=Limits(max_pixels=48 * 64)).width == 64


@pytest.mark.parametrize("name", [b"zTXt", b"iTXt", b"iCCP"])
def test_metadata_bombs_are_refused_within_their_limit(name: bytes) -> None:
    packed = zlib.compress(bytes(30_000_000), 9)
    body = {b"zTXt": b"k\0\0" + packed, b"iTXt": b"k\0\1\0\0\0" + packed, b"iCCP": b"p\0\0" + packed}[name]
    data = saved(smooth())
    bomb = data[:33] + chunk(name, body) + data[33:]
    start = time.perf_counter()
    assert "decompression bomb" in refusal(bomb).reason
    assert time.perf_counter() - start <= 0.1


def test_a_jpeg_of_endless_scans_is_refused() -> None:
    data = bytearray(saved(smooth(), "JPEG", progressive=True))
    frame = data.index(b"\xff\xc2")
    data[frame + 5 : frame + 9] = struct.pack(">HH", 7000, 7000)
    last = data.rindex(b"\xff\xda")
    bomb = bytes(data[:last]) + bytes(data[last:-2]) * 200 + b"\xff\xd9"
    assert "scans" in refusal(bomb).reason


def test_enormous_tiff_tiles_are_refused() -> None:
    data = tiff(8, 1, bytes(64), 8, 8)
    offset = struct.unpack_from("<I", data, 4)[0]
    tags = {256: 8, 257: 8, 258: 8, 259: 5, 262: 1, 277: 1, 322: 60_000, 323: 60_000, 324: 8, 325: 64}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    assert "tiles" in refusal(data[:offset] + struct.pack("<H", len(tags)) + entries + bytes(4)).reason


def test_too_many_bytes_are_refused_unread() -> None:
    assert "limit" in refusal(saved(smooth()), limits=Limits(max_bytes=100)).reason


@pytest.mark.parametrize(("width", "height"), [(2, 10_000), (10_000, 1), (21, 1)])
def test_extreme_shapes_are_set_aside(width: int, height: int) -> None:
    error = refusal(saved(Image.new("RGB", (width, height))))
    assert error.reason.startswith("extreme shape")
    assert error.remedy == "Crop it to use it"


def test_twenty_to_one_is_still_used_and_one_pixel_is_noted() -> None:
    assert decode(saved(Image.new("RGB", (100, 5)))).width == 100
    assert decode(saved(Image.new("RGB", (1, 1)))).notes == ("extreme shape: only 1 x 1 pixels",)


# --- manners ------------------------------------------------------------------------------------------


def test_threads_agree_with_one_after_the_other() -> None:
    files = [saved(np.roll(smooth(), n, axis=1), kind) for n in range(8) for kind in ("JPEG", "PNG", "TIFF")]
    expected = [pixel_sha256(decode(data).pixels) for data in files]
    found: list[str] = [""] * len(files)

    def work(numbers: range) -> None:
        for n in numbers:
            found[n] = pixel_sha256(decode(files[n]).pixels)

    threads = [threading.Thread(target=work, args=(range(k, len(files), 4),)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == expected


def test_pixel_hash_sees_shape_and_pixels() -> None:
    pixels = smooth()
    assert pixel_sha256(pixels) == pixel_sha256(np.asfortranarray(pixels))
    assert pixel_sha256(pixels) != pixel_sha256(pixels.reshape(64, 48, 3))
    changed = pixels.copy()
    changed[0, 0, 0] ^= 1
    assert pixel_sha256(pixels) != pixel_sha256(changed)


def test_large_images_are_copied_in_bands_without_a_seam() -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (2100, 2003, 3), dtype=np.uint8)
    assert np.array_equal(decode(saved(pixels, "BMP")).pixels, pixels)


def test_the_decoder_needs_only_numpy_and_pillow() -> None:
    program = (
        "import sys; import saccade.images.decoder; "
        "heavy = ('torch', 'pyarrow', 'pydantic', 'scipy', 'PIL.TiffImagePlugin'); "
        "print([name for name in heavy if name in sys.modules])"
    )
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"


def test_errors_survive_copying_and_so_pickling() -> None:
    error = refusal(b"")
    again = copy.copy(error)  # goes the way pickling goes, by __reduce__
    assert (again.reason, again.remedy, str(again)) == (error.reason, error.remedy, str(error))


# --- real files ---------------------------------------------------------------------------------------


def test_the_dirty_collection_is_read_to_its_end(
    shared_data: Callable[[str], Path], capfd: pytest.CaptureFixture[str]
) -> None:
    """Warnings are errors here, so one that leaks would turn a readable file into a refused one."""
    files = sorted(path for path in shared_data("data/dirty").rglob("*") if path.is_file())
    assert len(files) >= 900
    used, refused = 0, []
    for path in files:
        try:
            decoded = decode(path.read_bytes(), name=path.name)
            used += 1
            assert decoded.pixels.shape == (decoded.height, decoded.width, 3)
        except ImageError as error:
            refused.append(f"{path.name}: {error}")
    assert used >= 650
    assert all(line.isprintable() and ". Left out. " in line for line in refused)
    assert capfd.readouterr() == ("", "")


def test_real_orientation_samples_agree(shared_data: Callable[[str], Path]) -> None:
    folder = shared_data("data/dirty/exif-orientation")
    for shape in ("Landscape", "Portrait"):
        pictures = [decode((folder / f"{shape}_{n}.jpg").read_bytes()).pixels for n in range(9)]
        assert len({picture.shape for picture in pictures}) == 1
        for picture in pictures[1:]:
            assert np.abs(picture.astype(int) - pictures[0]).mean() < 8
