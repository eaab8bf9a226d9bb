"""Outputs at an address: written on this disk first, and uploaded whole once they are finished."""

from __future__ import annotations

import hashlib
from pathlib import Path

from saccade.caches.store import cache_folder
from saccade.errors import MissingExtraError, SourceError
from saccade.sources.addresses import parted
from saccade.sources.connections import connection, not_listed, only_forbidden
from saccade.terminal import printable

UPLOAD_SECONDS = 600  # of one request; a large file takes many, of 5 MB each
_REQUESTS_AT_ONCE = 4


def place_of(address: str) -> Path:
    """Where the output of this address is on this disk until it is uploaded."""
    name = address.rpartition("/")[2]
    return _waiting() / hashlib.sha256(address.encode()).hexdigest()[:16] / name


def is_place(path: Path) -> bool:
    """Whether what is written here is to be uploaded."""
    return _waiting() in path.parents


def _waiting() -> Path:
    return cache_folder() / "outputs"


def check_output(address: str) -> None:
    """Raise SourceError where nothing can be written to an address, as far as that is known beforehand."""
    root, key = parted(address)
    if root.startswith("http"):
        raise SourceError(
            f"{printable(address)}: HTTP takes no files",
            hint="give --out an address in a bucket (s3://, gs://, az://), or a name on this disk",
        )
    if not key:
        raise SourceError(
            f"{printable(address)}: names a bucket and nothing in it", hint=f"for example {root}/NAME"
        )
    try:
        next(iter(connection(root).list(key, chunk_size=1)), None)
    except (SourceError, MissingExtraError):
        raise
    except Exception as error:
        if not only_forbidden(error):  # writing may be allowed where listing is not
            raise not_listed(error, address) from None


def upload(file: Path, address: str) -> None:
    """Put a file at an address, whole or not at all; raises SourceError."""
    root, key = parted(address)
    try:
        connection(root, UPLOAD_SECONDS).put(key, file, max_concurrency=_REQUESTS_AT_ONCE)
    except (SourceError, MissingExtraError):
        raise
    except Exception as error:
        raise not_listed(error, address) from None
