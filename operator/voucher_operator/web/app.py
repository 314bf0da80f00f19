"""Common to all HTTP applications: every error response is `{"error": "..."}`.

See also: `probes` and `webhook` have the routes; `server` serves them.
"""

from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import cast

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route


def create_app(*routes: Route, failed: Callable[[], None] = lambda: None) -> Starlette:
    """Return an application with these routes; `failed` is called for each request that ends by an internal error."""

    async def refused(_: Request, error: Exception) -> JSONResponse:
        refusal = cast("HTTPException", error)
        return error_response(refusal.status_code, str(refusal.detail).lower(), refusal.headers)

    async def fault(_: Request, __: Exception) -> JSONResponse:
        """Respond to an internal error; the server logs it."""
        failed()
        return error_response(HTTPStatus.INTERNAL_SERVER_ERROR, "internal error")

    app = Starlette(routes=routes, exception_handlers={HTTPException: refused, Exception: fault})
    # A wrong path is answered with 404, not with a redirect.
    app.router.redirect_slashes = False
    return app


def error_response(status: int, message: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """Return the response to a failed request; `message` is one line for the caller."""
    return JSONResponse({"error": message}, status_code=status, headers=headers)
