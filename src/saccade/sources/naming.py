"""What names mean: which files are images, which are passed over, how classes are ordered."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable
from decimal import Context, Decimal
from typing import Literal

from saccade.errors import SourceError
from saccade.sources.names import is_utf8, natural_key, printable, some


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


IMAGE_SUFFIXES = _words("jpg jpeg jpe jfif png apng webp gif bmp dib tif tiff ppm pgm pbm pnm avif avifs")
# Pictures the decoder refuses; they become records, so that each is set aside by name with its remedy.
REFUSED_SUFFIXES = _words("svg pdf eps ps psd heic heif jp2 j2k jxl ico tga dng cr2 nef arw raw")
# Files that commonly lie beside images; counted, not listed one by one.
SIDECAR_SUFFIXES = _words("txt csv tsv json jsonl xml md html htm yaml yml toml log py ipynb mat npy npz")
# Among these, files that may be images themselves.
ARRAY_SUFFIXES = _words("mat npy npz")
# Beside images: data that is packed.
ARCHIVE_SUFFIXES = _words("zip tar tgz gz bz2 xz zst 7z rar parquet arrow")

JUNK_NAMES = frozenset(
    {"thumbs.db", "ehthumbs.db", "desktop.ini", "__macosx", "@eadir", "$recycle.bin", "lost+found"}
)

Kind = Literal["image", "junk", "sidecar", "unknown"]


def suffix(name: str) -> str:
    """The extension in lower case without its dot; "" where there is none."""
    stem, dot, end = name.rpartition(".")
    return end.lower() if dot and stem else ""


def kind_of(name: str) -> Kind:
    """What a file is by its name alone."""
    if name.startswith(".") or name.lower() in JUNK_NAMES:
        return "junk"
    end = suffix(name)
    if end in IMAGE_SUFFIXES or end in REFUSED_SUFFIXES:
        return "image"
    return "sidecar" if end in SIDECAR_SUFFIXES else "unknown"


def junk_reason(name: str, *, folder: bool) -> str:
    """Under which heading an ignored file or folder is counted."""
    known = name.lower() in JUNK_NAMES or name in (".DS_Store", ".ipynb_checkpoints")
    return name if known else ("hidden folders" if folder else "hidden files")


def check_classes(
    classes: Iterable[str], where: str, *, min_classes: int, remedy: str = "save the labels as UTF-8"
) -> tuple[str, ...]:
    """The class names in natural order; raises SourceError for look-alikes, odd bytes and too few.

    `remedy` is for names that are not UTF-8.
    """
    ordered = tuple(sorted(classes, key=natural_key))
    odd = [name for name in ordered if not is_utf8(name)]
    if odd:
        raise SourceError(f"{where}: class names that are not UTF-8: {some(odd)}; {remedy}")
    alike = defaultdict(list)
    for name in ordered:
        alike[_looks(name)].append(name)
    same = ["/".join(repr(printable(n)) for n in names) for names in alike.values() if len(names) > 1]
    if same:
        raise SourceError(
            f"{where}: class names that differ only in case, spaces, accents' encoding or "
            f"the spelling of a number: {', '.join(same)}; merge each into one name"
        )
    if len(ordered) < min_classes:
        have = f"only one class ({printable(ordered[0])})" if ordered else "no class"
        raise SourceError(
            f"{where}: {have} has images, a classifier needs at least {min_classes}; "
            "do: put each class into a folder of its own and give the folder above them"
        )
    return ordered


def _looks(name: str) -> str:
    """The same for names that a person takes for one; 1, 01 and 1.0 are one number."""
    seen = "".join(c for c in unicodedata.normalize("NFC", name) if unicodedata.category(c) != "Cf")
    seen = " ".join(seen.casefold().split())
    if re.fullmatch(r"[+-]?[0-9]+(\.[0-9]*)?", seen):
        exact = Context(prec=len(seen))  # by itself decimal rounds to 28 digits
        return str(exact.plus(exact.normalize(Decimal(seen))))  # plus: -0 is 0
    return seen
