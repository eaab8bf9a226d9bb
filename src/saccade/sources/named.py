"""Data sets by name: `torchvision:FashionMNIST`, or `torchvision:FashionMNIST?root=DIR` for files at hand.

Only sets whose files are no pickles and can be read in place: the IDX family. Files lie where
torchvision puts them (ROOT/NAME/raw), so what it has downloaded is found; what is absent is fetched
from the addresses torchvision publishes, and kept only when its MD5 is the published one.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import struct
import tempfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from saccade.caches.bound import hold
from saccade.caches.store import cache_folder
from saccade.errors import ImageError, SourceError
from saccade.files import open_file
from saccade.records import Dataset, ImageRecord
from saccade.sources.naming import natural_key
from saccade.sources.storage import unreadable
from saccade.terminal import printable

PREFIX = "torchvision:"
_MOST_IDX_BYTES = 2_000_000_000
_MOST_DOWNLOAD_BYTES = 200_000_000
_DOWNLOAD_SECONDS = 20  # without an answer, before giving up

_FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}


@dataclass(frozen=True, slots=True)
class _IdxSet:
    """Where four gzipped IDX files are published, their MD5 in the order of _FILES, and the classes."""

    address: str
    md5: tuple[str, str, str, str]
    classes: tuple[str, ...]


# name -> files and classes, as published by torchvision.datasets.mnist
_SETS = {
    "MNIST": _IdxSet(
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        (
            "f68b3c2dcbeaaa9fbdd348bbdeb94873",
            "d53e105ee54ea40749a09fcbcd1e9432",
            "9fb629c4189551a2d022fa330f9573f3",
            "ec29112dd5afa0611ce80d1b7f02629c",
        ),
        tuple("0123456789"),
    ),
    "FashionMNIST": _IdxSet(
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        (
            "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
            "25c81989df183df01b3e8a0aad5dffbe",
            "bef4ecab320f06d8554ea6380940ec79",
            "bb300cfdad3c16e7a12a480ee83cd310",
        ),
        (
            *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
            *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
        ),
    ),
    "KMNIST": _IdxSet(
        "http://codh.rois.ac.jp/kmnist/dataset/kmnist/",
        (
            "bdb82020997e1d708af4cf47b453dcf7",
            "e144d726b3acfaa3e44228e80efcd344",
            "5c965bf0a639b31b8f53240b1b52f4d7",
            "7320c461ea6c1c855c0b718fb2a4b134",
        ),
        ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"),
    ),
}
_PICKLED = ("CIFAR10", "CIFAR100", "STL10", "SVHN", "PCAM", "EMNIST")


def load_named(location: str) -> Dataset:
    """The data set of that name with its own train and test parts; raises SourceError without it."""
    name, _, query = location.removeprefix(PREFIX).partition("?")
    published = _SETS.get(name)
    if published is None:
        raise _refusal(name)
    root = _root(query, location)
    folder = root / name / "raw"
    labelled = {part: _files_of(part, name, published, folder) for part in _FILES}
    records = []
    for part, (images, labels) in labelled.items():
        records += _records(part, images, labels, published)
    records.sort(key=lambda record: record.path)
    storage = IdxStorage({part: images for part, (images, _) in labelled.items()})
    classes = tuple(sorted(published.classes, key=natural_key))
    return Dataset(folder, tuple(records), classes, storage, ("train", "test"))


def _refusal(name: str) -> SourceError:
    offered = ", ".join(_SETS)
    why = "its files are pickles or of a kind that is not read" if name in _PICKLED else "is not offered"
    return SourceError(
        f"{PREFIX}{printable(name)}: {why}; offered by name: {offered}",
        hint="export the images into a folder for each class, and give that folder",
    )


def _root(query: str, location: str) -> Path:
    """The folder that holds NAME/raw: as asked with ?root=, else a cache in the user's home."""
    key, _, value = query.partition("=")
    if query and (key != "root" or not value):
        raise SourceError(
            f"unknown option of a data set by name: {printable(location)}", hint="only ?root=DIR may follow"
        )
    if value:
        return Path(value).expanduser().absolute()
    return cache_folder() / "torchvision"


def _files_of(part: str, name: str, published: _IdxSet, folder: Path) -> tuple[str, str]:
    """Paths of the part's images and labels, fetched first where absent."""
    sums = published.md5[:2] if part == "train" else published.md5[2:]
    found = []
    for base, md5 in zip(_FILES[part], sums, strict=True):
        at_hand = [folder / base, folder / f"{base}.gz"]
        for path in at_hand:
            hold(path)
        existing = next((path for path in at_hand if path.is_file()), None)
        found.append(str(existing or _fetch(f"{published.address}{base}.gz", at_hand[1], md5, name)))
    return found[0], found[1]


def _fetch(address: str, target: Path, md5: str, name: str) -> Path:
    """Download one file whole, hold its MD5 against the published one, then put it in place."""
    import urllib.request

    def failed(why: str) -> SourceError:
        return SourceError(
            f"{PREFIX}{name}: {target.name} is not on this machine and cannot be downloaded ({why})",
            hint=f"put the four files into DIR/{name}/raw and give {PREFIX}{name}?root=DIR, or give a folder "
            "of images",
        )

    try:
        with urllib.request.urlopen(address, timeout=_DOWNLOAD_SECONDS) as answer:
            data = answer.read(_MOST_DOWNLOAD_BYTES + 1)
    except (OSError, ValueError) as error:  # URLError and timeouts are OSErrors
        raise failed(f"no connection: {getattr(error, 'reason', error)}") from None
    if hashlib.md5(data, usedforsecurity=False).hexdigest() != md5:
        raise failed("what came is not the published file")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=target.parent, delete=False) as file:
            file.write(data)
        os.replace(file.name, target)
    except OSError as error:
        raise failed(f"{target.parent} cannot be written: {error.strerror}") from None
    return target


def _records(part: str, images: str, labels: str, published: _IdxSet) -> list[ImageRecord]:
    try:
        numbers, count = read_idx(labels), len(read_idx(images))
    except (OSError, ValueError) as error:
        raise SourceError(f"{printable(images)}: cannot be read ({error})", hint="fetch it again") from None
    if numbers.ndim != 1 or len(numbers) != count or int(numbers.max(initial=0)) >= len(published.classes):
        raise SourceError(f"{printable(labels)}: does not fit {count:,} images", hint="fetch both again")
    return [
        ImageRecord(f"{part}/{row:05d}.pgm", published.classes[number], part)
        for row, number in enumerate(numbers.tolist())
    ]


@dataclass(frozen=True, slots=True)
class IdxStorage:
    """Gray images of IDX files (the format of MNIST), handed out as PGM. A path is PART/NUMBER.pgm."""

    files: Mapping[str, str]

    def read(self, path: str) -> bytes:
        """The image's bytes as PGM; raises ImageError when there is no such image."""
        part, _, name = path.partition("/")
        try:
            images = read_idx(self.files[part])
            height, width = images.shape[1:]
            pixels: bytes = images[int(name.removesuffix(".pgm"))].tobytes()
        except (KeyError, IndexError, ValueError) as error:
            raise ImageError(f"not in the data set ({error})", "Check the name, or run again") from None
        except OSError as error:
            raise unreadable(error) from None
        return b"P5\n%d %d\n255\n" % (width, height) + pixels


@lru_cache(maxsize=4)
def read_idx(file: str) -> NDArray[np.uint8]:
    """The array in an IDX file of unsigned bytes, packed with gzip or not; raises ValueError, OSError."""
    try:
        with open_file(file) as raw, gzip.open(raw) if file.endswith(".gz") else raw as opened:
            data = opened.read(_MOST_IDX_BYTES)
    except (EOFError, zlib.error) as error:
        raise ValueError(f"damaged gzip: {error}") from None
    if data[:3] != b"\0\0\x08" or len(data) < 4 + 4 * data[3]:
        raise ValueError("not an IDX file of unsigned bytes")
    shape = struct.unpack_from(f">{data[3]}I", data, 4)
    return np.frombuffer(data, np.uint8, offset=4 + 4 * data[3]).reshape(shape)
