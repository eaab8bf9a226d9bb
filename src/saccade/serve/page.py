"""The page for people at `/`: one file, which asks `/about` and `/predict` and nobody else."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from saccade.pages.assemble import one_script, whole_page

if TYPE_CHECKING:
    from saccade.serve.server import Server


def routes() -> list[Route]:
    """`GET /`."""
    return [Route("/", page)]


async def page(request: Request) -> Response:
    """`GET /`: the page. It needs no token; where one is set, it asks the person for it."""
    server: Server = request.app.state.server
    content, security = _page(server.model.name)
    headers = {"content-security-policy": f"{security}; frame-ancestors 'none'"}
    return Response(content, media_type="text/html", headers=headers)


@lru_cache(maxsize=4)
def _page(name: str) -> tuple[bytes, str]:
    script = one_script("page.js", "main-server.js")
    content, security = whole_page(name, script, policy={"connect-src": "'self'"})
    return content.encode("utf-8", "replace"), security
