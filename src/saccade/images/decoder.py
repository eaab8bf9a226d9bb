"""The only decoder: bytes in, upright pixels out (RGB, or the channels declared), or an ImageError.

`headers` reads a file's header first, within bounds. What passes goes to the one Pillow plugin for its
format, without metadata. So Pillow parses no EXIF, profile or text, and sees no unchecked pixel count. Sound
JPEGs are decoded by simplejpeg where it is installed, in half the time and to the same pixels. Needs only
numpy and Pillow; thread-safe.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from saccade.errors import ChangedImageError, DataError, ImageError
from saccade.images.channels import Declared, fitted, from_pillow
from saccade.images.colour import from_gray_16, is_gray_16, rgb_pixels, to_rgb
from saccade.images.headers.header import (
    REEXPORT,
    ImageHeader,
    SizeCheck,
    damaged,
    is_avif,
    is_heif,
    not_an_image,
    profile_note,
    refuse_foreign,
    truncated,
)
from saccade.images.headers.heif import read_avif, read_heif
from saccade.images.headers.jpeg import read_jpeg
from saccade.images.headers.jxl import CONTAINER, STREAM, read_jxl
from saccade.images.headers.others import read_bmp, read_gif, read_ppm, read_webp
from saccade.images.headers.png import SIGNATURE, read_png
from saccade.images.headers.tiff import read_exif, read_tiff
from saccade.images.npy import MAGIC, read_npy
from saccade.images.plugins import open_with_plugin, packed_jpeg, quick_jpeg
from saccade.images.tiff_planes import is_tiff, read_planes
from saccade.preprocess import RGB, PixelFormat
from saccade.records import ImageRecord, Storage

if TYPE_CHECKING:
    from saccade.recipe import DataConfig

DECODING_VERSION = 3  # rises with every change of the pixels or notes that `decode` makes of a file
DEFAULT_MAX_PIXELS = 50_000_000
DEFAULT_MAX_BYTES = 200_000_000
EXTREME_ASPECT = 20

_EXTENSIONS = {
    "JPEG": ("jpg", "jpeg", "jpe", "jfif"),
    "PNG": ("png", "apng"),
    "WEBP": ("webp",),
    "GIF": ("gif",),
    "BMP": ("bmp", "dib"),
    "TIFF": ("tif", "tiff"),
    "PPM": ("ppm", "pgm", "pbm", "pnm"),
    "AVIF": ("avif", "avifs"),
    "HEIF": ("heic", "heif", "hif"),
    "JXL": ("jxl",),
    "NPY": ("npy",),
}
_SPOKEN = {"HEIF": "HEIC", "JXL": "JPEG XL"}  # names that people know better than Pillow's


_ANIMATION = "an animation; its first frame used"


@dataclass(frozen=True, slots=True)
class Limits:
    """What one image may cost, and how it is read.

    `background` is the colour put under transparent pixels. `gray_maximum` is the value that means white in
    16-bit grey images, 0 for what the file says. `pixels` is what is wanted of an image; with `any_bits`, as
    many bits as its file has.
    """

    max_pixels: int = DEFAULT_MAX_PIXELS
    max_bytes: int = DEFAULT_MAX_BYTES
    background: tuple[int, int, int] = (255, 255, 255)
    gray_maximum: int = 0
    # not in the keys of caches, which name them where they are not RGB (`caches.store.decoded_by`)
    pixels: PixelFormat = field(default=RGB, repr=False)
    any_bits: bool = field(default=False, repr=False)

    @classmethod
    def of(cls, data: DataConfig, pixels: PixelFormat | None = None) -> Limits:
        """As the recipe's section `data` has them. `pixels`: what its "auto" came to, None before that."""
        return cls(
            max_pixels=data.max_pixels,
            background=data.background,
            gray_maximum=data.gray_maximum,
            pixels=pixels or PixelFormat(data.channels, 8 if data.bits == "auto" else data.bits),
            any_bits=pixels is None and data.channels != RGB.channels and data.bits == "auto",
        )

    @property
    def declared(self) -> Declared:
        """What is wanted of a file whose channels are not RGB."""
        return Declared(self.pixels, self.any_bits, self.gray_maximum, self.max_pixels)

    def check_size(self, width: int, height: int) -> None:
        """Raise ImageError for more pixels than allowed, or for an extreme shape.

        >>> DEFAULT_LIMITS.check_size(640, 480)
        >>> DEFAULT_LIMITS.check_size(640, 30)
        Traceback (most recent call last):
            ...
        saccade.errors.ImageError: extreme shape: 640 x 30 pixels, more than 20 times as long as wide
        """
        if min(width, height) < 1:
            raise ImageError(f"damaged: a size of {width:,} x {height:,} pixels", REEXPORT)
        if width * height > self.max_pixels:
            raise ImageError(
                f"{width:,} x {height:,} pixels, more than the limit of {self.max_pixels:,}",
                "Scale it down, or raise the limit with --data.max-pixels",
            )
        if max(width, height) > EXTREME_ASPECT * min(width, height):
            raise ImageError(
                f"extreme shape: {width:,} x {height:,} pixels, more than {EXTREME_ASPECT} times "
                "as long as wide",
                "Crop it to use it",
            )


DEFAULT_LIMITS = Limits()


@dataclass(frozen=True, slots=True)
class Decoded:
    """One image: `pixels` is (height, width, 3) uint8 RGB, upright, C-contiguous and writable; where `Limits`
    declares other channels, (height, width, channels) uint8 or uint16.

    `mode` and `format` are Pillow's, of the file; `notes` say what was done to get here.
    `quality` is the JPEG quality setting as estimated from its tables (0: unknown or no JPEG),
    `camera` the EXIF model, `compression` a hash of the JPEG's tables; `gray_peak` is the largest value of a
    16-bit grey image, -1 for any other.
    """

    pixels: NDArray[Any]
    width: int
    height: int
    mode: str
    format: str
    notes: tuple[str, ...] = ()
    quality: int = 0
    camera: str = ""
    gray_peak: int = -1
    compression: str = ""


def pixel_sha256(pixels: NDArray[Any]) -> str:
    """Hash over the shape and the pixels, so that equal pictures in different files agree."""
    shape = ",".join(str(side) for side in pixels.shape)
    digest = hashlib.sha256(f"{shape};".encode())
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.hexdigest()


def decode(data: bytes, *, limits: Limits = DEFAULT_LIMITS, name: str = "") -> Decoded:
    """Upright pixels of one image file, RGB or as `limits.pixels` says; raises ImageError and nothing else.

    `name` is the file's name, used only to note an extension that does not fit its content.

    >>> decode(b"P6 2 1 255 " + bytes(range(6))).pixels.tolist()
    [[[0, 1, 2], [3, 4, 5]]]

    16-bit values are scaled by their full range (0..65535), never clipped, or by `limits.gray_maximum`;
    transparent pixels lie on `limits.background`; of animations and multi-page files the first picture is
    used.
    """
    if len(data) > limits.max_bytes:
        raise ImageError(
            f"{len(data) / 1e6:,.0f} MB, more than the limit of {limits.max_bytes / 1e6:,.0f} MB",
            "Scale it down to use it",
        )
    try:
        return _decode(data, limits, name)
    except ImageError:
        raise
    except MemoryError:
        raise ImageError("needs more memory than there is", "Scale it down to use it") from None
    except Exception as error:  # a parser fails in whatever way the damage leads it to
        raise ImageError(f"cannot be decoded ({_one_line(error)})", REEXPORT) from None


def _decode(data: bytes, limits: Limits, name: str) -> Decoded:
    if not limits.pixels.is_colour:
        return _decode_declared(data, limits, name)
    header = read_header(data, limits.check_size)
    if header.format == "JXL" and (jpeg := packed_jpeg(header.payload)):
        inside = _decode(jpeg, limits, "")
        return replace(inside, format="JXL", notes=(*_name_note(name, "JXL"), *inside.notes))
    quick = quick_jpeg(header) if header.format == "JPEG" else None
    notes: tuple[str, ...] = ()
    peak = -1
    if quick:
        stored, mode = quick
    else:
        header, stored, mode, notes, peak = _by_pillow(header, limits)
    return _upright(stored, header, name, mode, notes, peak)


def _decode_declared(data: bytes, limits: Limits, name: str) -> Decoded:
    """One channel of gray, or as many channels as declared, which are kept as they are."""
    declared = limits.declared
    planes = read_planes(data, limits.check_size, declared) if is_tiff(data) else None
    planes = read_npy(data, limits.check_size, declared) if data.startswith(MAGIC) else planes
    if planes:
        header, stored = planes
        pixels, notes = fitted(stored, declared)
        return _upright(pixels, header, name, f"{stored.shape[2]} x {stored.dtype}", notes, -1)
    header = read_header(data, limits.check_size)
    if header.format == "JXL" and (jpeg := packed_jpeg(header.payload)):
        inside = _decode_declared(jpeg, limits, "")
        return replace(inside, format="JXL", notes=(*_name_note(name, "JXL"), *inside.notes))
    image = open_with_plugin(header.format, io.BytesIO(header.payload))
    limits.check_size(*image.size)
    header, mode = _with_pillow_notes(header, image), image.mode
    _load(image, header)
    pixels, notes, peak = from_pillow(image, header, declared, limits.background)
    return _upright(pixels, header, name, mode, notes, peak)


def _upright(
    stored: NDArray[Any], header: ImageHeader, name: str, mode: str, notes: tuple[str, ...], peak: int
) -> Decoded:
    pixels = upright(stored, header.orientation)
    height, width = pixels.shape[:2]
    notes = (*_name_note(name, header.format), *header.notes, *notes)
    if min(width, height) < 4:
        notes = (*notes, f"extreme shape: only {width} x {height} pixels")
    return Decoded(
        pixels,
        width,
        height,
        mode,
        header.format,
        notes,
        quality=header.quality,
        camera=header.camera,
        gray_peak=peak,
        compression=header.compression,
    )


# how a format begins -> what reads it
_READERS: tuple[tuple[bytes, Callable[[bytes, SizeCheck], ImageHeader]], ...] = (
    (b"\xff\xd8\xff", read_jpeg),
    (SIGNATURE, read_png),
    (b"GIF87a", read_gif),
    (b"GIF89a", read_gif),
    (b"II*\0", read_tiff),
    (b"MM\0*", read_tiff),
    (b"II+\0", read_tiff),
    (b"MM\0+", read_tiff),
    (b"BM", read_bmp),
    (STREAM, read_jxl),
    (CONTAINER, read_jxl),
    *((b"P" + kind, read_ppm) for kind in (b"1", b"2", b"3", b"4", b"5", b"6", b"f", b"F")),
)


def read_header(data: bytes, check_size: SizeCheck) -> ImageHeader:
    """Format, size and the rest of what the file says; raises ImageError for what is not read.

    `check_size` runs before anything that takes time in proportion to the file.
    """
    refuse_foreign(data)
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return read_webp(data, check_size)
    if is_avif(data):
        return read_avif(data, check_size)
    if is_heif(data):
        return read_heif(data, check_size)
    for magic, read in _READERS:
        if data.startswith(magic):
            return read(data, check_size)
    raise not_an_image(data)


def _by_pillow(
    header: ImageHeader, limits: Limits
) -> tuple[ImageHeader, NDArray[np.uint8], str, tuple[str, ...], int]:
    """The header with what only Pillow knows, RGB pixels as stored, Pillow's mode, notes, grey peak."""
    image = open_with_plugin(header.format, io.BytesIO(header.payload))
    limits.check_size(*image.size)  # once more, of what will really be decoded
    header, mode = _with_pillow_notes(header, image), image.mode
    _load(image, header)
    if is_gray_16(image, header):
        rgb, notes, peak = from_gray_16(image, header, limits.gray_maximum)
        return header, rgb_pixels(rgb), mode, notes, peak
    rgb, notes = to_rgb(image, limits.background)
    return header, rgb_pixels(rgb), mode, notes, -1


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text.encode("ascii", "backslashreplace").decode()[:120]


def _name_note(name: str, kind: str) -> tuple[str, ...]:
    stem, dot, extension = name.rpartition("/")[2].rpartition(".")
    if not stem or not dot or extension.lower() in _EXTENSIONS[kind]:
        return ()
    return (f"a {_SPOKEN.get(kind, kind)} named .{_one_line(ValueError(extension))}",)


def _with_pillow_notes(header: ImageHeader, image: Image.Image) -> ImageHeader:
    """What only the decoders of newer formats know; libavif and libheif read it without decoding."""
    if header.format == "JXL":
        return replace(header, notes=(*header.notes, *profile_note(image.info["icc_profile"])))
    if header.format not in ("AVIF", "HEIF"):
        return header
    several = getattr(image, "n_frames", 1) > 1
    what = _ANIMATION if header.format == "AVIF" else "several pictures in one file; the primary one used"
    notes = (what,) if several and _ANIMATION not in header.notes else ()
    orientation = read_exif(image.info.get("exif") or b"")[
        0
    ]  # of AVIF's own properties; libheif turns itself
    return replace(header, notes=(*header.notes, *notes), orientation=orientation)


def _load(image: Image.Image, header: ImageHeader) -> None:
    """Decode the pixels; a file that ends too early is named as such, with its row where known."""
    try:
        image.load()
    except (OSError, RuntimeError, ValueError, EOFError) as error:
        if str(error).startswith("decoder error") or header.format == "HEIF":  # a number; what libheif met
            kind = _SPOKEN.get(header.format, header.format)
            raise damaged(kind, "its compressed pixels cannot be read") from None
        if "truncated" not in str(error):
            raise
        raise truncated(header.format, _last_row(image), header.height) from None


def _last_row(image: Image.Image) -> int:
    """Rows that were decoded before the file ended; 0 where Pillow does not show them."""
    partial = getattr(image, "_im", None)
    if image.format != "JPEG" or partial is None:
        return 0
    box = image._new(partial).getbbox()  # rows that were not reached are still black
    return 0 if box is None else int(box[3])


def upright(pixels: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Undo an EXIF orientation (EXIF 2.32, tag 0x0112): 1 as is, 2 mirrored, ..., 8 rotated.

    >>> upright(np.array([[1, 2]], np.uint8), 2).tolist()
    [[2, 1]]
    """
    if orientation in (5, 6, 7, 8):
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)


# -- reading ---------------------------------------------------------------------------------------------
# Images as the scan saw them: bytes are held against the SHA-256 in their record before anything uses them.
# Training, statistics, features, evaluation, certificate and report read stored images through here. So
# pixels that are kept under a file's SHA-256 are the pixels of that file, and a file that changed since is
# named.


def read_checked(storage: Storage, record: ImageRecord) -> bytes:
    """The bytes whose SHA-256 the record holds (any bytes where it holds none).

    Raises ChangedImageError for other bytes and ImageError for a file that cannot be read.
    """
    data = storage.read(record.path)
    if record.sha256 and hashlib.sha256(data).hexdigest() != record.sha256:
        raise ChangedImageError
    return data


def read_pixels(storage: Storage, record: ImageRecord, limits: Limits) -> Any:
    """Upright pixels, as `decode` gives them; raises DataError, since the scan found this image good."""
    try:
        return decode(read_checked(storage, record), limits=limits, name=record.path).pixels
    except ImageError as error:
        raise DataError(
            f"{record.path}: {error.reason}; it has changed since the data was scanned",
            hint="put it back and give the same command again, or train the new data in a new folder (--out)",
        ) from None


@dataclass(frozen=True)
class CheckedReader:
    """Reads images by path, as `read_checked` does; raises ImageError for a path that has no record."""

    storage: Storage
    records: Iterable[ImageRecord]
    _by_path: dict[str, ImageRecord] = field(init=False, repr=False, default_factory=dict)

    def __post_init__(self) -> None:
        self._by_path.update((record.path, record) for record in self.records)

    def __call__(self, path: str) -> bytes:
        if path not in self._by_path:
            raise ImageError("not among the images of this run", "Check the name")
        return read_checked(self.storage, self._by_path[path])
