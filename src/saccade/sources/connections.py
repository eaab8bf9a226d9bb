"""Connections to buckets and HTTP through obstore, imported when first needed, and what is said of failures.

A request that fails is repeated a few times within a bounded time. What a service answers is said in our own
words, since it may repeat secrets.
"""

from __future__ import annotations

import os
import re
from datetime import timedelta
from functools import lru_cache
from typing import Any
from urllib.parse import unquote

from saccade.errors import ImageError, MissingExtraError, SourceError
from saccade.sources.addresses import Secret, on_loopback, parted, secret_of
from saccade.sources.storage import unreadable
from saccade.terminal import printable

CONNECT_SECONDS, REQUEST_SECONDS, COPY_SECONDS = 5, 60, 7200
RETRIES, RETRY_SECONDS = 4, 60
_SERVICES = ("AWS_", "GOOGLE_", "AZURE_")  # how the names of their variables begin
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


class ForkedError(RuntimeError):
    """obstore's threads do not outlive a fork. Who loads images by forked processes goes on without them."""


def get(address: str, seconds: int, options: Any = None) -> Any:
    """The answer to one request, whose body is still to be read; raises what obstore raises.

    options: obstore's, such as the range that is wanted.
    """
    root, key = parted(address)
    if root.startswith("http"):
        if secret_of(address).query:  # an address of its own
            return connection(address, seconds).get("", options=options)
        key = unquote(key)
    return connection(root, seconds).get(key, options=options)


def get_range(address: str, start: int, length: int, *, etag: str = "") -> bytes:
    """Bytes of an object; raises ImageError where it fails alone, SourceError where its service does.

    `etag`: of the state that is wanted; SourceError where the object has another one by now.
    """
    options: dict[str, Any] = {"range": (start, start + length)}
    if etag and not etag.startswith("W/"):  # a weak one never matches (RFC 9110, 13.1.1)
        options["if_match"] = etag
    try:
        return bytes(get(address, REQUEST_SECONDS, options).bytes())
    except (SourceError, MissingExtraError, ForkedError):
        raise
    except Exception as error:
        if type(error).__name__ == "PreconditionError":
            raise SourceError(
                f"{printable(address)}: has changed while it was read", hint="give the same command again"
            ) from None
        raise not_read(error, address) from None


_connected_by = 0  # the process that connected first


def connection(root: str, seconds: int = REQUEST_SECONDS) -> Any:
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


def not_read(error: Exception, address: str) -> ImageError | SourceError:
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


def not_listed(error: Exception, location: str) -> SourceError:
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


def only_forbidden(error: Exception) -> bool:
    """Whether the service knows the credentials, and they do not allow this request."""
    status, code = _answer(error)
    return status == 403 and code not in _NOT_LET_IN


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
