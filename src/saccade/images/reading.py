"""Images as the scan saw them: bytes are held against the SHA-256 in their record before anything uses them.

Training, statistics, features, evaluation, certificate and report read stored images through here. So pixels
that are kept under a file's SHA-256 are the pixels of that file, and a file that changed since is named.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from saccade.errors import ChangedImageError, DataError, ImageError
from saccade.images.decoder import Limits, decode
from saccade.records import ImageRecord, Storage


def read_checked(storage: Storage, record: ImageRecord) -> bytes:
    """The bytes whose SHA-256 the record holds (any bytes where it holds none).

    Raises ChangedImageError for other bytes and ImageError for a file that cannot be read.
    """
    data = storage.read(record.path)
    if record.sha256 and hashlib.sha256(data).hexdigest() != record.sha256:
        raise ChangedImageError
    return data


def read_pixels(storage: Storage, record: ImageRecord, limits: Limits) -> Any:
    """Upright RGB uint8 (height, width, 3); raises DataError, since the scan found this image good."""
    try:
        return decode(read_checked(storage, record), limits=limits, name=record.path).pixels
    except ImageError as error:
        raise DataError(
            f"{record.path}: {error.reason}; it has changed since the data was scanned: put it back and give "
            "the same command again, or train the changed data in a new run folder (--out)"
        ) from None


@dataclass(frozen=True)
class CheckedReader:
    """Reads images by path, as `read_checked` does; raises ImageError for a path that has no record."""

    storage: Storage
    records: Iterable[ImageRecord]
    _by_path: dict[str, ImageRecord] = field(init=False, repr=False, default_factory=dict)

    def __post_init__(self) -> None:
        self._by_path.update((record.path, record) for record in self.records)

    def __call__(self, path: str) -> bytes:
        if path not in self._by_path:
            raise ImageError("not among the images of this run", "Check the name")
        return read_checked(self.storage, self._by_path[path])
