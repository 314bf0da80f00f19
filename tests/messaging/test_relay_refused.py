"""Events that JetStream refuses: their tenants wait, all others' are published, and the problem is reported."""

from collections.abc import Sequence

import pytest
from nats.js.api import DiscardPolicy

from testbed.nats import NatsServer
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
from voucher_operator.messaging import nats_connection as bus
from voucher_operator.messaging import outbox_relay as relay

MANY = [f"tenant-{n % 50}" for n in range(500)]


@pytest.fixture(autouse=True)
def short_retry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay, "_RETRY", 0.3)


async def _issue(database: Database, number: int = 1) -> None:
    """Write events of no tenant."""
    await rows(
        database,
        """INSERT INTO vouchers.outbox (type, tenant_id, data)
           SELECT 'voucher.issued', '', jsonb_build_object('n', n) FROM generate_series(1, %s) AS n""",
        number,
    )


async def _add(streams: Streams, *subjects: str) -> None:
    async with streams.jetstream() as jetstream:
        await jetstream.add_stream(name=streams.name, subjects=[f"{streams.prefix}.{name}" for name in subjects])


async def test_refused_event_blocks_only_its_tenant(
    database18: Database, ledger: Ledger, caplog: pytest.LogCaptureFixture
) -> None:
    with NatsServer(max_payload=4096) as server:
        streams = Streams(server, "small")
        await write_events(database18, ["large"], data="x" * 5000)
        await write_events(database18, ["large", "other", "other"])
        async with running_relay(streams.relay(ledger)) as relaying:
            await wait_published(database18, left=2)
            await write_events(database18, ["third"])
            await wait_published(database18, left=2)
            await until(lambda: "refuses an event" in str(relaying.details().get("problem")))
            await rows(database18, "UPDATE vouchers.outbox SET data = data - 'pad' WHERE published_at IS NULL")
            await wait_published(database18)
            await until(lambda: relaying.details() == {"pending": 0, "oldest_seconds": 0})
        assert by_tenant(await streams.read()) == {"other": [2, 3], "third": [1], "large": [1, 1]}
    refused = [record for record in caplog.records if "refuses an event" in record.getMessage()]
    assert len(refused) == 1


async def test_subject_without_stream_is_reported_until_a_stream_takes_it(
    database18: Database, ledger: Ledger, streams: Streams, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All others' events go out over one connection; it is named, and goes out when the stream takes it."""
    made: list[bus.NatsConnection] = []
    ensure = bus.NatsConnection.ensure_stream

    async def counted(self: bus.NatsConnection, name: str) -> None:
        if self not in made:
            made.append(self)
        await ensure(self, name)

    monkeypatch.setattr(bus.NatsConnection, "ensure_stream", counted)
    await _add(streams, "order.>")
    await _issue(database18)
    await write_events(database18, MANY)
    async with running_relay(streams.relay(ledger)) as relaying:
        await wait_published(database18, left=1)
        await until(
            lambda: f"has the subject {streams.prefix}.voucher.issued:" in str(relaying.details().get("problem"))
        )
        assert telemetry.REGISTRY.get_sample_value("voucher_operator_nats_up") == 1
        assert by_tenant(await streams.read()) == expected_by_tenant(MANY)
        async with streams.jetstream() as jetstream:
            await jetstream.update_stream(name=streams.name, subjects=[f"{streams.prefix}.>"])
        await wait_published(database18)
        await until(lambda: "problem" not in relaying.details())
    assert len(made) == 1


async def test_stream_with_some_of_the_subjects_is_used_for_those(
    database18: Database, ledger: Ledger, streams: Streams
) -> None:
    """Beside it no stream can be made that takes everything."""
    await _add(streams, "voucher.>")
    await write_events(database18, MANY[:10])
    await _issue(database18)
    async with running_relay(streams.relay(ledger)):
        await wait_published(database18, left=10)
    assert await streams.count() == 1


async def test_deleted_stream_is_created_again(database18: Database, ledger: Ledger, streams: Streams) -> None:
    """At the next event, without a new connection."""
    async with running_relay(streams.relay(ledger)):
        await write_events(database18, ["one"])
        await wait_published(database18)
        async with streams.jetstream() as jetstream:
            await jetstream.delete_stream(streams.name)
        await write_events(database18, ["one", "two"])
        await wait_published(database18)
    assert by_tenant(await streams.read()) == expected_by_tenant(["one", "two"])


async def test_events_wait_while_the_stream_is_full(database18: Database, ledger: Ledger, streams: Streams) -> None:
    """A stream that refuses new messages keeps the old ones: none is lost."""
    async with streams.jetstream() as jetstream:
        subjects = [f"{streams.prefix}.>"]
        await jetstream.add_stream(name=streams.name, subjects=subjects, max_msgs=2, discard=DiscardPolicy.NEW)
    await write_events(database18, ["one", "two", "one", "two"])
    async with running_relay(streams.relay(ledger)) as relaying:
        await wait_published(database18, left=2)
        await until(lambda: "refuses an event" in str(relaying.details().get("problem")))
        async with streams.jetstream() as jetstream:
            await jetstream.update_stream(name=streams.name, subjects=subjects, max_msgs=100)
        await wait_published(database18)
        await until(lambda: "problem" not in relaying.details())
    assert by_tenant(await streams.read()) == expected_by_tenant(["one", "two", "one", "two"])


class CountingOutbox:
    """The real outbox, which knows how much was read at once, and how much in all."""

    def __init__(self, ledger: Ledger) -> None:
        self.read: list[int] = []
        self.outbox_published = ledger.outbox_published
        self.outbox_backlog = ledger.outbox_backlog
        self._ledger = ledger

    async def outbox_pending(self, limit: int, without: Sequence[str] = ()) -> list[OutboxEvent]:
        found = await self._ledger.outbox_pending(limit, without)
        self.read.append(len(found))
        return found


async def test_events_behind_a_refused_event_are_read_once(
    database18: Database, ledger: Ledger, streams: Streams, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page is a page, and the others' events are found behind any number of them."""
    monkeypatch.setattr(relay, "_RETRY", 3600.0)
    monkeypatch.setattr(relay, "_PAGE", 20)
    await _add(streams, "order.>")
    await _issue(database18, 300)
    await write_events(database18, MANY[:60])
    outbox = CountingOutbox(ledger)
    async with running_relay(streams.relay(outbox)):
        await wait_published(database18, left=300)
        await until(lambda: outbox.read[-3:] == [0, 0, 0])
    assert await unpublished(database18) == 300
    assert outbox.read[:4] == [20, 20, 20, 20]
    assert set(outbox.read[4:]) == {0}
