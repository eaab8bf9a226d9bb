"""The application: all routes, and what holds for all of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.routing import Route

from saccade.errors import SaccadeError
from saccade.serve import openapi, page, predicting, protocol_routes
from saccade.serve.around import Around
from saccade.serve.problems import Refused
from saccade.serve.replies import say_failed, say_http, say_refused

if TYPE_CHECKING:
    from saccade.serve.server import Server


def routes() -> list[Route]:
    """Every route, one list a module."""
    return [*page.routes(), *predicting.routes(), *protocol_routes.routes(), *openapi.routes()]


def build_app(server: Server) -> Starlette:
    """The application around `server`, which every endpoint finds as `request.app.state.server`."""
    app = Starlette(
        routes=routes(),
        middleware=[Middleware(Around, server=server)],
        exception_handlers={Refused: say_refused, HTTPException: say_http, SaccadeError: say_failed},  # type: ignore[dict-item]
    )
    app.router.redirect_slashes = False
    app.state.server = server
    return app
