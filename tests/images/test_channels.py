"""Gray, 16 bits, many channels: every level and channel kept, others set aside, hostile files refused."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from saccade.caches.store import decoded_by
from saccade.errors import ImageError
from saccade.images import given
from saccade.images.decoder import Limits, decode
from saccade.images.rendering import as_rgb
from saccade.images.thumbnails import thumbnail
from saccade.preprocess import PixelFormat

SIDES = (19, 23)  # height, width
RANDOM = np.random.default_rng(0)


def limits(channels: str, bits: int = 0, **others: Any) -> Limits:
    return Limits(pixels=PixelFormat(channels, bits or 8), any_bits=not bits, **others)


def noise(channels: int, kind: str = "uint16") -> NDArray[Any]:
    return RANDOM.integers(0, np.iinfo(kind).max + 1, (*SIDES, channels)).astype(kind)


def npy(array: NDArray[Any], **options: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, array, **options)
    return file.getvalue()


def png(pixels: NDArray[Any]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def tiff(
    array: NDArray[Any],
    *,
    order: str = "<",
    separate: bool = False,
    compression: int = 1,
    predictor: int = 1,
    rows: int = 5,
) -> bytes:
    """A TIFF written by hand (TIFF 6.0): one strip for `rows` rows, of each plane where they are separate."""
    height, width, channels = array.shape
    planes = [array[..., i : i + 1] for i in range(channels)] if separate else [array]
    strips = [plane[top : top + rows] for plane in planes for top in range(0, height, rows)]
    if predictor == 2:
        strips = [np.diff(s, axis=1, prepend=np.zeros_like(s[:, :1])).astype(array.dtype) for s in strips]
    data = [strip.astype(array.dtype.newbyteorder(order)).tobytes() for strip in strips]
    packed = [zlib.compress(one) for one in data] if compression == 8 else data
    start = 8
    offsets = np.cumsum([start, *map(len, packed)]).tolist()
    body = b"".join(packed)
    body += b"\0" * (len(body) % 2)
    directory_at, bits = start + len(body), array.dtype.itemsize * 8
    values: dict[int, tuple[str, list[int]]] = {
        256: ("I", [width]),
        257: ("I", [height]),
        258: ("H", [bits] * channels),
        259: ("H", [compression]),
        262: ("H", [1]),
        273: ("I", offsets[:-1]),
        277: ("H", [channels]),
        278: ("I", [rows]),
        279: ("I", [len(one) for one in packed]),
        284: ("H", [2 if separate else 1]),
        317: ("H", [predictor]),
        339: ("H", [1] * channels),
    }
    tail_at = directory_at + 2 + 12 * len(values) + 4
    entries, tail = b"", b""
    for tag, (code, numbers) in values.items():
        raw = struct.pack(f"{order}{len(numbers)}{code}", *numbers)
        if len(raw) > 4:
            place = struct.pack(f"{order}I", tail_at + len(tail))
            tail += raw
        else:
            place = raw.ljust(4, b"\0")
        entries += struct.pack(f"{order}HHI", tag, {"H": 3, "I": 4}[code], len(numbers)) + place
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", directory_at)
    directory = struct.pack(f"{order}H", len(values)) + entries + struct.pack(f"{order}I", 0) + tail
    return head + body + directory


# -- every level, every channel ----------------------------------------------------------------------


def test_gray_of_16_bits_keeps_its_65536_levels() -> None:
    every = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    decoded = decode(png(every), limits=limits("gray", 16))
    assert decoded.pixels.dtype == np.uint16
    assert np.array_equal(decoded.pixels[..., 0], every)
    eight = decode(png(every), limits=limits("gray", 8)).pixels
    assert np.array_equal(eight, decode(png(every)).pixels[..., :1]), "8 bits are those of an RGB run"


@pytest.mark.parametrize("kind", ["PNG", "BMP", "JPEG"])
def test_gray_of_8_bits_is_what_rgb_repeats(kind: str) -> None:
    file = io.BytesIO()
    Image.fromarray(noise(1, "uint8")[..., 0]).save(file, kind)
    pixels = decode(file.getvalue(), limits=limits("gray")).pixels
    assert pixels.shape == (*SIDES, 1)
    assert pixels.dtype == np.uint8
    assert np.array_equal(np.repeat(pixels, 3, axis=2), decode(file.getvalue()).pixels)


def test_colours_are_turned_gray_as_pillow_does_and_it_is_said() -> None:
    photo = noise(3, "uint8")
    decoded = decode(png(photo), limits=limits("gray"))
    assert np.array_equal(decoded.pixels[..., 0], np.asarray(Image.fromarray(photo).convert("L")))
    assert "colours turned to gray" in decoded.notes


def test_12_bits_in_16_are_stretched_by_the_value_that_means_white() -> None:
    values = np.array([[0, 1, 4095, 5000]], np.uint16)
    decoded = decode(png(values), limits=limits("gray", 16, gray_maximum=4095))
    assert decoded.pixels.ravel().tolist() == [0, 16, 65535, 65535]
    assert "values above 4095 clipped to white" in decoded.notes


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("separate", [False, True])
@pytest.mark.parametrize(("compression", "predictor"), [(1, 1), (8, 1), (8, 2)])
@pytest.mark.parametrize("kind", ["uint8", "uint16"])
def test_tiffs_of_five_channels_are_read_to_the_bit(
    kind: str, compression: int, predictor: int, separate: bool, order: str
) -> None:
    array = noise(5, kind)
    file = tiff(array, order=order, separate=separate, compression=compression, predictor=predictor)
    decoded = decode(file, limits=limits("5"), name="a.tif")
    assert decoded.pixels.dtype == array.dtype
    assert np.array_equal(decoded.pixels, array)
    assert decoded.mode == f"5 x {kind}"
    assert not decoded.notes


def test_a_page_for_each_channel() -> None:
    array = noise(4, "uint8")
    file = io.BytesIO()
    pages = [Image.fromarray(array[..., i]) for i in range(4)]
    pages[0].save(file, "TIFF", save_all=True, append_images=pages[1:], compression="tiff_lzw")
    assert np.array_equal(decode(file.getvalue(), limits=limits("4")).pixels, array)


@pytest.mark.parametrize("kind", ["uint8", "uint16", ">u2"])
@pytest.mark.parametrize("columns_first", [False, True])
def test_npy_is_read_as_it_was_saved(kind: str, columns_first: bool) -> None:
    array = noise(5, "uint8" if kind == "uint8" else "uint16").astype(kind)
    saved = np.asfortranarray(array) if columns_first else array
    pixels = decode(npy(saved), limits=limits("5"), name="a.npy").pixels
    assert pixels.flags.c_contiguous
    assert pixels.flags.writeable
    assert np.array_equal(pixels, array)


@pytest.mark.parametrize(("channels", "mode"), [("2", "LA"), ("3", "RGB"), ("4", "RGBA"), ("4", "CMYK")])
def test_usual_files_with_as_many_channels_are_taken_as_they_are(channels: str, mode: str) -> None:
    array = noise(int(channels), "uint8")
    file = io.BytesIO()
    Image.frombytes(mode, SIDES[::-1], array.tobytes()).save(file, "TIFF" if mode == "CMYK" else "PNG")
    assert np.array_equal(decode(file.getvalue(), limits=limits(channels)).pixels, array)


def test_bits_are_those_declared() -> None:
    eight, sixteen = noise(5, "uint8"), noise(5)
    wide = decode(npy(eight), limits=limits("5", 16)).pixels
    assert np.array_equal(wide, eight.astype(np.uint16) * 257)
    narrow = decode(npy(sixteen), limits=limits("5", 8))
    assert np.array_equal(narrow.pixels, np.rint(sixteen / 257).astype(np.uint8))
    assert "16 bits scaled to 8" in narrow.notes


def test_arrays_in_memory_are_treated_as_files() -> None:
    array = noise(5)
    wanted = decode(npy(array), limits=limits("5", 16)).pixels
    assert np.array_equal(given.pixels(array, limits("5", 16)), wanted)
    gray = noise(1)[..., 0]
    for form in (gray, gray[..., None], Image.fromarray(gray)):
        found = given.pixels(given.take(form, limits("gray", 16)), limits("gray", 16))
        assert np.array_equal(found[..., 0], gray)


def test_a_rendering_shows_every_channel() -> None:
    for channel in range(5):
        dark = np.zeros((8, 8, 5), np.uint8)
        dark[2:4, 2:4, channel] = 200
        assert as_rgb(dark).any(), f"channel {channel} is not to be seen"
    faint = np.full((8, 8, 1), 30_000, np.uint16)
    faint[:4] += 100
    assert np.ptp(as_rgb(faint)) == 255, "16 bits are stretched"
    photo = noise(3, "uint8")
    assert as_rgb(photo) is photo


@pytest.mark.parametrize(("data", "channels"), [(png(noise(1)[..., 0]), "gray"), (npy(noise(5)), "5")])
def test_thumbnails_show_them(data: bytes, channels: str) -> None:
    shown = thumbnail("a", lambda path: data, limits=limits(channels))
    assert (shown.width, shown.height) == SIDES[::-1]
    assert shown.uri.startswith("data:image/png")


def test_caches_know_the_declared_channels_and_rgb_keeps_its_keys() -> None:
    keys = {decoded_by(limits(*how)) for how in (("gray", 8), ("gray", 16), ("5", 16), ("5",))}
    assert len(keys) == 4
    assert "channels" not in decoded_by(Limits())


# -- set aside, with the remedy ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "channels", "message"),
    [
        (npy(noise(4)), "5", "4 channels, where 5 are declared.*--channels 4"),
        (npy(noise(5)), "gray", "5 channels, where one of gray is declared.*--channels 5"),
        (npy(noise(3)), "gray", "3 channels, where one of gray is declared.*--channels 3"),
        (tiff(noise(7, "uint8")), "gray", "7 channels, where one of gray.*--channels 7"),
        (png(noise(3, "uint8")), "5", "3 channels, where 5 are declared.*--channels rgb"),
        (png(noise(1)[..., 0]), "5", "1 channel, where 5 are declared.*--channels gray"),
        (npy(np.moveaxis(noise(5), 2, 0)), "5", "array of uint16.*moveaxis"),
        (npy(noise(5) / 65535), "5", r"array of float64.*\(65535 \* image\)"),
        (npy(noise(5).astype(np.int32)), "5", "array of int32.*uint8 or uint16"),
        (npy(noise(5)[None]), "5", r"array of uint16 \(1, 19, 23, 5\)"),
    ],
)
def test_other_channels_are_set_aside_with_the_remedy(data: bytes, channels: str, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        decode(data, limits=limits(channels))


def test_an_rgb_run_says_how_arrays_can_be_read() -> None:
    with pytest.raises(ImageError, match=r"a NumPy array.*--channels"):
        decode(npy(noise(5)))


# -- hostile ---------------------------------------------------------------------------------------------


def with_header(text: str, body: bytes = b"") -> bytes:
    padded = text.encode().ljust(118) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(padded)) + padded + body


def of_shape(shape: str) -> bytes:
    return with_header(f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}}}")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (npy(np.array([[{}, []]], dtype=object), allow_pickle=True), "a pickle"),
        (npy(np.zeros((4, 4), [("a", "u1"), ("b", "u2")])), "a pickle"),
        (npy(noise(5))[:-1], "truncated NPY"),
        (npy(noise(5)) + b"x", "damaged NPY: more numbers"),
        (npy(noise(5))[:20], "damaged NPY: its header"),
        (of_shape("(99999, 99999, 5)"), "pixels, more than"),
        (of_shape("(7000, 7000, 5)"), "more values than"),
        (of_shape("(-1, 8, 5)"), "damaged"),
        (of_shape("(0, 8, 5)"), "damaged"),
        (of_shape("'many'"), "damaged"),
        (with_header("__import__('os').system('true')"), "damaged NPY: its header"),
        (with_header("(" * 90), "damaged NPY: its header"),
        (b"\x93NUMPY\x09\x00" + bytes(99), "format 9.0"),
        (b"\x93NUMPY\x01\x00\xff\xff" + bytes(70_000), "damaged NPY: its header"),
    ],
)
def test_hostile_arrays_are_refused_in_words(data: bytes, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        decode(data, limits=limits("5"))


def test_cut_and_changed_tiffs_are_refused_or_read_never_a_crash() -> None:
    sound = tiff(noise(5), compression=8, predictor=2)
    random = np.random.default_rng(1)
    refused = 0
    for _ in range(300):
        data = bytearray(sound)
        for place in random.integers(8, len(data), 3):
            data[place] = random.integers(256)
        cut = bytes(data[: random.integers(8, len(data) + 1)]) if random.random() < 0.3 else bytes(data)
        try:
            assert decode(cut, limits=limits("5")).pixels.shape[2] == 5
        except ImageError:
            refused += 1
    assert refused > 50


def test_a_tiff_whose_pages_lead_in_a_circle_ends() -> None:
    data = bytearray(tiff(noise(1, "uint8")))
    directory = struct.unpack_from("<I", data, 4)[0]
    entries = struct.unpack_from("<H", data, directory)[0]
    struct.pack_into("<I", data, directory + 2 + 12 * entries, directory)
    with pytest.raises(ImageError, match="channels, where 5 are declared"):
        decode(bytes(data), limits=limits("5"))
