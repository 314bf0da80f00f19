"""/healthz, /readyz and /metrics: what is wrong, in words, without a credential or a code.

Alive: the event loop answers, and the API server has answered within the last minutes. Ready: connected to what the
work needs; a standby is ready as well, so that a rollout can go on. See also: `process.run`, which checks and
serves; `telemetry`, which has the metrics.
"""

import json
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Final

from prometheus_client import make_asgi_app
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from voucher_operator import telemetry
from voucher_operator.web.app import create_app
from voucher_operator.web.uvicorn_internals import Limits

PORT_LIMITS: Final = Limits(connections=256, reading=5.0, stopping=2.0)
"""No request here has a body."""
_MAX_RESPONSE_AGE: Final = 600.0
"""Seconds without a response of the API server after which a restart may help."""

Check = Callable[[], Awaitable[dict[str, str]]]
"""Returns what is wrong: part -> one line. Empty means ready."""


def application(problems: Check, details: Callable[[], dict[str, object]], refresh: Callable[[], None]) -> Starlette:
    """Build the three endpoints; `details` are facts for people, `refresh` brings gauges up to date."""

    async def healthz(_: Request) -> Response:
        if telemetry.API_LIVENESS.age() > _MAX_RESPONSE_AGE:
            return PlainTextResponse("no response from the API server", HTTPStatus.SERVICE_UNAVAILABLE)
        return PlainTextResponse("ok")

    async def readyz(_: Request) -> Response:
        wrong = await problems()
        body = {"ready": not wrong, "problems": wrong, **details()}
        status = HTTPStatus.SERVICE_UNAVAILABLE if wrong else HTTPStatus.OK
        # Sorted, for people who compare two answers; JSONResponse does not sort.
        return Response(json.dumps(body, sort_keys=True), status, media_type="application/json")

    # A route and no mount, which answers /metrics itself with a redirect, or with 404.
    metrics = Route("/metrics", _Metrics(refresh), methods=["GET"])
    return create_app(Route("/healthz", healthz), Route("/readyz", readyz), metrics)


class _Metrics:
    """prometheus-client's own endpoint, which chooses format and compression, behind a refresh of the gauges.

    Not a function: Starlette would take one to be a handler of requests.
    """

    def __init__(self, refresh: Callable[[], None]) -> None:
        self._refresh = refresh
        self._app = make_asgi_app(telemetry.REGISTRY)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._refresh()
        await self._app(scope, receive, send)
