"""The relay publishes what the ledger has, as the platform wants it: whole, once, and in order for each tenant."""

import json
from collections.abc import Sequence
from datetime import datetime, timedelta

from testbed.postgres import Database
from tests.ledger.helpers import rows, until
from tests.messaging.helpers import (
    Streams,
    by_tenant,
    expected_by_tenant,
    running_relay,
    unpublished,
    wait_published,
    write_events,
)
from voucher_operator import telemetry
from voucher_operator.ledger.api import Ledger
from voucher_operator.ledger.outbox.types import OutboxEvent
from voucher_operator.resources.errors import LedgerUnavailableError

MANY = [f"tenant-{n % 7}" for n in range(280)]
"""Seven tenants, forty events each, interleaved."""


def _value(name: str, **labels: str) -> float:
    return telemetry.REGISTRY.get_sample_value(name, labels) or 0.0


def published() -> float:
    return _value("voucher_operator_events_published_total", type="order.placed")


async def test_event_is_published_in_the_platform_envelope(
    database18: Database, ledger: Ledger, streams: Streams
) -> None:
    before = published()
    ((event_id, at),) = await rows(
        database18,
        """INSERT INTO vouchers.outbox (type, tenant_id, data, metadata)
           VALUES ('order.placed', 'kestrel', '{"subdomain": "kestrel", "name": "صيدلية"}', '{"key": "billing/r1"}')
           RETURNING id::text, at""",
    )
    async with running_relay(streams.relay(ledger)):
        await until(lambda: published() == before + 1)
    assert await unpublished(database18) == 0
    (message,) = await streams.read()
    assert message.subject == f"{streams.prefix}.order.placed"
    assert message.headers["Nats-Msg-Id"] == event_id
    timestamp = message.body.pop("timestamp")
    assert message.body == {
        "id": event_id,
        "type": "order.placed",
        "source": "billing",
        "tenant_id": "kestrel",
        "data": {"subdomain": "kestrel", "name": "صيدلية"},
        "metadata": {"key": "billing/r1"},
    }
    assert timestamp.endswith("Z")
    assert datetime.fromisoformat(timestamp) == at


async def test_events_of_each_tenant_keep_their_order(database18: Database, ledger: Ledger, streams: Streams) -> None:
    await write_events(database18, MANY)
    async with running_relay(streams.relay(ledger)):
        await wait_published(database18)
    assert by_tenant(await streams.read()) == expected_by_tenant(MANY)


async def test_published_twice_is_stored_once(database18: Database, ledger: Ledger, streams: Streams) -> None:
    """A relay killed between acknowledgement and mark publishes again."""
    await write_events(database18, MANY[:20])
    for _ in range(2):
        await rows(database18, "UPDATE vouchers.outbox SET published_at = NULL")
        async with running_relay(streams.relay(ledger)):
            await wait_published(database18)
    assert by_tenant(await streams.read()) == expected_by_tenant(MANY[:20])


async def test_two_relays_publish_each_event_once_in_order(
    database18: Database, ledger: Ledger, streams: Streams
) -> None:
    """The Lease saves work, it is no lock: what both publish is stored once, in order."""
    await write_events(database18, MANY)
    async with running_relay(streams.relay(ledger)), running_relay(streams.relay(ledger)):
        await wait_published(database18)
    assert by_tenant(await streams.read()) == expected_by_tenant(MANY)


async def test_wake_publishes_before_the_next_poll(database18: Database, ledger: Ledger, streams: Streams) -> None:
    """With a look once an hour, only a hint brings an event out within the test."""
    async with running_relay(streams.relay(ledger, poll=3600.0)) as relay:
        await write_events(database18, ["one"])
        relay.wake()
        await wait_published(database18)
        await write_events(database18, ["two"])
        relay.wake()
        await wait_published(database18)
    assert await streams.count() == 2


async def test_stream_has_a_duplicate_window_of_one_hour(
    database18: Database, ledger: Ledger, streams: Streams
) -> None:
    await write_events(database18, ["one"])
    async with running_relay(streams.relay(ledger)):
        await wait_published(database18)
    async with streams.jetstream() as jetstream:
        config = (await jetstream.stream_info(streams.name)).config
    assert (config.storage, config.num_replicas) == ("file", 1)
    assert config.duplicate_window == timedelta(hours=1).total_seconds()


async def test_existing_stream_with_the_subjects_is_used(
    database18: Database, ledger: Ledger, streams: Streams
) -> None:
    """The administrator of NATS may have created it, with another name and other limits."""
    theirs = f"theirs-{streams.name}"
    async with streams.jetstream() as jetstream:
        await jetstream.add_stream(name=theirs, subjects=[f"{streams.prefix}.*.*"])
    await write_events(database18, ["one"])
    async with running_relay(streams.relay(ledger)):
        await wait_published(database18)
    assert len(await streams.read(theirs)) == 1
    assert await streams.count() == 0


class OutboxWithFailingMarks:
    """The real outbox, whose marks fail while `broken`."""

    def __init__(self, ledger: Ledger) -> None:
        self.broken = True
        self.failed = 0
        self.outbox_pending = ledger.outbox_pending
        self.outbox_backlog = ledger.outbox_backlog
        self._ledger = ledger

    async def outbox_published(self, ids: Sequence[str]) -> None:
        if self.broken:
            self.failed += 1
            raise LedgerUnavailableError("away")
        await self._ledger.outbox_published(ids)


async def test_events_are_stored_and_counted_once_when_marking_fails(
    database18: Database, ledger: Ledger, streams: Streams
) -> None:
    """They are published again when the ledger is back."""
    before = published()
    await write_events(database18, MANY[:20])
    outbox = OutboxWithFailingMarks(ledger)
    async with running_relay(streams.relay(outbox)):
        await until(lambda: outbox.failed > 1)
        assert await unpublished(database18) == 20
        outbox.broken = False
        await until(lambda: published() >= before + 20)
    assert await unpublished(database18) == 0
    assert published() == before + 20
    assert by_tenant(await streams.read()) == expected_by_tenant(MANY[:20])


class OutboxWithUnexpectedError(OutboxWithFailingMarks):
    """An outbox with an unexpected error."""

    def __init__(self, ledger: Ledger) -> None:
        super().__init__(ledger)
        self.broken = False
        self.outbox_pending = self._pending

    async def _pending(self, limit: int, without: Sequence[str] = ()) -> list[OutboxEvent]:
        if self.failed < 2:
            self.failed += 1
            raise ZeroDivisionError
        return await self._ledger.outbox_pending(limit, without)


async def test_unexpected_error_is_retried(database18: Database, ledger: Ledger, streams: Streams) -> None:
    await write_events(database18, ["one"])
    outbox = OutboxWithUnexpectedError(ledger)
    async with running_relay(streams.relay(outbox)):
        await wait_published(database18)
    assert outbox.failed == 2


async def test_backlog_is_reported_while_leading_only(database18: Database, ledger: Ledger, streams: Streams) -> None:
    """While leading: how much, since when, why. A replica that does not lead knows nothing and says nothing."""
    await write_events(database18, ["one", "two"])
    await rows(database18, "UPDATE vouchers.outbox SET at = at - interval '1 hour'")
    servers: list[str] = []
    relay = streams.relay(ledger, servers=lambda: servers)
    assert relay.details() == {}
    async with running_relay(relay):
        await until(lambda: "problem" in relay.details())
        details = relay.details()
        assert details["pending"] == 2
        assert 3600 <= int(str(details["oldest_seconds"])) < 3700
        assert str(details["problem"]).startswith("NATS is not configured")
        assert _value("voucher_operator_outbox_pending") == 2
        assert _value("voucher_operator_outbox_oldest_seconds") >= 3600
        servers.append(streams.server.url)
        await until(lambda: relay.details() == {"pending": 0, "oldest_seconds": 0})
        assert _value("voucher_operator_nats_up") == 1
    assert relay.details() == {}
    assert _value("voucher_operator_nats_up") == 0
    assert json.dumps(details)
