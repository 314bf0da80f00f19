"""/healthz, /readyz and /metrics. Responses contain no credential and no code.

Healthy: the event loop runs, and the API server has responded within the last ten minutes. Ready: ledger, API server
and CRDs are usable; a standby is ready as well, so that a rollout can proceed. A check that raises counts as a
problem. See also: `process.run` supplies the checks; `server` serves; `telemetry` has the metrics.
"""

import json
import logging
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

_log = logging.getLogger(__name__)

PORT_LIMITS: Final = Limits(connections=256, reading=5.0, stopping=2.0)
"""Requests to these endpoints have no body."""
_MAX_RESPONSE_AGE: Final = 600.0
"""Seconds without a response of the API server after which a restart may help."""

Check = Callable[[], Awaitable[dict[str, str]]]
"""Returns the problems: part -> one line. Empty means ready."""


def application(problems: Check, details: Callable[[], dict[str, object]], refresh: Callable[[], None]) -> Starlette:
    """Build the three endpoints; `details` adds facts to /readyz, `refresh` updates gauges before /metrics."""
    readiness = _Readiness(problems, details)

    async def healthz(_: Request) -> Response:
        if telemetry.API_LIVENESS.age() > _MAX_RESPONSE_AGE:
            return PlainTextResponse("no response from the API server", HTTPStatus.SERVICE_UNAVAILABLE)
        return PlainTextResponse("ok")

    async def readyz(_: Request) -> Response:
        body = await readiness.body()
        status = HTTPStatus.OK if body["ready"] else HTTPStatus.SERVICE_UNAVAILABLE
        # Sorted, so that two responses are easy to compare; JSONResponse does not sort.
        return Response(json.dumps(body, sort_keys=True), status, media_type="application/json")

    # A route, not a mount: a mount answers /metrics with a redirect or with 404.
    metrics = Route("/metrics", _Metrics(refresh), methods=["GET"])
    return create_app(Route("/healthz", healthz), Route("/readyz", readyz), metrics)


class _Readiness:
    """Asks the checks. One that raises makes the replica unready, and is logged once until it works again."""

    def __init__(self, problems: Check, details: Callable[[], dict[str, object]]) -> None:
        self._problems = problems
        self._details = details
        self._failed = False

    async def body(self) -> dict[str, object]:
        """Return the answer of /readyz."""
        try:
            wrong = await self._problems()
            details = self._details()
        except Exception as error:
            if not self._failed:
                _log.exception("a health check failed", extra={"resource": "process", "reason": "InternalError"})
            self._failed = True
            fault = f"A health check failed with {type(error).__name__}: look into the log of this replica."
            return {"ready": False, "problems": {"checks": fault}}
        self._failed = False
        return {"ready": not wrong, "problems": wrong, **details}


class _Metrics:
    """prometheus-client's endpoint, which chooses format and compression, after a refresh of the gauges.

    A class, because Starlette treats a function as a request handler.
    """

    def __init__(self, refresh: Callable[[], None]) -> None:
        self._refresh = refresh
        self._app = make_asgi_app(telemetry.REGISTRY)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._refresh()
        await self._app(scope, receive, send)
