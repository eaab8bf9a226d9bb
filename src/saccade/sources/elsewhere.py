"""What lies at an address: the objects below it in a bucket, or one object that is copied to this disk."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from saccade.caches.scans import Stamp
from saccade.errors import SourceError
from saccade.sources.addresses import above, is_remote
from saccade.sources.archive_index import Index
from saccade.sources.archives import expand_braces, listing_of
from saccade.sources.listing import Listing
from saccade.sources.naming import IMAGE_SUFFIXES, REFUSED_SUFFIXES, natural_key, suffix
from saccade.sources.remote import Copy, copied, copies_of, listed, stamp_of
from saccade.sources.tables import TEXT_SUFFIXES
from saccade.terminal import printable

PLAIN_LISTS = ("txt", "lst")
_ONE_OBJECT = {*TEXT_SUFFIXES, *PLAIN_LISTS, "parquet", "zip", "tar", "tgz", "gz", "bz2", "xz", "zst"}


def is_image(address: str) -> bool:
    """Whether one image is meant."""
    return suffix(address) in IMAGE_SUFFIXES | REFUSED_SUFFIXES


def is_folder(address: str) -> bool:
    """Whether the objects below an address are meant; raises SourceError for HTTP, which lists nothing."""
    if is_image(address) or suffix(address) in _ONE_OBJECT:
        return False
    if address.startswith("http"):
        raise SourceError(
            f"{printable(address)}: HTTP lists no folders",
            hint="give the address of a .tar, a .zip, a list or a .parquet",
        )
    return True


class Below(NamedTuple):
    """What lies below an address: the images, and what tells the states of each object apart."""

    listing: Listing
    stamps: dict[str, Stamp]


def listing_below(address: str, *, read_npy: bool = False) -> Below:
    """The images below an address, by the rules of a folder on disk; raises SourceError."""
    index = _objects(address)
    listing = listing_of(index, read_npy=read_npy)
    return Below(listing, {path: stamp_of(index.files[path]) for path in listing.files})


def _objects(address: str) -> Index:
    """Every object below an address as a member of an archive; what only marks a folder is one."""
    where = printable(address)
    index = Index(where)
    for found in listed(address):
        if not found.size and "." not in found.path.rpartition("/")[2]:
            index.folders.append(found.path.strip("/"))
        else:
            index.files[found.path] = found
    if not index.files:
        raise SourceError(f"{where}: no objects below this address", hint="check bucket and prefix")
    return index


class Copies(NamedTuple):
    """Objects copied to this disk: `folder` there stands for the address `root` here."""

    root: str
    folder: Path
    files: tuple[Copy, ...]

    @property
    def paths(self) -> tuple[Path, ...]:
        return tuple(copy.path for copy in self.files)

    def here(self, text: str) -> str:
        """A message about a copy, said of what it is a copy of."""
        return text.replace(str(self.folder), self.root)

    def address(self, path: Path) -> str:
        """What a copied file is a copy of."""
        return f"{self.root}/{path.relative_to(self.folder).as_posix()}"


def copies_at(address: str) -> Copies:
    """Copies of the object at an address, or of those that {000..011} in it names; raises SourceError."""
    if is_image(address):
        raise SourceError(
            f"{printable(address)}: is one image", hint="give the folder above the class folders"
        )
    root = above(address.partition("{")[0] + "x")  # of the part that all have in common
    return _copies(root, expand_braces(address))


def packed_below(address: str) -> Copies:
    """Copies of the shards below an address, else of its tables, down to the second level; maybe none."""
    names = [name for name in _objects(address).files if name.count("/") < 2]
    for ending in (".tar", ".parquet"):
        if packed := sorted((name for name in names if name.endswith(ending)), key=natural_key):
            return _copies(address, [f"{address}/{name}" for name in packed])
    return Copies(address, copies_of(address), ())


def _copies(root: str, addresses: list[str]) -> Copies:
    assert all(is_remote(address) for address in addresses), "addresses only"
    return Copies(root, copies_of(root), tuple(copied(address, below=root) for address in addresses))
