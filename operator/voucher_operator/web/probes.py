"""/healthz, /readyz and /metrics. Says what is wrong in words, with no credential and no code.

Alive: the event loop answers and, while leading, the API server was heard within the last minutes. Ready: connected
to what the work needs; a standby is ready as well, so that a rollout can go on. See also: `runner` asks and is
asked.
"""

import json
from collections.abc import Awaitable, Callable

from aiohttp import web
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from voucher_operator import telemetry
from voucher_operator.resources.errors import AddressTakenError

_SILENCE = 600.0
"""Seconds without a word from the API server after which a restart is worth trying."""
_LAST_ANSWERS = 2.0
"""Seconds that requests under way have on a stop."""

Check = Callable[[], Awaitable[dict[str, str]]]
"""Returns what is wrong: part -> one line. Empty means ready."""


def application(
    problems: Check, details: Callable[[], dict[str, object]], refresh: Callable[[], None]
) -> web.Application:
    """Build the three endpoints; `details` are facts for people, `refresh` brings gauges up to date."""

    async def healthz(_: web.Request) -> web.Response:
        silent = telemetry.API_LIVENESS.silence() > _SILENCE
        return web.Response(status=503 if silent else 200, text="nothing heard from the API server" if silent else "ok")

    async def readyz(_: web.Request) -> web.Response:
        wrong = await problems()
        body = {"ready": not wrong, "problems": wrong, **details()}
        return web.json_response(
            body, status=503 if wrong else 200, dumps=lambda value: json.dumps(value, sort_keys=True)
        )

    async def metrics(_: web.Request) -> web.Response:
        refresh()
        return web.Response(body=generate_latest(telemetry.REGISTRY), headers={"Content-Type": CONTENT_TYPE_LATEST})

    app = web.Application()
    app.add_routes([web.get("/healthz", healthz), web.get("/readyz", readyz), web.get("/metrics", metrics)])
    return app


async def serve(app: web.Application, host: str, port: int) -> web.AppRunner:
    """Listen; the caller cleans the runner up. Raises AddressTakenError."""
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=_LAST_ANSWERS)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
    except OSError as error:
        await runner.cleanup()
        raise AddressTakenError(host, port, "VOUCHER_OPERATOR_HTTP_PORT", error) from None
    return runner
