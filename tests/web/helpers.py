"""A webhook on a real port over a real ledger, and events signed by Stripe's own library. See also: `conftest`."""

import json
import secrets
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import httpx
import stripe
from starlette.applications import Starlette

from voucher_operator import telemetry
from voucher_operator.ledger.purchase.types import PaymentEvent
from voucher_operator.payments import stripe_events
from voucher_operator.web.server import WebServer
from voucher_operator.web.uvicorn_internals import Limits
from voucher_operator.web.webhook import MAX_BYTES, PORT_LIMITS, Reader, Receiver, Webhook, application

SECRET = "whsec_one"
PATH = "/billing/webhook"


async def read(event: Mapping[str, Any], raw: bytes) -> PaymentEvent:
    """As the checkout reads events that need no question to Stripe."""
    return stripe_events.payment_event(event, raw, "OMR")


class WebhookClient:
    """The other side of a port; `post` is Stripe's."""

    def __init__(self, client: httpx.AsyncClient, server: WebServer) -> None:
        self.client = client
        self.server = server

    async def post(self, body: str, signature: str | None = None) -> httpx.Response:
        """Send a body, signed unless a signature is given."""
        header = {"Stripe-Signature": sign(body) if signature is None else signature}
        return await self.client.post(PATH, content=body, headers=header)


@asynccontextmanager
async def webhook(
    receive: Receiver,
    *,
    reader: Reader = read,
    keys: Callable[[], tuple[str, ...]] = lambda: (SECRET,),
    applied: Callable[[], None] = lambda: None,
    limits: Limits = PORT_LIMITS,
    max_bytes: int = MAX_BYTES,
) -> AsyncIterator[WebhookClient]:
    """Serve on a free port, and end in good order."""
    async with served(application(Webhook(keys, reader, receive, applied, max_bytes)), limits) as caller:
        yield caller


@asynccontextmanager
async def served(app: Starlette, limits: Limits) -> AsyncIterator[WebhookClient]:
    """Serve an application on a free port, and end in good order."""
    server = WebServer(app, 0, name="test", setting="PORT_OF_THE_TEST", limits=limits)
    server.start()
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}", trust_env=False) as client:
            yield WebhookClient(client, server)
    finally:
        await server.stop()


def session_event(**metadata: str) -> str:
    """Make the text of an event of a session that nobody knows."""
    session = {"object": "checkout.session", "id": f"cs_{secrets.token_hex(8)}", "metadata": metadata}
    return json.dumps(
        {
            "id": f"evt_{secrets.token_hex(8)}",
            "object": "event",
            "type": "checkout.session.expired",
            "data": {"object": session},
        }
    )


def sign(body: str, secret: str = SECRET, age: int = 0) -> str:
    """Make the header as Stripe does."""
    return str(stripe.WebhookSignature.generate_signature_header(body, secret, int(time.time()) - age))


def webhook_count(result: str) -> float:
    """How many calls ended so, in this process."""
    return telemetry.REGISTRY.get_sample_value("voucher_operator_webhooks_total", {"result": result}) or 0.0
