"""What all our HTTP applications have in common: no pages of FastAPI's own, and `{"error": "..."}` for all that fails.

See also: `probes` and `webhook`, which add their routes; `server`, which serves them.
"""

from collections.abc import Callable, Mapping
from http import HTTPStatus

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException


def create_app(failed: Callable[[], None] = lambda: None) -> FastAPI:
    """Return an application without routes; `failed` is called for each request that a fault of ours ends."""
    # A path is right or it is not: no redirect to the one that was meant.
    app = FastAPI(openapi_url=None, redirect_slashes=False)

    @app.exception_handler(HTTPException)
    async def _(_: Request, error: HTTPException) -> JSONResponse:
        return error_response(error.status_code, str(error.detail).lower(), error.headers)

    @app.exception_handler(Exception)
    async def _(_: Request, __: Exception) -> JSONResponse:
        """A fault of ours; the server logs it."""
        failed()
        return error_response(HTTPStatus.INTERNAL_SERVER_ERROR, "internal error")

    return app


def error_response(status: int, message: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """Return the response to a request that failed; `message` is one line for the caller."""
    return JSONResponse({"error": message}, status_code=status, headers=headers)
