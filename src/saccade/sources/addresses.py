"""Addresses of data that lie elsewhere (s3://, gs://, az://, https://), and what of them stays secret.

`user:password@` and what stands behind the `?` of an https address are taken out where a command begins.
They are kept in this process's environment, which its worker processes inherit, and nowhere else.
"""

from __future__ import annotations

import base64
import json
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

from saccade.errors import SourceError

_ADDRESS = re.compile(r"(s3|gs|az|https?)://", re.IGNORECASE)
_IN_A_WORD = re.compile(rf"((?:--)?[\w.-]+=)?({_ADDRESS.pattern}.*)", re.IGNORECASE | re.DOTALL)
HAS_SECRETS = "an address with a login or a query (what stands behind ?)"
_SECRETS = "SACCADE_ADDRESS_SECRETS"  # of the environment: {address: [user:password, query]}
_LOOPBACK = re.compile(r"http://(127\.\d+\.\d+\.\d+|localhost|\[::1\])(:\d+)?(/|$)", re.IGNORECASE)


class Secret(NamedTuple):
    """What an address said that is written down nowhere."""

    login: str = ""
    query: str = ""

    @property
    def headers(self) -> dict[str, str]:
        """What a request says to be let in (RFC 7617)."""
        if not self.login:
            return {}
        return {"Authorization": f"Basic {base64.b64encode(unquote(self.login).encode()).decode()}"}


def is_remote(location: str) -> bool:
    """Whether this is the address of something on another machine.

    >>> is_remote("s3://bucket/photos"), is_remote("photos"), is_remote("torchvision:MNIST")
    (True, False, False)
    """
    return bool(_ADDRESS.match(location))


def without_secrets(location: str) -> str:
    """The address without login, query and closing slashes; what it loses is remembered for reading.

    What is no address stays as it is. Raises SourceError for a login in the address of a bucket.

    >>> without_secrets("https://me:secret@host/photos.tar?token=1"), without_secrets("s3://bucket/photos/")
    ('https://host/photos.tar', 's3://bucket/photos')
    """
    if not is_remote(location):
        return location
    address, secret = _taken_apart(location)
    if secret.login and not address.startswith("http"):
        raise SourceError(
            f"{address}: has a login in its address",
            hint="give credentials in the environment: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and the like",
        )
    if any(secret):
        _remember(address, secret)
    return address


def plain(address: str) -> str:
    """As `without_secrets`, for an address that nobody will read."""
    return _taken_apart(address)[0]


def has_secrets(address: str) -> bool:
    """Whether an address has a login or a query, which a list must not have: lists are kept and shared."""
    return any(_taken_apart(address)[1])


def _taken_apart(address: str) -> tuple[str, Secret]:
    scheme, _, rest = address.partition("://")
    host, slash, path = rest.partition("/")
    login, _, host = host.rpartition("@")
    query = ""
    if scheme.lower().startswith("http"):
        path, _, query = path.partition("#")[0].partition("?")
    return f"{scheme.lower()}://{host}{slash}{path}".rstrip("/"), Secret(login, query)


def words_without_secrets(words: Iterable[str]) -> list[str]:
    """Words of a command line, addresses among them (also behind FLAG=) without what is secret.

    >>> words_without_secrets(["train", "https://me:secret@host/a.tar", "--track", "mlflow:http://me@host"])
    ['train', 'https://host/a.tar', '--track', 'mlflow:http://me@host']
    """
    found = ((word, _IN_A_WORD.fullmatch(word)) for word in words)
    return [f"{match[1] or ''}{without_secrets(match[2])}" if match else word for word, match in found]


def _remember(address: str, secret: Secret) -> None:
    kept = json.loads(os.environ.get(_SECRETS, "{}"))
    os.environ[_SECRETS] = json.dumps({**kept, address: secret})


def secret_of(address: str) -> Secret:
    """What this address said; else the login that an address of the same host said."""
    kept = {known: Secret(*values) for known, values in json.loads(os.environ.get(_SECRETS, "{}")).items()}
    if address in kept:
        return kept[address]
    host = _root(address)
    login = next((secret.login for known, secret in kept.items() if _root(known) == host), "")
    return Secret(login)


def on_loopback(address: str) -> bool:
    """Whether plain HTTP to this address stays within this machine."""
    return bool(_LOOPBACK.match(address))


# -- parts of an address -----------------------------------------------------------------------------------


def _root(address: str) -> str:
    scheme, _, rest = address.partition("://")
    return f"{scheme}://{rest.partition('/')[0]}"


def parted(address: str) -> tuple[str, str]:
    """Bucket or host, and what stands behind it.

    >>> parted("s3://bucket/photos/rose/a.jpg")
    ('s3://bucket', 'photos/rose/a.jpg')
    """
    root = _root(address)
    return root, address[len(root) :].strip("/")


def above(address: str) -> str:
    """The address of the folder that this lies in.

    >>> above("https://host/data/photos.tar")
    'https://host/data'
    """
    root, key = parted(address)
    return f"{root}/{key.rpartition('/')[0]}".rstrip("/")


def address_of(root: Path) -> str:
    """The address that a data set's root means, whose second slash a Path does not keep; "" for a folder.

    >>> address_of(Path("s3://bucket/photos")), address_of(Path("photos"))
    ('s3://bucket/photos', '')
    """
    found = re.fullmatch(r"(s3|gs|az|https?):/+(.*)", root.as_posix(), re.DOTALL)
    return f"{found[1]}://{found[2]}" if found else ""


def root_as_text(root: Path) -> str:
    """A data set's root as it is written down: an address, or the path of a folder."""
    return address_of(root) or str(root)
