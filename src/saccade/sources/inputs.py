"""What stands after the model on a command line: images, folders, patterns, lists, archives, tables, `-`, and
the addresses of these.

Each word becomes a `Given`, whose inputs are read one by one, so that a million of them fit into little
memory. What is wrong with a single input, archive or folder is an input that fails; a list that cannot be
read is refused before any work.
"""

from __future__ import annotations

import codecs
import glob
import io
import itertools
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

from saccade.errors import ImageError, SourceError
from saccade.files import open_file
from saccade.images.decoder import DEFAULT_MAX_BYTES
from saccade.sources.addresses import HAS_SECRETS, has_secrets, is_remote, plain, without_secrets
from saccade.sources.listing import Listing, list_folder
from saccade.sources.naming import as_text, natural_key, suffix
from saccade.sources.storage import Stored, refuse_size
from saccade.sources.tables import (
    TEXT_SUFFIXES,
    USUAL_COLUMNS,
    Columns,
    find_column,
    parquet_columns,
    stream_parquet_column,
    stream_text_table,
)
from saccade.terminal import printable

if TYPE_CHECKING:
    from saccade.sources.elsewhere import Copies

Named = tuple[str, str | bytes | Stored | ImageError]  # a name, and where or what the image is, or why not
STANDARD_INPUT = ("-", "/dev/stdin")
PACKED_TARS = (".tgz", ".tar.gz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst")
PACKED = ImageError("a packed tar cannot be read in place", "Unpack it, or keep a plain .tar")
MOST_PATH_BYTES = 100_000
_CHUNK_BYTES = 1 << 16
# How image files begin, where no list of paths does
_IMAGE_STARTS = re.compile(
    rb"\xff\xd8\xff|\x89PNG\r\n|GIF8[79]a|RIFF....WEBP|II[*+]\0|MM\0[*+]|BM.{4}\0{4}|....ftyp|\xff\x0a"
    rb"|\0\0\0\x0cJXL |P[1-6fF]\s+[\d#]|\x93NUMPY",
    re.DOTALL,
)


@dataclass(frozen=True)
class Given:
    """What one word of the command line stands for.

    word: as it was typed. inputs: gives them one by one, each time anew (standard input: once). count: how
    many there are, None where only the end will tell. files: whether each is a file of its own. listing:
    what was found in a folder or archive. state: changes when a list or container is written anew.
    """

    word: str
    inputs: Callable[[], Iterator[Named]]
    count: int | None = None
    files: bool = True
    listing: Listing | None = None
    state: str = ""


def given_by(
    words: Iterable[str], columns: Columns = USUAL_COLUMNS, *, read_npy: bool = False
) -> list[Given]:
    """What `words` name, in their order; patterns are expanded.

    columns: which column of a list names the files, and the folder that paths begin in. read_npy: .npy files
    in folders are images. Raises SourceError for a list that cannot be read.

    >>> [(given.word, given.count) for given in given_by(["photos/red", "none.jpg"])]
    [('photos/red', 16), ('none.jpg', 1)]
    """
    words = [without_secrets(word) for word in words]
    if sum(word in STANDARD_INPUT for word in words) > 1:
        raise SourceError("standard input (-) is given twice", hint="give it once")
    return [given for word in words for path in expanded(word) for given in _given(path, columns, read_npy)]


def expanded(pattern: str) -> list[str]:
    """The files and folders that a pattern with * ? [ ] or ** means, for shells that leave that to us.

    What exists by exactly this name means itself; so does a pattern that nothing matches.
    """
    if os.path.lexists(pattern) or not glob.has_magic(pattern) or is_remote(pattern):
        return [pattern]
    found = glob.glob(os.path.expanduser(pattern), recursive=True)
    if "**" in pattern:  # which also matches the folders on the way, whose images would come twice
        found = [path for path in found if not os.path.isdir(path)]
    return sorted(found, key=natural_key) or [pattern]


def _given(word: str, columns: Columns, read_npy: bool) -> list[Given]:
    if word in STANDARD_INPUT:
        return [Given("-", lambda: _standard_input(columns.root), files=False)]
    if is_remote(word):
        return _remote(word, columns, read_npy)
    if os.path.isdir(word):
        return _folder(word, columns, read_npy)
    kind = suffix(word) if os.path.isfile(word) else ""
    if kind in TEXT_SUFFIXES:
        return [_text_list(word, columns)]
    if kind in ("txt", "lst"):
        return [_plain_list(word, columns)]
    if kind and word.lower().endswith(PACKED_TARS):
        return [_failing(word, PACKED)]
    if kind in ("parquet", "zip", "tar"):
        return [_container(word, kind, columns)]
    return [Given(word, lambda: iter([(word, word)]), count=1)]


def _failing(word: str, error: ImageError) -> Given:
    return Given(word, lambda: iter([(word, error)]), count=1)


def _state_of(path: str) -> str:
    status = os.stat(path)
    return f"{status.st_size} bytes, {status.st_mtime_ns}"


# -- folders and containers -------------------------------------------------------------------------------


def _folder(word: str, columns: Columns, read_npy: bool) -> list[Given]:
    """Every image below a folder, hidden ones passed over; in one without images, its shards and tables."""
    try:
        listing = list_folder(Path(word), read_npy=read_npy)
    except SourceError as error:
        return [_failing(word, ImageError(error.problem, "Allow it with: chmod u+rx FOLDER"))]
    if not listing.files:
        return _packed_in(word, columns) or [
            _failing(word, ImageError("a folder without images", "Give a folder that holds some"))
        ]

    def inputs() -> Iterator[Named]:
        for file in listing.files:
            path = os.path.join(word, file)
            yield path, path

    return [Given(word, inputs, len(listing.files), listing=listing)]


def _packed_in(word: str, columns: Columns) -> list[Given]:
    from saccade.sources.archives import shards_at
    from saccade.sources.columns import parquet_files

    shards, tables = shards_at(Path(word)), parquet_files(Path(word))
    return [
        _container(os.path.join(word, file.relative_to(word)), suffix(file.name), columns)
        for file in (*shards, *tables)
    ]


def _container(word: str, kind: str, columns: Columns, at: str = "") -> Given:
    """`at`: where a copy of what `word` names lies on this disk."""
    try:
        return _table(word, columns, at or word) if kind == "parquet" else _archive(word, at or word)
    except SourceError as error:
        return _failing(
            word, ImageError(error.problem.removeprefix(f"{printable(at or word)}: "), _sentence(error))
        )


def _sentence(error: SourceError) -> str:
    return f"{error.hint[:1].upper()}{error.hint[1:]}"


def _archive(word: str, at: str) -> Given:
    """The images in a zip or tar file, read in place; nothing is extracted."""
    from saccade.sources.archives import images_in_archive

    try:
        listing, storage = images_in_archive(Path(at))
        state = _state_of(at) if os.path.exists(at) else ""  # a copy that found no room has another
    except OSError as error:
        raise SourceError(f"cannot be opened ({error.strerror})", hint="check its permissions") from None
    if not listing.files:
        lost = "; ".join(listing.left_out[:3])
        raise SourceError(
            f"an archive without images{': ' + lost if lost else ''}", hint="give one that holds some"
        )

    def inputs() -> Iterator[Named]:
        for file in listing.files:
            yield f"{word}/{file}", Stored(storage, file)

    return Given(word, inputs, len(listing.files), files=False, listing=listing, state=state)


def _table(word: str, columns: Columns, at: str) -> Given:
    """A Parquet file with a column of images, or a list with one of paths; rows are numbered from 0."""
    from saccade.sources.columns import image_column, stream_images

    path = Path(at)
    column, count = ("", 0) if columns.path else image_column(path)
    if not column:
        return _parquet_list(word, columns, at)

    def inputs() -> Iterator[Named]:
        for row, content in enumerate(stream_images(path, column)):
            yield f"{word}/{row:07d}", content

    return Given(word, inputs, count, files=False, state=_state_of(at))


# -- lists ------------------------------------------------------------------------------------------------


def _text_list(word: str, columns: Columns, at: str = "") -> Given:
    path, where = Path(at or word), printable(word)
    count = 0
    column = columns.path or "path"
    for _, row in stream_text_table(path):  # all of it, so that a bad row is refused before any work
        column = _path_column(list(row), columns, where) if count == 0 else column
        count += 1

    def values() -> Iterator[object]:
        return (row.get(column, "") for _, row in stream_text_table(path))

    return _list(word, columns, values, count, at or word)


def _parquet_list(word: str, columns: Columns, at: str) -> Given:
    from saccade.sources.columns import stored_root

    names, count = parquet_columns(Path(at))
    column = _path_column(names, columns, printable(word))
    columns = replace(columns, root=columns.root or stored_root(Path(at)))
    return _list(word, columns, lambda: stream_parquet_column(Path(at), column), count, at)


def _plain_list(word: str, columns: Columns, at: str = "") -> Given:
    """A text file with one path a line."""

    def values() -> Iterator[str]:
        with open_file(at or word) as file:
            yield from _lines(file, b"\n")

    return _list(word, columns, values, sum(1 for _ in values()), at or word)


def _path_column(names: list[str], columns: Columns, where: str) -> str:
    if columns.path:
        return find_column(columns.path, names, where, flag="--path-column")
    if "path" in names:
        return "path"
    raise SourceError(
        f"{where}: no column path; its columns are: {', '.join(map(printable, names)) or 'none'}",
        hint="say which one names the images with --path-column",
    )


def _list(word: str, columns: Columns, values: Callable[[], Iterable[object]], count: int, at: str) -> Given:
    """The files that a list names; where the list was written on another system, the files it means."""
    meant = _meaning(at, columns.root)

    def inputs() -> Iterator[Named]:
        for number, value in enumerate(values(), start=1):
            name = as_text(value).strip()
            no_path = ImageError("names no path", "Fill it in, or remove the row")
            yield meant(name) if name else (f"{word}: row {number}", no_path)

    if not count:
        return _failing(word, ImageError("a list without rows", "Add one for each image"))
    return Given(word, inputs, count, state=_state_of(at), files=not is_remote(columns.root))


def _meaning(at: str, root: str) -> Callable[[str], Named]:
    """What the names in a list stand for, which begin in `root`, else beside the list."""
    from saccade.sources.lists import folder_of_paths
    from saccade.sources.lookup import FolderLookup, find

    if is_remote(root):
        below = without_secrets(root)
        return lambda name: _object(name if is_remote(name) else f"{below}/{name}")
    folder = folder_of_paths(Path(at), root)
    lookup, start = FolderLookup(folder), "" if str(folder) == os.curdir else str(folder)

    def file(name: str) -> Named:
        if is_remote(name):
            return _object(name)
        path = os.path.join(start, find(name, lookup)[0] or name)
        return path, path

    return file


# -- addresses --------------------------------------------------------------------------------------------


def _object(address: str) -> Named:
    """An object that is read when its turn comes."""
    from saccade.sources.remote import RemoteStorage

    if has_secrets(address):
        return plain(address), ImageError(HAS_SECRETS, "Write it without")
    return address, Stored(RemoteStorage(), address)


def _remote(word: str, columns: Columns, read_npy: bool) -> list[Given]:
    """What lies at an address: an image, the images below it in a bucket, or what is copied to this disk.

    Raises SourceError where its service does not answer: that is no fault of an input.
    """
    from saccade.sources import elsewhere
    from saccade.sources.remote import RemoteStorage

    if elsewhere.is_image(word):
        return [Given(word, lambda: iter([(word, Stored(RemoteStorage(), word))]), 1, files=False)]
    if not elsewhere.is_folder(word):
        return _copied(elsewhere.copies_at(word), columns)
    listing, storage = elsewhere.listing_below(word, read_npy=read_npy).listing, RemoteStorage(word)
    if not listing.files:
        empty = _failing(word, ImageError("a folder without images", "Give a folder that holds some"))
        return _copied(elsewhere.packed_below(word), columns) or [empty]

    def inputs() -> Iterator[Named]:
        return ((f"{word}/{file}", Stored(storage, file)) for file in listing.files)

    return [Given(word, inputs, len(listing.files), files=False, listing=listing)]


def _copied(copies: Copies, columns: Columns) -> list[Given]:
    """Archives, lists and tables by their copies, called by their addresses."""
    from saccade.sources.columns import stored_root

    found = []
    for copy in copies.files:
        word, at, kind = copies.address(copy.path), str(copy.path), suffix(copy.path.name)
        stored = stored_root(copy.path) if kind == "parquet" else ""
        beside = replace(columns, root=columns.root or stored or copies.root)
        if kind in TEXT_SUFFIXES:
            given = _text_list(word, beside, at)
        elif kind in ("txt", "lst"):
            given = _plain_list(word, beside, at)
        elif word.lower().endswith(PACKED_TARS):
            given = _failing(word, PACKED)
        else:
            given = _container(word, kind, beside, at)
        found.append(replace(given, state=copy.state))
    return found


# -- standard input ---------------------------------------------------------------------------------------


def _standard_input(root: str) -> Iterator[Named]:
    """One image's content, or paths: one a line, or with a zero byte behind each (find -print0)."""
    stream = cast(io.BufferedReader, sys.stdin.buffer)
    start = stream.peek(64)[:64]
    if _IMAGE_STARTS.match(start):
        yield "-", _limited(stream.read(DEFAULT_MAX_BYTES + 1))
        return
    for path in _lines(stream, b"\0" if b"\0" in start else b"\n"):
        if len(path) >= MOST_PATH_BYTES:
            yield path[:100], ImageError("too long for a path", "Give one path a line")
        else:
            yield _object(path) if is_remote(path) else (path, os.path.join(os.path.expanduser(root), path))


def _limited(data: bytes) -> bytes | ImageError:
    try:
        refuse_size(len(data), DEFAULT_MAX_BYTES)
    except ImageError as error:
        return error
    return data


def _lines(stream: BinaryIO, end: bytes) -> Iterator[str]:
    """Lines that are not blank, as file names; one that is too long for a path is cut."""
    rest = b""
    for number in itertools.count():
        chunk = getattr(stream, "read1", stream.read)(_CHUNK_BYTES)
        if not chunk:
            break
        chunk = chunk if number else chunk.removeprefix(codecs.BOM_UTF8)
        *lines, rest = (rest + chunk).split(end)
        yield from filter(None, map(_as_name, lines))
        rest = rest[:MOST_PATH_BYTES]
    yield from filter(None, [_as_name(rest)])


def _as_name(line: bytes) -> str:
    return os.fsdecode(line.rstrip(b"\r")) if line.strip() else ""
