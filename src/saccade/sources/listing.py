"""The files and folders below a root or in an archive, before they get a meaning."""

from __future__ import annotations

import os
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from saccade.errors import SourceError
from saccade.sources.naming import ARRAY_SUFFIXES, junk_reason, kind_of, suffix
from saccade.terminal import printable

_MOST_NAMED = 1000
OWN_OUTPUT = "folders written by saccade"
LEADS_OUT = "a link that leads out of the data's folder; not followed, copy what it names"
LEADS_NOWHERE = "a link that leads nowhere; skipped, restore what it names"


@dataclass(frozen=True, slots=True)
class Lost:
    """Something that may be part of the data and that a rule keeps out.

    A folder stands for all it may hold; `again` says that its images are read elsewhere.
    """

    path: str
    why: str
    folder: bool = False
    again: bool = False

    def __str__(self) -> str:
        return f"{printable(self.path)}: {self.why}"


@dataclass(frozen=True, slots=True)
class Listing:
    """Image files and folders by their path below the root (forward slashes), both sorted.

    `ignored` counts what is passed over by rule; `listed` names what was seen and is not used, with why.
    `lost` are those among them that may be part of the data (of many alike files the first thousand);
    `lost_files` counts them all by the folder they lie in.
    """

    files: tuple[str, ...]
    folders: tuple[str, ...]
    ignored: Mapping[str, int]
    listed: tuple[str, ...]
    lost: tuple[Lost, ...] = ()
    lost_files: Mapping[str, int] = field(default_factory=dict)

    @property
    def left_out(self) -> tuple[str, ...]:
        """Lines about what may have been an image that was wanted and is read nowhere."""
        return tuple(str(lost) for lost in self.lost if not lost.again)


@dataclass(slots=True)
class Collector:
    """Gathers a Listing, entry by entry; used for folders and for archives alike."""

    files: list[str] = field(default_factory=list)
    folders: set[str] = field(default_factory=set)
    ignored: Counter[str] = field(default_factory=Counter)
    listed: list[str] = field(default_factory=list)
    unknown: Counter[str] = field(default_factory=Counter)
    lost: list[Lost] = field(default_factory=list)
    lost_files: Counter[str] = field(default_factory=Counter)
    arrays: list[str] = field(default_factory=list)
    read_npy: bool = False  # whether arrays are images, as where the recipe declares their channels
    marks: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))

    def note(self, path: str, why: str) -> None:
        self.listed.append(f"{printable(path)}: {why}")

    def lose(self, path: str, why: str, *, folder: bool = False, again: bool = False) -> None:
        """Note something that may be part of the data."""
        lost = Lost(path, why, folder, again)
        self.lost.append(lost)
        self.listed.append(str(lost))
        if not folder:
            self.lost_files[path.rpartition("/")[0]] += 1

    def file(self, path: str) -> None:
        """Take in one regular file by its name."""
        name = path.rpartition("/")[2]
        kind = kind_of(name)
        if kind == "image" or (self.read_npy and suffix(name) == "npy"):
            self.files.append(path)
        elif kind == "junk":
            self.ignored[junk_reason(name, folder=False)] += 1
            self._remember_mark(path, name)
        elif kind == "sidecar":
            self.ignored[f".{suffix(name)} files"] += 1
            self._remember_mark(path, name)
            if suffix(name) in ARRAY_SUFFIXES:
                self.arrays.append(path)
        else:
            self._unknown(path, suffix(name))

    def _remember_mark(self, path: str, name: str) -> None:
        if is_mark(name):
            self.marks[path.rpartition("/")[0]].add(name)

    def _unknown(self, path: str, extension: str) -> None:
        """Name a file of an unknown kind; after a thousand of one kind, only count."""
        kind = f".{extension} files" if extension else "files without extension"
        self.unknown[kind] += 1
        if self.unknown[kind] > _MOST_NAMED:
            self.ignored[f"further {kind}"] += 1
            self.lost_files[path.rpartition("/")[0]] += 1
        elif extension:
            self.lose(path, "not an image by its extension; ignored, rename it if it is one")
        else:
            self.lose(path, "no extension; ignored, rename it to use it (for example to .jpg)")

    def folder(self, path: str) -> bool:
        """Take in one folder; False when it is passed over with all it holds."""
        name = path.rpartition("/")[2]
        if kind_of(name) == "junk":
            self.ignored[junk_reason(name, folder=True)] += 1
            return False
        self.folders.add(path)
        return True

    def listing(self) -> Listing:
        # an array beside the image of its name describes it; any other may be an image itself
        stems = {os.path.splitext(path)[0] for path in self.files} if self.arrays else set()
        loose = (path for path in self.arrays if os.path.splitext(path)[0] not in stems)
        self.lost_files.update(path.rpartition("/")[0] for path in loose)
        self._leave_out_own_output()
        self._warn_of_twin_names()
        return Listing(
            tuple(sorted(self.files)),
            tuple(sorted(self.folders)),
            dict(sorted(self.ignored.items())),
            tuple(sorted(self.listed)),
            tuple(sorted(self.lost, key=str)),
            dict(self.lost_files),
        )

    def _leave_out_own_output(self) -> None:
        """A run or an audit that lies inside the data is no class."""
        own = own_folders(self.marks, self.folders, self.files)
        if not own:
            return

        def outside(path: str) -> bool:
            return not any(folder in ("", path) or path.startswith(f"{folder}/") for folder in own)

        self.ignored[OWN_OUTPUT] += len(own)
        self.files = [path for path in self.files if outside(path)]
        self.folders = {path for path in self.folders if outside(path)}
        left_out = {str(lost) for lost in self.lost if not outside(lost.path)}
        self.lost = [lost for lost in self.lost if outside(lost.path)]
        self.listed = [line for line in self.listed if line not in left_out]
        self.lost_files = Counter({path: n for path, n in self.lost_files.items() if outside(path)})

    def _warn_of_twin_names(self) -> None:
        """List names that differ only in the encoding of their accents; all of them are used."""
        forms = defaultdict(list)
        for path in self.files:
            if not path.isascii():
                forms[unicodedata.normalize("NFC", path)].append(path)
        for twins in forms.values():
            if len(twins) > 1:
                text = f"{len(twins)} files have this name in different Unicode forms; all kept"
                self.note(twins[0], text)


def list_folder(root: Path, *, read_npy: bool = False) -> Listing:
    """Every image below `root`; links are followed inside the root only, each folder visited once.

    `read_npy`: arrays in .npy files are images.
    """
    walk = _Walk(root)
    walk.found.read_npy = read_npy
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
                    why = "a link whose folder has gone since it was listed; skipped"
                    self.found.lose(link, why, folder=True)
                elif self._seen(os.path.join(self.root, link)):
                    self._again(link, "a link to a folder that is read anyway; read once")
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
                self._again(folder, "the same folder as one already read; read once")
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
                    f"{printable(full)}: cannot be opened ({error.strerror})", hint="check its permissions"
                ) from None
            why = f"cannot be opened ({error.strerror}); do: chmod u+rx, or move it up"
            self.found.lose(folder, why, folder=True)
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
            self.found.lose(path, "a pipe, socket or device; skipped, remove it")
        return ""

    def _link(self, entry: os.DirEntry[str], path: str) -> None:
        if kind_of(entry.name) == "junk":
            self.found.ignored[junk_reason(entry.name, folder=False)] += 1
            return
        if kind_of(entry.name) == "sidecar":
            self.found.file(path)
            return
        real = os.path.realpath(entry.path)
        if not os.path.exists(real):
            self.found.lose(path, LEADS_NOWHERE, folder=not suffix(entry.name))
        elif os.path.commonpath([real, self.real_root]) != self.real_root:
            self.found.lose(path, LEADS_OUT, folder=os.path.isdir(real))
        elif os.path.isdir(real):
            self.linked.append(path)
        elif os.path.isfile(real):
            self.found.file(path)
        else:
            self.found.lose(path, "a link to a pipe, socket or device; skipped, remove it")

    def _again(self, path: str, why: str) -> None:
        self.found.lose(path, why, folder=True, again=True)


# -- own output ------------------------------------------------------------------------------------------
# Folders that saccade itself wrote: runs and audits, which may lie inside the data and are no class.


_LOCK = ".lock"
_RUN = frozenset({"recipe.toml", "environment.json", "dataset.csv", _LOCK})
_AUDIT = frozenset({"audit.json", "audit.html"})


def is_mark(name: str) -> bool:
    """Whether a file of this name may tell such a folder."""
    return name in _RUN or name in _AUDIT


def own_folders(
    marks: Mapping[str, Collection[str]], folders: Collection[str], images: Collection[str]
) -> frozenset[str]:
    """The topmost folders that hold nothing but runs and audits, "" for the root; `marks` are their files.

    A folder with images of its own is never one, and what may have been put into any folder (an audit, a
    lock) tells nothing where images lie below: a class or a part would be lost.
    """
    if not marks:
        return frozenset()
    with_images = {image.rpartition("/")[0] for image in images}
    above_images = {folder for inner in with_images for folder in _with_parents(inner)}
    own = {
        folder
        for folder, names in marks.items()
        if folder not in with_images
        and (_is_run(names) or (_may_be_anywhere(names) and folder not in above_images))
    }
    if "" in own:  # the root itself; it may have other images, then the audit was written beside them
        return frozenset() if with_images else frozenset({""})
    while parents := {_parent(folder) for folder in own} - own - {""}:
        grown = own | {parent for parent in parents if _holds_only(parent, own, folders, with_images)}
        if grown == own:
            break
        own = grown
    return frozenset(folder for folder in own if _parent(folder) not in own)


def _is_run(names: Collection[str]) -> bool:
    return "recipe.toml" in names and len(_RUN.intersection(names)) > 1


def _may_be_anywhere(names: Collection[str]) -> bool:
    """Whether these are an audit's files, or the lock that a run has alone when it begins."""
    return _AUDIT.issubset(names) or set(names) == {_LOCK}


def _with_parents(folder: str) -> Iterator[str]:
    while folder:
        yield folder
        folder = _parent(folder)
    yield ""


def _holds_only(
    parent: str, own: Collection[str], folders: Collection[str], with_images: Collection[str]
) -> bool:
    below = [folder for folder in {*folders, *with_images} if folder.startswith(f"{parent}/")]
    inside = [any(folder == known or folder.startswith(f"{known}/") for known in own) for folder in below]
    return parent not in with_images and all(inside)


def _parent(folder: str) -> str:
    return folder.rpartition("/")[0]
