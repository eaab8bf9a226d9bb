"""Images that a program hands over instead of a path: arrays, Pillow images, bytes, open files.

What can change later (a lazy Pillow image, an open file) is read by `take` in the thread that was given it;
`pixels` may then run in any thread. Everything ends in the one decoder, so that an image in memory is treated
as the same image in a file. Both raise ImageError and nothing else.
"""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

from saccade.errors import ImageError
from saccade.images.channels import check_planes, fitted, from_pillow
from saccade.images.colour import from_gray_16, rgb_pixels, unknown_range
from saccade.images.decoder import Limits, decode, upright
from saccade.images.headers.header import ImageHeader
from saccade.images.headers.tiff import BITS, PHOTOMETRIC

EXIF_ORIENTATION = 0x0112
FORMATS_OF_16_BITS = ("PNG", "PPM")  # their gray values lie in 0..65535, also where Pillow calls the mode "I"
_WITHOUT_PREMULTIPLIED_ALPHA = {"La": "LA", "RGBa": "RGBA", "PA": "RGBA"}
_KEPT_BY_PNG = ("1", "L", "LA", "P", "RGB", "RGBA")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A copy of a loaded Pillow image, and what its file says: `format` ("" for no file), and for 16-bit gray
    the value that means white, and whether 0 does instead.
    """

    image: Pillow.Image
    orientation: int
    format: str
    gray_maximum: int = 65535
    inverted: bool = False

    @property
    def is_gray_16(self) -> bool:
        mode = self.image.mode
        return mode.startswith("I;16") or (mode == "I" and self.format in FORMATS_OF_16_BITS)


def is_encoded(content: Any) -> bool:
    """Whether this is one image file's content: bytes, or something open that can be read."""
    return isinstance(content, bytes | bytearray | memoryview) or hasattr(content, "read")


def take(content: Any, limits: Limits) -> Any:
    """The content as something no other thread changes: bytes for an open file, a Snapshot for Pillow."""
    with _image_errors():
        if isinstance(content, bytes | bytearray | memoryview):
            return bytes(content)
        if isinstance(content, Pillow.Image):
            return _snapshot(content, limits)
        if hasattr(content, "read"):
            return _read(content, limits)
    return content


def pixels(content: Any, limits: Limits) -> NDArray[Any]:
    """uint8 (height, width, 3) of what `take` returned; other channels and uint16 where `limits` says so."""
    with _image_errors():
        if isinstance(content, bytes):
            return decode(content, limits=limits).pixels
        if isinstance(content, Snapshot):
            return _of_snapshot(content, limits)
        if isinstance(content, np.ndarray):
            return _of_array(content, limits)
    raise ImageError(
        f"a {type(content).__name__} is no image",
        "Give a path, a uint8 array (height, width, 3) or (height, width), a Pillow image, or the bytes of "
        "an image file",
    )


@contextlib.contextmanager
def _image_errors() -> Iterator[None]:
    """Pillow and a caller's own file object may raise anything; one image must not stop the others."""
    try:
        yield
    except ImageError:
        raise
    except MemoryError:
        raise ImageError("needs more memory than there is", "Scale it down to use it") from None
    except Exception as error:
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise ImageError(
            f"cannot be read ({reason})", "Open it again from an undamaged file, or convert it to RGB"
        ) from None


def _read(file: Any, limits: Limits) -> bytes:
    """From the file's start, as Pillow reads it: who has just written a buffer stands at its end."""
    with contextlib.suppress(AttributeError, OSError):  # a socket or pipe cannot seek
        file.seek(0)
    data = file.read(limits.max_bytes + 1)
    if not isinstance(data, bytes | bytearray | memoryview):
        raise ImageError(
            f"an open file whose read() returns {type(data).__name__}, not bytes", "Open it in binary mode"
        )
    return bytes(data)


def _snapshot(image: Pillow.Image, limits: Limits) -> Snapshot:
    limits.check_size(*image.size)  # before a lazy image is decoded
    kind = str(image.format or "")
    copy = image.copy()  # loads it; the next frame of an animation is the same object
    copy.info = {key: value for key, value in image.info.items() if key == "transparency"}
    return Snapshot(copy, _orientation(image), kind, *_gray_of_tiff(image))


def _gray_of_tiff(image: Pillow.Image) -> tuple[int, bool]:
    """What means white, and whether the gray is inverted, which Pillow leaves to the reader of its tags."""
    tags = getattr(image, "tag_v2", None) if image.mode.startswith("I;16") else None
    if tags is None:
        return 65535, False
    bits = tags.get(BITS, (16,))[0]
    return (1 << bits) - 1 if 8 < bits <= 16 else 65535, tags.get(PHOTOMETRIC, 1) == 0


def _orientation(image: Pillow.Image) -> int:
    if image.format == "JXL" and not getattr(image, "jpeg", False):  # turned by libjxl, whatever EXIF says
        return 1
    try:
        value = image.getexif().get(EXIF_ORIENTATION, 1)
    except Exception:  # broken EXIF, which the decoder ignores in files too
        return 1
    return int(value) if value in range(1, 9) else 1


def _of_snapshot(snapshot: Snapshot, limits: Limits) -> NDArray[Any]:
    image, maximum = snapshot.image, snapshot.gray_maximum
    says = ImageHeader(snapshot.format, *image.size, b"", gray_maximum=maximum, inverted=snapshot.inverted)
    if not limits.pixels.is_colour:
        declared, *_ = from_pillow(image, says, limits.declared, limits.background)
        return upright(declared, snapshot.orientation)
    if snapshot.is_gray_16:
        rgb, *_ = from_gray_16(image, says, limits.gray_maximum)
        return upright(rgb_pixels(rgb), snapshot.orientation)
    file = io.BytesIO()
    _kept_by_png(snapshot).save(file, "PNG", compress_level=1)
    # The limit counts bytes of a user's file, not of this one
    shown = decode(file.getvalue(), limits=replace(limits, max_bytes=sys.maxsize)).pixels
    return upright(shown, snapshot.orientation)


def _kept_by_png(snapshot: Snapshot) -> Pillow.Image:
    """The image in a mode that PNG stores without loss; raises ImageError for values of unknown range."""
    image = snapshot.image
    if image.mode in _KEPT_BY_PNG:
        return image
    if image.mode in _WITHOUT_PREMULTIPLIED_ALPHA:
        return image.convert(_WITHOUT_PREMULTIPLIED_ALPHA[image.mode])
    if image.mode in ("I", "F"):
        raise unknown_range(image.mode)
    return image.convert("RGB")


def _of_array(array: NDArray[Any], limits: Limits) -> NDArray[Any]:
    if not limits.pixels.is_colour:
        limits.check_size(*(array.shape[1::-1] if array.ndim in (2, 3) and array.size else (1, 1)))
        check_planes(array.dtype, array.shape, limits.declared)
        native = array.astype(array.dtype.newbyteorder("="), copy=False)
        return fitted(native[..., None] if array.ndim == 2 else native, limits.declared)[0]
    if array.dtype == np.uint8 and (array.ndim == 2 or (array.ndim == 3 and array.shape[2] == 1)):
        array = np.repeat(array.reshape(*array.shape[:2], 1), 3, axis=2)  # gray
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3 or 0 in array.shape:
        raise ImageError(
            f"an array of {array.dtype} {array.shape}, not uint8 (height, width, 3) or gray (height, width)",
            _remedy(array),
        )
    limits.check_size(array.shape[1], array.shape[0])
    return np.ascontiguousarray(array)


def _remedy(array: NDArray[Any]) -> str:
    """What makes an image of an array that is none."""
    steps = []
    if array.ndim == 3 and array.shape[0] in (1, 3) and array.shape[2] not in (1, 3):
        steps.append("move channels last: numpy.moveaxis(image, 0, -1)")
    if array.dtype.kind == "f":
        steps.append('give values from 0 to 255: (255 * image).astype("uint8") where they end at 1')
    text = "; ".join(steps) or "convert it to RGB with values from 0 to 255"
    return text[0].upper() + text[1:]
