"""What lies below a folder, before any meaning is given to it."""

from __future__ import annotations

import os
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from saccade.data.names import printable
from saccade.data.sources.naming import junk_reason, kind_of, suffix
from saccade.errors import SourceError

_MOST_NAMED = 1000


@dataclass(frozen=True, slots=True)
class Listing:
    """Image files and folders by their path below the root (forward slashes), both sorted.

    `ignored` counts what is passed over by rule; `listed` names what was seen and is not used, with why.
    `left_out` is what of `listed` may have been an image that was wanted.
    """

    files: tuple[str, ...]
    folders: tuple[str, ...]
    ignored: Mapping[str, int]
    listed: tuple[str, ...]
    left_out: tuple[str, ...] = ()


@dataclass(slots=True)
class Collector:
    """Gathers a Listing, entry by entry; used for folders and for archives alike."""

    files: list[str] = field(default_factory=list)
    folders: set[str] = field(default_factory=set)
    ignored: Counter[str] = field(default_factory=Counter)
    listed: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    unknown: Counter[str] = field(default_factory=Counter)

    def note(self, path: str, why: str, *, lost: bool = True) -> None:
        """Say what became of an entry; `lost` False where its images are used all the same."""
        line = f"{printable(path)}: {why}"
        self.listed.append(line)
        if lost:
            self.left_out.append(line)

    def file(self, path: str) -> None:
        """Take in one regular file by its name."""
        name = path.rpartition("/")[2]
        kind = kind_of(name)
        if kind == "image":
            self.files.append(path)
        elif kind == "junk":
            self.ignored[junk_reason(name, folder=False)] += 1
        elif kind == "sidecar":
            self.ignored[f".{suffix(name)} files"] += 1
        else:
            self._unknown(path, suffix(name))

    def _unknown(self, path: str, extension: str) -> None:
        """Name a file of an unknown kind; after a thousand of one kind, only count."""
        kind = f".{extension} files" if extension else "files without extension"
        self.unknown[kind] += 1
        if self.unknown[kind] > _MOST_NAMED:
            self.ignored[f"further {kind}"] += 1
        elif extension:
            self.note(path, "not an image by its extension; ignored, rename it if it is one")
        else:
            self.note(path, "no extension; ignored, rename it to use it (for example to .jpg)")

    def folder(self, path: str) -> bool:
        """Take in one folder; False when it is passed over with all it holds."""
        name = path.rpartition("/")[2]
        if kind_of(name) == "junk":
            self.ignored[junk_reason(name, folder=True)] += 1
            return False
        self.folders.add(path)
        return True

    def listing(self) -> Listing:
        self._warn_of_twin_names()
        files, folders = tuple(sorted(self.files)), tuple(sorted(self.folders))
        ignored = dict(sorted(self.ignored.items()))
        return Listing(files, folders, ignored, tuple(sorted(self.listed)), tuple(sorted(self.left_out)))

    def _warn_of_twin_names(self) -> None:
        """Names that look the same and differ in the encoding of their accents: both kept, said."""
        forms = defaultdict(list)
        for path in self.files:
            if not path.isascii():
                forms[unicodedata.normalize("NFC", path)].append(path)
        for twins in forms.values():
            if len(twins) > 1:
                text = f"{len(twins)} files have this name in different Unicode forms; all kept"
                self.note(twins[0], text, lost=False)


def list_folder(root: Path) -> Listing:
    """Every image below `root`; links are followed inside the root only, each folder visited once."""
    walk = _Walk(root)
    walk.run()
    return walk.found.listing()


class _Walk:
    """A depth-first walk; linked folders wait until all real ones were seen, so real paths win."""

    def __init__(self, root: Path) -> None:
        self.root = os.fspath(root)
        self.real_root = os.path.realpath(root)
        self.found = Collector()
        self.linked: list[str] = []
        self.visited: set[tuple[int, int]] = set()

    def run(self) -> None:
        self._visit_all("")
        while self.linked:
            links, self.linked = sorted(self.linked), []
            for link in links:
                if not os.path.isdir(os.path.join(self.root, link)):
                    self.found.note(link, "a link whose folder has gone since it was listed; skipped")
                elif self._seen(os.path.join(self.root, link)):
                    self.found.note(link, "a link to a folder that is read anyway; read once", lost=False)
                elif self.found.folder(link):
                    self._visit_all(link)

    def _seen(self, full: str) -> bool:
        status = os.stat(full)
        return (status.st_dev, status.st_ino) in self.visited

    def _visit_all(self, start: str) -> None:
        waiting = [start]
        while waiting:
            waiting.extend(self._visit(waiting.pop()))

    def _visit(self, folder: str) -> list[str]:
        """Take in one folder's entries; the real folders in it are returned, to be visited next."""
        full = os.path.join(self.root, folder) if folder else self.root
        try:
            if self._seen(full):
                self.found.note(folder, "the same folder as one already read; read once", lost=False)
                return []
            status = os.stat(full)
            self.visited.add((status.st_dev, status.st_ino))
            with os.scandir(full) as entries:  # not held as a list: a folder may have a million
                inner = [
                    self._entry(entry, f"{folder}/{entry.name}" if folder else entry.name)
                    for entry in entries
                ]
        except OSError as error:
            if not folder:
                raise SourceError(
                    f"{printable(full)}: cannot be opened ({error.strerror}); check its permissions"
                ) from None
            self.found.note(folder, f"cannot be opened ({error.strerror}); do: chmod u+rx, or move it up")
            return []
        return sorted(path for path in inner if path)

    def _entry(self, entry: os.DirEntry[str], path: str) -> str:
        """Take in one entry; a folder that must be visited is returned, else ""."""
        if entry.is_symlink():
            self._link(entry, path)
        elif entry.is_dir(follow_symlinks=False):
            return path if self.found.folder(path) else ""
        elif entry.is_file(follow_symlinks=False):
            self.found.file(path)
        else:
            self.found.note(path, "a pipe, socket or device; skipped, remove it")
        return ""

    def _link(self, entry: os.DirEntry[str], path: str) -> None:
        if kind_of(entry.name) == "junk":
            self.found.ignored[junk_reason(entry.name, folder=False)] += 1
            return
        real = os.path.realpath(entry.path)
        if os.path.commonpath([real, self.real_root]) != self.real_root:
            self.found.note(
                path, "a link that leads out of the data's folder; not followed, copy what it names"
            )
        elif os.path.isdir(real):
            self.linked.append(path)
        elif os.path.isfile(real):
            self.found.file(path)
        else:
            self.found.note(path, "a link that leads nowhere, or to no file; skipped, remove it")
