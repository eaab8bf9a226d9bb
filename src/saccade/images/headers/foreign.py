"""Files that are no image saccade reads, told by their first bytes; Pillow never sees them."""

from __future__ import annotations

from saccade.errors import ImageError
from saccade.images.headers.header import unsupported

_TO_PNG = "Convert it to PNG or JPEG to use it"

# first bytes -> what it is, and what to do
_MAGIC: tuple[tuple[bytes, str, str], ...] = (
    (b"%PDF", "a PDF document", "Convert it: export the page as PNG"),
    (b"%!PS", "a PostScript (EPS) file", "Convert it: export it as PNG"),
    (b"\xc5\xd0\xd3\xc6", "an EPS file", "Convert it: export it as PNG"),
    (b"8BPS", "a Photoshop (PSD) file", "Convert it: export it as PNG or TIFF"),
    (b"\x00\x00\x00\x0cjP  ", "a JPEG 2000 file", _TO_PNG),
    (b"\xff\x4f\xff\x51", "a JPEG 2000 file", _TO_PNG),
    (b"\xff\x0a", "a JPEG XL file", _TO_PNG),
    (b"\x00\x00\x00\x0cJXL ", "a JPEG XL file", _TO_PNG),
    (b"\x00\x00\x01\x00", "an icon (ICO)", _TO_PNG),
    (b"qoif", "a QOI file", _TO_PNG),
    (b"DDS ", "a DDS texture", _TO_PNG),
    (b"SIMPLE  =", "a FITS file", "Convert it to 16-bit PNG or TIFF with a range you choose"),
    (b"\x89HDF", "an HDF5 file", "Export its images as PNG"),
    (b"\x93NUMPY", "a NumPy array", "Export it as PNG"),
    (b"PK\x03\x04", "a zip archive", "Unpack it, or give the archive itself as DATA"),
    (b"\x1f\x8b", "a gzip archive", "Unpack it to use it"),
    (b"Rar!", "a RAR archive", "Unpack it to use it"),
    (b"7z\xbc\xaf", "a 7z archive", "Unpack it to use it"),
    (b"\x80\x02", "a pickle, which saccade never reads", "Export its images as PNG"),
    (b"\x7fELF", "a program", "Remove it"),
)

_HEIC_BRANDS = (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"heif", b"mif1", b"msf1")
_AVIF_BRANDS = (b"avif", b"avis")


def refuse_foreign(data: bytes) -> None:
    """Raise ImageError when the bytes are no image, or one of a kind that is not read."""
    if not data:
        raise ImageError("empty file (0 bytes)", "Copy it again from its source, or remove it")
    if data[128:132] == b"DICM":
        raise unsupported("a DICOM file", "Convert it to 16-bit PNG with the window you choose")
    for magic, what, remedy in _MAGIC:
        if data.startswith(magic):
            raise unsupported(what, remedy)
    if data[4:8] == b"ftyp" and not is_avif(data):
        what = "a HEIC photo" if data[8:12] in _HEIC_BRANDS else "a video or another ISO media file"
        raise unsupported(what, "Convert it to JPEG, for example with the phone's or the viewer's export")
    _refuse_text(data)


def is_avif(data: bytes) -> bool:
    """Whether an ISO media file names AVIF as its brand, or as a compatible one."""
    if data[4:8] != b"ftyp":
        return False
    length = min(int.from_bytes(data[:4], "big"), 512)
    brands = [data[8:12], *(data[i : i + 4] for i in range(16, length - 3, 4))]
    return any(brand in _AVIF_BRANDS for brand in brands)


def _refuse_text(data: bytes) -> None:
    start = data[:2048].removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if start.startswith(b"version https://git-lfs"):
        raise ImageError("a git-LFS pointer, not the image itself", "Fetch it: run git lfs pull")
    if b"<svg" in start and start.startswith(b"<"):
        raise unsupported("an SVG drawing", "Convert it: export it as PNG")
    if start.startswith((b"<!doctype html", b"<html", b"<head", b"<body")) or b"<html" in start[:512]:
        raise ImageError("is HTML, a web page saved under an image's name", "Download the picture itself")
    if start.startswith((b"<?xml", b"{", b"[")) and _is_plain_text(start):
        raise ImageError("is text (XML or JSON), not an image", "Download the picture itself, or remove it")


def _is_plain_text(start: bytes) -> bool:
    return all(byte in b"\t\r\n" or byte >= 32 for byte in start)


def not_an_image(data: bytes) -> ImageError:
    """What to say when no known format begins like this."""
    if _is_plain_text(data[:512]) and data[:512].isascii():
        return ImageError("is text, not an image", "Remove it, or restore the picture")
    if not data[:4096].strip(b"\0"):
        return ImageError("nothing but zero bytes where the image should be", "Copy it again from its source")
    return ImageError(
        "not an image of a kind that is read (JPEG, PNG, WebP, GIF, BMP, TIFF, PPM, AVIF)",
        "Convert it to PNG or JPEG, or remove it",
    )
