"""Writes events as the ledger's statements do, runs the relay, and reads what JetStream has. See also: `conftest`."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

import nats.errors
from nats.aio.client import Client
from nats.js import JetStreamContext
from nats.js.errors import NotFoundError

from testbed.nats import NatsServer
from testbed.postgres import Database
from tests.ledger.helpers import rows
from voucher_operator.messaging.outbox_relay import Outbox, Relay


@dataclass(frozen=True)
class Message:
    """What a consumer of the stream sees."""

    subject: str
    headers: dict[str, str]
    body: dict[str, Any]


class Streams:
    """One stream on a server, looked at beside the relay."""

    def __init__(self, server: NatsServer, name: str) -> None:
        self.server = server
        self.name = f"stream-{name}"
        self.prefix = f"test.{name}"

    @asynccontextmanager
    async def jetstream(self) -> AsyncIterator[JetStreamContext]:
        client = Client()
        await client.connect(self.server.url, allow_reconnect=False, max_reconnect_attempts=1)
        try:
            yield client.jetstream()
        finally:
            await client.close()

    async def count(self) -> int:
        """How many messages the stream has; 0 without a stream or a server."""
        with suppress(NotFoundError, nats.errors.NoServersError):
            async with self.jetstream() as jetstream:
                return (await jetstream.stream_info(self.name)).state.messages
        return 0

    async def read(self, name: str = "") -> list[Message]:
        """Return all that the stream has, in its order."""
        found = []
        async with self.jetstream() as jetstream:
            state = (await jetstream.stream_info(name or self.name)).state
            for number in range(state.first_seq, state.last_seq + 1):
                message = await jetstream.get_msg(name or self.name, number)
                assert message.data is not None
                found.append(Message(str(message.subject), dict(message.headers or {}), json.loads(message.data)))
        return found

    def relay(self, outbox: Outbox, *, servers: Callable[[], list[str]] | None = None, poll: float = 0.05) -> Relay:
        """Make a relay into the stream; it is not running yet."""
        return Relay(outbox, servers or (lambda: [self.server.url]), stream=self.name, prefix=self.prefix, poll=poll)


@asynccontextmanager
async def running_relay(relay: Relay) -> AsyncIterator[Relay]:
    """Run a relay as a leader does, and end it as one that no longer leads."""
    task = asyncio.create_task(relay.run())
    try:
        yield relay
        assert not task.done(), task
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def write_events(database: Database, tenants: Sequence[str], data: str = "") -> None:
    """Write one event a tenant named, in this order; `data.n` counts from 1 within the call."""
    await rows(
        database,
        """INSERT INTO vouchers.outbox (type, tenant_id, data)
           SELECT 'order.placed', tenant, jsonb_build_object('n', n, 'pad', %s::text)
           FROM unnest(%s::text[]) WITH ORDINALITY AS given (tenant, n) ORDER BY n""",
        data,
        list(tenants),
    )


async def unpublished(database: Database) -> int:
    """Count the events that are not marked."""
    ((count,),) = await rows(database, "SELECT count(*) FROM vouchers.outbox WHERE published_at IS NULL")
    return int(count)


async def wait_published(database: Database, left: int = 0) -> None:
    """Wait until no more than `left` events are not marked. Raises TimeoutError."""
    async with asyncio.timeout(40):
        while await unpublished(database) > left:  # noqa: ASYNC110 - the ledger tells nobody
            await asyncio.sleep(0.02)


def by_tenant(messages: Sequence[Message]) -> dict[str, list[int]]:
    """What each tenant's consumer sees, by `data.n`."""
    seen: dict[str, list[int]] = {}
    for message in messages:
        seen.setdefault(message.body["tenant_id"], []).append(message.body["data"]["n"])
    return seen


def expected_by_tenant(tenants: Sequence[str]) -> dict[str, list[int]]:
    """What `write_events` wrote, in the shape of `by_tenant`."""
    wrote: dict[str, list[int]] = {}
    for n, tenant in enumerate(tenants, 1):
        wrote.setdefault(tenant, []).append(n)
    return wrote
