"""Names: which files are images, how classes are ordered and checked; table cells; findings of sources."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from decimal import Context, Decimal
from typing import Any, Literal

from saccade.errors import SourceError
from saccade.files import is_utf8
from saccade.records import Finding
from saccade.terminal import counted, printable


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


IMAGE_SUFFIXES = _words(
    "jpg jpeg jpe jfif png apng webp gif bmp dib tif tiff ppm pgm pbm pnm avif avifs heic heif hif jxl"
)
# Pictures the decoder refuses; they become records, so that each is set aside by name with its remedy.
REFUSED_SUFFIXES = _words("svg pdf eps ps psd jp2 j2k ico tga dng cr2 nef arw raw")
# Files that commonly lie beside images; counted, not listed one by one.
SIDECAR_SUFFIXES = _words(
    "txt csv tsv json jsonl xml md html htm yaml yml toml log py ipynb mat npy npz"
    " aae mov xmp"  # phones and photo programs: edits, the film of a Live Photo, notes
)
# Among these, files that may be images themselves.
ARRAY_SUFFIXES = _words("mat npy npz")
# Beside images: data that is packed.
ARCHIVE_SUFFIXES = _words("zip tar tgz gz bz2 xz zst 7z rar parquet arrow")

JUNK_NAMES = frozenset(
    {"thumbs.db", "ehthumbs.db", "desktop.ini", "__macosx", "@eadir", "$recycle.bin", "lost+found"}
)

Kind = Literal["image", "junk", "sidecar", "unknown"]


def suffix(name: str) -> str:
    """The extension in lower case without its dot; "" where there is none.

    >>> suffix("a.b.JPG"), suffix(".hidden"), suffix("README")
    ('jpg', '', '')
    """
    stem, dot, end = name.rpartition(".")
    return end.lower() if dot and stem else ""


def kind_of(name: str) -> Kind:
    """What a file is by its name alone.

    >>> kind_of("a.jpg"), kind_of("Thumbs.db"), kind_of("notes.txt"), kind_of("a.mp4")
    ('image', 'junk', 'sidecar', 'unknown')
    """
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
        raise SourceError(f"{where}: class names that are not UTF-8: {some(odd)}", hint=remedy)
    alike = defaultdict(list)
    for name in ordered:
        alike[_looks(name)].append(name)
    same = ["/".join(repr(printable(n)) for n in names) for names in alike.values() if len(names) > 1]
    if same:
        raise SourceError(
            f"{where}: class names that differ only in case, spaces, accents' encoding or "
            f"the spelling of a number: {', '.join(same)}",
            hint="merge each into one name",
        )
    if len(ordered) < min_classes:
        have = f"only one class ({printable(ordered[0])})" if ordered else "no class"
        raise SourceError(
            f"{where}: {have} has images, a classifier needs at least {min_classes}",
            hint="put each class into a folder of its own and give the folder above them",
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


# -- names -----------------------------------------------------------------------------------------------
# Names of files and classes: their order, and how they can be printed.


def natural_key(name: str) -> tuple[tuple[int, int, str], ...]:
    """Sort key in which 2 comes before 10, and which never ties two different names.

    >>> sorted(["10", "2", "1", "b", "B"], key=natural_key)
    ['1', '2', '10', 'B', 'b']
    """
    pieces = re.split(r"(\d+)", name)
    key = [
        (0, int(piece), "") if piece.isdecimal() else (1, 0, piece.casefold()) for piece in pieces if piece
    ]
    return (*key, (2, 0, name))


def some(names: Iterable[str], *, most: int = 20) -> str:
    """The first names, comma-separated and printable, with how many more there are."""
    every = list(names)
    shown = ", ".join(printable(name) for name in every[:most])
    return shown if len(every) <= most else f"{shown} and {len(every) - most:,} more"


# -- values ----------------------------------------------------------------------------------------------
# Values of table cells: as text, and what makes one unfit to be a label, a part or a path.


def as_text(value: Any) -> str:
    """A cell as text; nothing for a missing one (NaN included), no ".0" behind whole numbers."""
    if value is None or value != value:  # NaN is the one value that differs from itself
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, bytes):
        return value.decode("utf-8", "surrogateescape")
    return str(value)


def unfit(value: Any, column: str, *, several: str = "add --multi-label") -> str:
    """Why a value cannot stand in this column, "" where it can.

    several: what to do where an image has several labels.
    """
    if isinstance(value, list | tuple | set):
        if column != "label":
            return f"a list as {column}; write one value"
        count = f"{len(value)} labels" if len(value) != 1 else "a list with 1 label"
        return f"{count}; an image has one class here: write one as text, or {several}"
    if isinstance(value, dict):
        return f"an object as {column}; write one value as text"
    text = as_text(value)
    if column in ("label", "part", "group") and not is_utf8(text):
        return f"{column} {printable(text)} is not UTF-8; {_remedy(text)}"
    return ""


def _remedy(text: str) -> str:
    """Bytes of another encoding are U+DC80 to U+DCFF here (PEP 383); other surrogates are half a pair."""
    if re.search("[\ud800-\udc7f\udd00-\udfff]", text):
        return "a character is cut in half (a lone surrogate): write the name again"
    return "save it as UTF-8 (in a spreadsheet: CSV UTF-8)"


# -- said ------------------------------------------------------------------------------------------------
# Findings that a source makes while it reads, before any image is decoded.


SHOWN_PROBLEMS = 20


def how_it_is_read(message: str, remedy: str) -> Finding:
    """Something was understood in one of several ways."""
    return Finding("reading", "info", message, remedy)


def doubt(
    message: str, remedy: str, *, paths: Sequence[str] = (), figure: Mapping[str, Any] | None = None
) -> Finding:
    """Something is not used, or read in a way that may be wrong."""
    return Finding("not_used", "warning", message, remedy, tuple(paths), figure=figure or {})


def damaged_names(classes: Collection[str]) -> tuple[Finding, ...]:
    """Said of labels in which an earlier conversion replaced letters."""
    damaged = [label for label in classes if "\N{REPLACEMENT CHARACTER}" in label]
    if not damaged:
        return ()
    message = f"letters of class names were lost before saccade read them: {some(damaged)}"
    return (doubt(message, "Write the list again from its source, as UTF-8"),)


def unusable_rows(
    problems: Sequence[str], where: str, *, hint: str = "correct these rows", count: int = 0
) -> SourceError:
    """The refusal of a list or table with a line for each of the first bad rows.

    count: how many there are, where `problems` has only the first.
    """
    count = count or len(problems)
    more = count - min(len(problems), SHOWN_PROBLEMS)
    rest = [f"and {more:,} more"] if more > 0 else []
    rows = counted(count, "row")
    return SourceError(f"{where}: {rows} cannot be used", *problems[:SHOWN_PROBLEMS], *rest, hint=hint)
