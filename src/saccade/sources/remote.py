"""Objects in a bucket or behind HTTP: listed, read and copied through obstore, imported when first needed.

A request that fails is repeated a few times within a bounded time. What is one object's own fault (it is
gone, it may not be read, its server answers with an error) is an ImageError, as for a file. Where the service
cannot be reached or does not know the credentials, SourceError ends the command: other objects would fail
alike, and the same command goes on later. What a service answers is said in our own words, since it may
repeat secrets.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote

from saccade.caches.scans import Stamp
from saccade.caches.store import cache_folder
from saccade.errors import ImageError, MissingExtraError, SourceError
from saccade.images.decoder import DEFAULT_MAX_BYTES
from saccade.records import Storage
from saccade.sources.addresses import Secret, is_remote, on_loopback, parted, secret_of
from saccade.sources.storage import refuse_size, unreadable
from saccade.terminal import printable

CONNECT_SECONDS, REQUEST_SECONDS, COPY_SECONDS = 5, 60, 7200
RETRIES, RETRY_SECONDS = 4, 60
READ_AHEAD = 8  # objects of one process under way at once while it scans
_SERVICES = ("AWS_", "GOOGLE_", "AZURE_")  # how the names of their variables begin
_LISTED_AT_ONCE = 1000
_COPIED_AT_ONCE = 1 << 20
_STATUS = re.compile(r"\bstatus(?: code)?:? (\d{3})\b")
_CODE = re.compile(r"<Code>(\w+)</Code>")
_BAD_NAMES = ("InvalidPathError", "ValueError")
_NOT_LET_IN = {  # S3's words for credentials that no object of its would accept
    *("InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken", "InvalidSecurity"),
    *("TokenRefreshRequired", "RequestTimeTooSkewed", "AuthorizationHeaderMalformed", "AuthFailure"),
}
_CREDENTIALS = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (AWS_SKIP_SIGNATURE=true for a public bucket)",
    "gs": "GOOGLE_SERVICE_ACCOUNT (GOOGLE_SKIP_SIGNATURE=true for a public bucket)",
    "az": "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
}


class Listed(NamedTuple):
    """One object: its path below what was listed, bytes, ETag ("" without one), when it was written (ns)."""

    path: str
    size: int
    etag: str
    modified: int


def listed(location: str) -> Iterator[Listed]:
    """The objects below an address, as they come; raises SourceError."""
    root, prefix = parted(location)
    skipped = len(prefix) + 1 if prefix else 0
    store = _store(root)
    try:
        for some in store.list(prefix or None, chunk_size=_LISTED_AT_ONCE):
            for meta in some:
                yield Listed(meta["path"][skipped:], meta["size"], meta["e_tag"] or "", _written(meta))
    except Exception as error:
        raise _not_listed(error, location) from None


def stamp_of(found: Listed) -> Stamp:
    """What is another as soon as the object is: its size, a number made of its ETag, when it was written."""
    tag = hashlib.sha256(found.etag.encode()).digest()[:6]
    return found.size, int.from_bytes(tag), found.modified


def _written(meta: Mapping[str, Any]) -> int:
    return int(meta["last_modified"].timestamp() * 1000) * 1_000_000


@dataclass(frozen=True, slots=True)
class RemoteStorage:
    """Objects below the address `root`; a path that is an address stands for itself.

    Only the address travels to worker processes, each of which connects for itself.
    """

    root: str = ""
    max_bytes: int = DEFAULT_MAX_BYTES

    def read(self, path: str) -> bytes:
        """The object's bytes; raises ImageError where it fails alone, SourceError where its service does."""
        address = path if is_remote(path) else f"{self.root}/{path}"
        try:
            found = _get(address, REQUEST_SECONDS)
            refuse_size(found.meta["size"], self.max_bytes)
            return bytes(found.bytes())
        except (ImageError, SourceError, MissingExtraError, ForkedError):
            raise
        except Exception as error:
            raise _not_read(error, address) from None

    def ahead(self, paths: Iterable[str]) -> Storage:
        """A storage that begins to read these paths now, each once, a few at a time."""
        return _Ahead({path: _readers(os.getpid()).submit(self.read, path) for path in paths})


@dataclass(frozen=True, slots=True)
class LinkedStorage:
    """Another storage, for a list that also names addresses."""

    storage: Storage

    def read(self, path: str) -> bytes:
        """The bytes of a file or object; raises ImageError when it cannot be read."""
        return (RemoteStorage() if is_remote(path) else self.storage).read(path)


@dataclass(frozen=True, slots=True)
class _Ahead:
    """What is being read for somebody who will ask soon."""

    reading: dict[str, Future[bytes]]

    def read(self, path: str) -> bytes:
        """As the storage behind it; each path once."""
        return self.reading.pop(path).result()


@lru_cache(maxsize=1)
def _readers(process: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(READ_AHEAD, "objects")


# -- copies of single objects ------------------------------------------------------------------------------


class Copy(NamedTuple):
    """An object on this disk, and what tells its states apart."""

    path: Path
    state: str


def copies_of(address: str) -> Path:
    """The folder in the cache that holds copies of what lies below an address."""
    return cache_folder() / "remote" / hashlib.sha256(address.encode()).hexdigest()[:16]


def copied(address: str, *, below: str) -> Copy:
    """The object as a file in the cache's folder, under its path `below` an address; copied once a state.

    For archives, lists and tables, of which most is read anyway. Raises SourceError.
    """
    folder = copies_of(below)
    target = folder / address[len(below) :].lstrip("/")
    note = target.with_name(f"{target.name}.state")
    try:
        found = _get(address, COPY_SECONDS)
        meta = found.meta
        state = json.dumps([meta["size"], meta["e_tag"] or _written(meta)])
        if not (target.is_file() and note.is_file() and note.read_text("utf-8") == state):
            _copy(found, meta["size"], target, note, state)
    except (SourceError, MissingExtraError):
        raise
    except FileNotFoundError:
        raise SourceError(
            f"{printable(address)}: there is no such object", hint="check the address"
        ) from None
    except OSError as error:
        raise SourceError(
            f"{printable(address)}: cannot be copied to {folder} ({error.strerror})",
            hint="check that disk, or name another folder in SACCADE_CACHE",
        ) from None
    except Exception as error:
        raise _not_listed(error, address) from None
    return Copy(target, state)


def _copy(found: Any, size: int, target: Path, note: Path, state: str) -> None:
    """Whole or not at all; a copy without a note of its state is made again."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if shutil.disk_usage(target.parent).free < size:
        raise OSError(0, f"it has {size:,} bytes, more than are free")
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            for some in found.stream(min_chunk_size=_COPIED_AT_ONCE):
                file.write(some)
        note.unlink(missing_ok=True)
        part.replace(target)
        note.write_text(state, "utf-8")
    finally:
        part.unlink(missing_ok=True)


# -- connections -------------------------------------------------------------------------------------------


class ForkedError(RuntimeError):
    """obstore's threads do not outlive a fork. Who loads images by forked processes goes on without them."""


def _get(address: str, seconds: int) -> Any:
    """The answer to one request, whose body is still to be read; raises what obstore raises."""
    root, key = parted(address)
    if root.startswith("http"):
        if secret_of(address).query:  # an address of its own
            return _store(address, seconds).get("")
        key = unquote(key)
    return _store(root, seconds).get(key)


_connected_by = 0  # the process that connected first


def _store(root: str, seconds: int = REQUEST_SECONDS) -> Any:
    """A connection, kept by this process; raises MissingExtraError, SourceError, ForkedError."""
    global _connected_by
    _connected_by = _connected_by or os.getpid()
    if _connected_by != os.getpid():
        raise ForkedError(f"a forked process cannot read {root}")
    said = tuple((name, value) for name, value in os.environ.items() if name.startswith(_SERVICES))
    return _connection(root, seconds, secret_of(root), said)


@lru_cache(maxsize=64)
def _connection(root: str, seconds: int, secret: Secret, said: tuple[tuple[str, str], ...]) -> Any:
    """`said`: what the environment says to a service, which obstore reads for itself."""
    try:
        from obstore import store
    except ImportError:
        raise MissingExtraError("obstore", "remote", f"reading {root}") from None
    web = root.startswith("http")
    names = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
    endpoint = next((dict(said)[name] for name in names if dict(said).get(name)), "")
    plain_http = root.startswith("http:") or on_loopback(endpoint) or _allows_http()
    options: dict[str, Any] = {
        "timeout": timedelta(seconds=seconds),
        "connect_timeout": timedelta(seconds=CONNECT_SECONDS),
        **({"allow_http": True} if plain_http else {}),
        **({"default_headers": secret.headers} if secret.login else {}),
    }
    retries: dict[str, Any] = {
        "max_retries": RETRIES,
        "retry_timeout": timedelta(seconds=max(seconds, RETRY_SECONDS)),
    }
    own = {"endpoint": endpoint} if root.startswith("s3:") and endpoint else {}
    try:
        if web:
            query = f"?{secret.query}" if secret.query else ""
            return store.HTTPStore.from_url(f"{root}{query}", client_options=options, retry_config=retries)
        return store.from_url(root, client_options=options, retry_config=retries, **own)
    except Exception as error:
        kind = type(error).__name__
        raise SourceError(
            f"{printable(root)}: cannot be opened ({kind})", hint=_check_environment(root)
        ) from None


def _allows_http() -> bool:
    """What the services' own variables say; naming options here would hide them from obstore."""
    names = ("AWS_ALLOW_HTTP", "GOOGLE_ALLOW_HTTP", "AZURE_ALLOW_HTTP")
    return any(os.environ.get(name, "").lower() in ("1", "true", "yes", "on") for name in names)


# -- what is said ------------------------------------------------------------------------------------------


def _not_read(error: Exception, address: str) -> ImageError | SourceError:
    """What one object's failure means for it, or for all."""
    status, code = _answer(error)
    if isinstance(error, FileNotFoundError) or status == 404:
        return unreadable(FileNotFoundError())
    if type(error).__name__ in _BAD_NAMES:
        return ImageError("a name that no object can have", "Correct the address")
    if code in _NOT_LET_IN or not status:
        return _unavailable(error, address)
    if status in (401, 403):
        return ImageError(f"access refused (status {status})", "Allow reading it")
    return ImageError(f"its server answers with status {status}", "Run again later")


def _not_listed(error: Exception, location: str) -> SourceError:
    status, _ = _answer(error)
    root = parted(location)[0]
    if isinstance(error, FileNotFoundError) or status == 404:
        return SourceError(
            f"{printable(location)}: there is no bucket or object of this name",
            hint="check the address, and AWS_ENDPOINT_URL and AWS_REGION where the bucket lies elsewhere",
        )
    if status in (401, 403):
        return _refused(error, root, status)
    return _unavailable(error, location)


def _unavailable(error: Exception, address: str) -> SourceError:
    """The service as a whole lets nobody in, or does not answer."""
    status, code = _answer(error)
    root = parted(address)[0]
    if code in _NOT_LET_IN or status in (401, 403):
        return _refused(error, root, status)
    text = str(error).lower()
    if "169.254.169.254" in text or "metadata" in text or "credential" in text:
        return SourceError(f"{root}: no credentials are given", hint=_check_environment(root))
    if type(error).__name__ in _BAD_NAMES:
        hint = "rename objects with an empty folder (//), . or .. in their names"
        return SourceError(f"{printable(address)}: holds a name that cannot be read", hint=hint)
    why = f"status {status}" if status else "timed out" if "timed out" in text else "no connection"
    return SourceError(
        f"{printable(root)}: does not answer ({why}, after {RETRIES} repeats)",
        hint="check the network and the address; then the same command goes on",
    )


def _refused(error: Exception, root: str, status: int) -> SourceError:
    _, code = _answer(error)
    said = ", ".join(filter(None, [f"status {status}" if status else "", code]))
    return SourceError(
        f"{printable(root)}: access refused ({said or 'credentials'})", hint=_check_environment(root)
    )


def _check_environment(root: str) -> str:
    scheme = root.partition("://")[0]
    if scheme not in _CREDENTIALS:
        return "check the address, and its user:password@"
    return f"check these variables of the environment: {_CREDENTIALS[scheme]}"


def _answer(error: Exception) -> tuple[int, str]:
    """The HTTP status of an answer (0 without one) and S3's code, the only words of it that are repeated."""
    text = str(error)
    status, code = _STATUS.search(text), _CODE.search(text)
    by_kind = {"PermissionDeniedError": 403, "UnauthenticatedError": 401}.get(type(error).__name__, 0)
    return (int(status[1]) if status else by_kind), (code[1] if code else "")
