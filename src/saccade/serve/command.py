"""`saccade serve`: what was asked is checked, then the server runs until a signal ends it."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
from pathlib import Path
from typing import TYPE_CHECKING

from saccade.errors import MissingExtraError, RecipeError
from saccade.files import read_file
from saccade.serve.limits import ServeLimits

if TYPE_CHECKING:
    from saccade.terminal import Terminal

LEAST_TOKEN = 16  # characters
NEEDED = ("starlette", "uvicorn", "httptools", "python_multipart", "prometheus_client")


def serve_command(
    model: str,
    terminal: Terminal,
    limits: ServeLimits,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    name: str = "",
    token_file: str = "",
    priors: str = "",
) -> int:
    """`saccade serve`: 0 after a signal, when every accepted request was answered."""
    token = read_token(token_file)
    check_host(host, token)
    if not 0 <= port <= 65535:
        raise RecipeError(f"--port must lie between 0 and 65535, got {port}")
    check_name(name)
    try:
        from saccade.serve.running import run
        from saccade.serve.server import Server
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] in NEEDED:
            raise MissingExtraError(str(error.name), "serve", "`saccade serve`") from None
        raise
    server = Server(Path(model), limits, name=name, token=token, priors=priors)
    return asyncio.run(run(server, terminal, host=host, port=port))


def read_token(file: str) -> bytes:
    """The token in `file`, b"" where no file is given; raises RecipeError for one that is no good secret."""
    if not file:
        return b""
    try:
        token = read_file(file, max_bytes=10_000).strip()
    except OSError as error:
        raise RecipeError(
            f"--token-file cannot be read: {file} ({error.strerror})", hint="check the path"
        ) from None
    if len(token) < LEAST_TOKEN or not all(33 <= byte <= 126 for byte in token):
        raise RecipeError(
            f"the token in {file} must be {LEAST_TOKEN} or more visible ASCII characters without spaces",
            hint="make one: python -c 'import secrets; print(secrets.token_urlsafe(32))'",
        )
    return token


def check_host(host: str, token: bytes) -> None:
    """Refuse to be reached from other machines without a token."""
    if not is_loopback(host) and not token:
        raise RecipeError(
            f"--host {host} can be reached from other machines, so clients must prove who they are",
            hint="add --token-file FILE, or leave --host out",
        )


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches `host`.

    >>> is_loopback("127.0.0.1"), is_loopback("::1"), is_loopback("0.0.0.0"), is_loopback("")
    (True, True, False, False)
    """
    if host == "localhost":
        return True
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    return False


def check_name(name: str) -> None:
    """Refuse a name that cannot stand in an address."""
    if name and (len(name) > 100 or not all(c.isalnum() or c in "._-" for c in name)):
        raise RecipeError(
            f"--name must be letters, digits, '.', '_' and '-', got {name!r}", hint="choose another"
        )
