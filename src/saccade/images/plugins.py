"""The Pillow plugins that may run: one for each format, opened directly and never by guessing."""

from __future__ import annotations

import functools
import io

from PIL import Image, ImageFile

from saccade.errors import ImageError


def open_with_plugin(kind: str, file: io.BytesIO) -> Image.Image:
    """The file opened by the one plugin for its format; only its header is parsed.

    Unlike `Image.open`, this tries no other plugin and warns of no pixel count; sizes are checked
    by the caller before and after.
    """
    try:
        return _plugin(kind)(file)
    except ImportError:
        raise ImageError(f"this Pillow was built without {kind}", "Convert it to PNG to use it") from None


@functools.cache
def _plugin(kind: str) -> type[ImageFile.ImageFile]:
    """The plugin's class, imported when the first file of its format comes."""
    if kind == "JPEG":
        from PIL.JpegImagePlugin import JpegImageFile

        return JpegImageFile
    if kind == "PNG":
        from PIL.PngImagePlugin import PngImageFile

        return PngImageFile
    if kind == "WEBP":
        from PIL.WebPImagePlugin import WebPImageFile

        return WebPImageFile
    if kind == "GIF":
        from PIL.GifImagePlugin import GifImageFile

        return GifImageFile
    if kind == "BMP":
        from PIL.BmpImagePlugin import BmpImageFile

        return BmpImageFile
    if kind == "TIFF":
        from PIL.TiffImagePlugin import TiffImageFile

        _silence_bundled_libtiff()
        return TiffImageFile
    if kind == "PPM":
        from PIL.PpmImagePlugin import PpmImageFile

        return PpmImageFile
    from PIL.AvifImagePlugin import AvifImageFile

    return AvifImageFile


def _silence_bundled_libtiff() -> None:
    """Stop the libtiff inside Pillow's wheel from printing to stderr; the error is raised all the same.

    Only the private copy that comes with Pillow is touched. A Pillow built against a system's
    libtiff may still print a line for a damaged TIFF.
    """
    import ctypes
    from pathlib import Path

    import PIL

    site = Path(PIL.__file__).parent
    for folder in (site.parent / "pillow.libs", site / ".dylibs"):
        for library in folder.glob("libtiff*"):
            ctypes.CDLL(str(library)).TIFFSetErrorHandler(None)
