"""`POST /billing/webhook`: the payment processor's events; each is processed once, or refused so that it is sent again.

The response is 200 only after the ledger has committed the event together with its effect; a crash or a second delivery
changes nothing then. Duplicates, unknown sessions and events of other Sovereigns are stored and get 200 too.
See also: `server` listens; `payments.purchase_saga` reads events; `ledger.api` stores them; docs/architecture.md.
"""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
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

MAX_BYTES: Final = 256 * 1024
"""Default of the maximum size of a body."""
_MAX_BYTES_TOGETHER: Final = 16 * 1024 * 1024
"""Maximum size of what exceeds `_OWN_BYTES` in all bodies that are being read: anybody can send one, and only a whole
one can be verified."""
_OWN_BYTES: Final = 64 * 1024
"""What each body may have in any case: almost every event is smaller, and large bodies of others do not delay it."""
PORT_LIMITS: Final = Limits(connections=256, reading=15.0, stopping=5.0, busy=telemetry.WEBHOOKS.labels("busy").inc)
"""`reading` is longer than `_BODY_TIMEOUT`, after which the caller gets a response."""
_TOLERANCE: Final = 300
"""Maximum age of a signature in seconds, against replayed events."""
_BODY_TIMEOUT: Final = 10.0
"""Seconds in which a body must arrive."""

Reader = Callable[[Mapping[str, Any], bytes], Awaitable[PaymentEvent]]
"""Reads a verified event, given as JSON and as bytes. Raises OperatorError: Stripe must send it again."""
Receiver = Callable[[PaymentEvent], Awaitable[Received]]
"""Commits an event with its effect. Raises OperatorError: Stripe must send it again."""


class _ResponseError(Exception):
    """Ends the call with a status, one line for the caller, and the result for the metric."""

    def __init__(self, status: HTTPStatus, result: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.result = result


class Webhook:
    """The endpoint.

    `secrets` is called for each request; `applied` is called after a commit with an effect. `max_bytes` is the maximum
    size of a body.
    """

    def __init__(
        self,
        secrets: Callable[[], tuple[str, ...]],
        read: Reader,
        receive: Receiver,
        applied: Callable[[], None],
        max_bytes: int = MAX_BYTES,
    ) -> None:
        self._bodies = _Bodies(max_bytes)
        self._secrets = secrets
        self._read = read
        self._receive = receive
        self._applied = applied

    async def __call__(self, request: Request) -> JSONResponse:
        """Process one call, and count its result."""
        try:
            result = await self._process(request)
        except _ResponseError as error:
            telemetry.WEBHOOKS.labels(error.result).inc()
            return error_response(error.status, str(error))
        telemetry.WEBHOOKS.labels(result).inc()
        return JSONResponse({"result": result})

    async def _process(self, request: Request) -> Received:
        secrets = self._secrets()
        if not secrets:
            raise _ResponseError(
                HTTPStatus.SERVICE_UNAVAILABLE, "not_configured", "the payment processor is not configured"
            )
        signature = request.headers.get("stripe-signature", "")
        if not signature:
            raise _ResponseError(HTTPStatus.BAD_REQUEST, "bad_signature", "the header Stripe-Signature is missing")
        async with self._bodies.read(request) as raw:
            if not any(_signed(raw, signature, secret) for secret in secrets):
                raise _ResponseError(HTTPStatus.BAD_REQUEST, "bad_signature", "the signature is wrong or too old")
            return await self._store(_event(raw), raw)

    async def _store(self, event: Mapping[str, Any], raw: bytes) -> Received:
        extra = {"resource": "webhook", "key": str(event.get("id"))}
        try:
            received = await self._receive(await self._read(event, raw))
        except OperatorError as error:
            level = logging.INFO if isinstance(error, TransientError) else logging.WARNING
            log.log(
                level,
                "event not processed, Stripe sends it again: %s",
                error.message,
                extra={**extra, "reason": error.reason},
            )
            raise _ResponseError(HTTPStatus.INTERNAL_SERVER_ERROR, "unavailable", "try again later") from None
        if received is Received.MISMATCH:
            log.warning("a payment does not match its order: compare them", extra={**extra, "reason": received})
        if received is Received.APPLIED:
            self._applied()
        return received


def application(webhook: Webhook) -> Starlette:
    """Build the application with one route."""

    async def receive(request: Request) -> JSONResponse:
        return await webhook(request)

    return create_app(
        Route("/billing/webhook", receive, methods=["POST"]), failed=telemetry.WEBHOOKS.labels("failed").inc
    )


class _Bodies:
    """Reads bodies of at most `max_bytes`, and not too many bytes at the same time."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._held = 0

    @asynccontextmanager
    async def read(self, request: Request) -> AsyncIterator[bytes]:
        """Read a body, which counts until it is processed. Raises _ResponseError; the server discards the rest."""
        body = bytearray()
        try:
            await self._fill(body, request)
            yield bytes(body)
        finally:
            self._held -= _shared(len(body))

    async def _fill(self, body: bytearray, request: Request) -> None:
        # Not Starlette's `max_body_size`: it responds in plain text, also instead of another response (Starlette
        # 1.10.0); here every error is `{"error": ...}` and counted.
        declared = request.headers.get("content-length", "0")
        if declared.isdecimal() and int(declared) > self._max_bytes:
            raise self._too_large()
        try:
            async with asyncio.timeout(_BODY_TIMEOUT):
                async for chunk in request.stream():
                    self._hold(_shared(len(body) + len(chunk)) - _shared(len(body)))
                    body += chunk
                    if len(body) > self._max_bytes:
                        raise self._too_large()
        except TimeoutError:
            raise _ResponseError(HTTPStatus.REQUEST_TIMEOUT, "invalid", "the body did not arrive in time") from None
        except ClientDisconnect:
            raise _ResponseError(HTTPStatus.BAD_REQUEST, "invalid", "the body is incomplete") from None

    def _hold(self, size: int) -> None:
        if size and self._held + size > _MAX_BYTES_TOGETHER:
            raise _ResponseError(HTTPStatus.SERVICE_UNAVAILABLE, "busy", "too many events at once: try again later")
        self._held += size

    def _too_large(self) -> _ResponseError:
        message = f"the body has more than {self._max_bytes} bytes"
        return _ResponseError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too_large", message)


def _shared(size: int) -> int:
    """Return how much of a body counts for all bodies together."""
    return max(0, size - _OWN_BYTES)


def _signed(raw: bytes, signature: str, secret: str) -> bool:
    try:
        return bool(stripe.WebhookSignature.verify_header(raw, signature, secret, _TOLERANCE))
    except (stripe.SignatureVerificationError, ValueError, TypeError):
        # The last two: bytes that are not text, a signature that is not ASCII.
        return False


def _event(raw: bytes) -> Mapping[str, Any]:
    try:
        event = json.loads(raw)
    except (ValueError, RecursionError):
        event = None
    if not isinstance(event, dict):
        raise _ResponseError(HTTPStatus.BAD_REQUEST, "invalid", "the body is not an event")
    return event
