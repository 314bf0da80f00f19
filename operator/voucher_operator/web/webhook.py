"""`POST /billing/webhook`: what the payment processor tells us, taken once, or answered so that it is told again.

An event is answered 200 only after the ledger has committed it together with its effect; neither a crash nor a second
delivery changes anything then. Duplicates, unknown sessions and other Sovereigns' events are kept and answered 200 too.
See also: `server` listens, `payments.purchase_saga` reads events, `ledger.api` keeps them; docs/architecture.md.
"""

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Any, Final

import stripe
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from voucher_operator import telemetry
from voucher_operator.ledger.purchase.types import PaymentEvent, Received
from voucher_operator.resources.errors import OperatorError, TransientError
from voucher_operator.web.app import create_app, error_response
from voucher_operator.web.uvicorn_internals import Limits

log = logging.getLogger(__name__)

LIMIT: Final = 64 * 1024
"""Bytes of the largest body that is read."""
PORT_LIMITS: Final = Limits(connections=256, reading=15.0, stopping=5.0, busy=telemetry.WEBHOOKS.labels("busy").inc)
"""Each connection may hold a body. `reading` is longer than `_PATIENCE`, after which the caller gets an answer."""
_TOLERANCE: Final = 300
"""Seconds that a signature may be old, so that nobody sends an old event again."""
_PATIENCE: Final = 10.0
"""Seconds that a body may take."""

Reader = Callable[[Mapping[str, Any], bytes], Awaitable[PaymentEvent]]
"""Says what a verified event, given as JSON and as its bytes, means. Raises OperatorError: it is to be sent again."""
Receiver = Callable[[PaymentEvent], Awaitable[Received]]
"""Commits an event with its effect. Raises OperatorError: it is to be sent again."""


class _AnswerError(Exception):
    """The call ends here: with a status, one line for the caller, and the result that is counted."""

    def __init__(self, status: HTTPStatus, result: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.result = result


class Webhook:
    """The endpoint without HTTP's framing.

    `secrets` are asked at each call; `applied` is called after a commit that changed something.
    """

    def __init__(
        self, secrets: Callable[[], tuple[str, ...]], read: Reader, receive: Receiver, applied: Callable[[], None]
    ) -> None:
        self._secrets = secrets
        self._read = read
        self._receive = receive
        self._applied = applied

    async def __call__(self, request: Request) -> JSONResponse:
        """Take one call, and count what became of it."""
        try:
            result = await self._take(request)
        except _AnswerError as answer:
            telemetry.WEBHOOKS.labels(answer.result).inc()
            return error_response(answer.status, str(answer))
        telemetry.WEBHOOKS.labels(result).inc()
        return JSONResponse({"result": result})

    async def _take(self, request: Request) -> Received:
        secrets = self._secrets()
        if not secrets:
            raise _AnswerError(
                HTTPStatus.SERVICE_UNAVAILABLE, "not_configured", "the payment processor is not configured"
            )
        signature = request.headers.get("stripe-signature", "")
        if not signature:
            raise _AnswerError(HTTPStatus.BAD_REQUEST, "bad_signature", "the header Stripe-Signature is missing")
        raw = await _body(request)
        if not any(_signed(raw, signature, secret) for secret in secrets):
            raise _AnswerError(HTTPStatus.BAD_REQUEST, "bad_signature", "the signature is wrong or too old")
        return await self._keep(_event(raw), raw)

    async def _keep(self, event: Mapping[str, Any], raw: bytes) -> Received:
        extra = {"resource": "webhook", "key": str(event.get("id"))}
        try:
            received = await self._receive(await self._read(event, raw))
        except OperatorError as error:
            level = logging.INFO if isinstance(error, TransientError) else logging.WARNING
            log.log(level, "an event is to be sent again: %s", error.message, extra={**extra, "reason": error.reason})
            raise _AnswerError(HTTPStatus.INTERNAL_SERVER_ERROR, "unavailable", "try again later") from None
        if received is Received.MISMATCH:
            log.warning("a payment does not fit its order: compare the two", extra={**extra, "reason": received})
        if received is Received.APPLIED:
            self._applied()
        return received


def application(webhook: Webhook) -> Starlette:
    """Build the application: one route."""

    async def receive(request: Request) -> JSONResponse:
        return await webhook(request)

    return create_app(
        Route("/billing/webhook", receive, methods=["POST"]), failed=telemetry.WEBHOOKS.labels("failed").inc
    )


async def _body(request: Request) -> bytes:
    """Read the body as it comes, and no further than the limit; what comes after that, the server throws away."""
    # Not Starlette's `max_body_size`: it answers in plain text, also in place of another answer (Starlette
    # 1.10.0), and here every error is `{"error": ...}` and counted.
    declared = request.headers.get("content-length", "0")
    if declared.isdecimal() and int(declared) > LIMIT:
        raise _too_large()
    body = bytearray()
    try:
        async with asyncio.timeout(_PATIENCE):
            async for chunk in request.stream():
                body += chunk
                if len(body) > LIMIT:
                    raise _too_large()
    except TimeoutError:
        raise _AnswerError(HTTPStatus.REQUEST_TIMEOUT, "invalid", "the body takes too long") from None
    except ClientDisconnect:
        raise _AnswerError(HTTPStatus.BAD_REQUEST, "invalid", "the body is not whole") from None
    return bytes(body)


def _too_large() -> _AnswerError:
    return _AnswerError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too_large", f"the body has more than {LIMIT} bytes")


def _signed(raw: bytes, signature: str, secret: str) -> bool:
    try:
        return bool(stripe.WebhookSignature.verify_header(raw, signature, secret, _TOLERANCE))
    except (stripe.SignatureVerificationError, ValueError, TypeError):
        # The last two: bytes that are no text, a signature that is not ASCII.
        return False


def _event(raw: bytes) -> Mapping[str, Any]:
    try:
        event = json.loads(raw)
    except (ValueError, RecursionError):
        event = None
    if not isinstance(event, dict):
        raise _AnswerError(HTTPStatus.BAD_REQUEST, "invalid", "the body is no event")
    return event
