"""NATS absent, disconnected, frozen or refusing: events wait in the ledger, and each is published once and in order."""

import asyncio
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from signal import SIGCONT, SIGSTOP

import pytest

from testbed.interpreter import ROOT
from testbed.nats import NatsServer
from testbed.postgres import Database
from testbed.processes import Daemon
from tests.ledger.helpers import until
from tests.messaging.helpers import (
    Streams,
    by_tenant,
    expected_by_tenant,
    running_relay,
    unpublished,
    wait_published,
    write_events,
)
from voucher_operator.ledger.api import Ledger
from voucher_operator.messaging import nats_connection as bus

MANY = [f"tenant-{n % 5}" for n in range(1500)]


@pytest.fixture
def own() -> Iterator[Streams]:
    """A server that the test may stop."""
    with NatsServer() as server:
        yield Streams(server, "own")


async def test_events_are_published_when_nats_comes_late(
    database18: Database, ledger: Ledger, own: Streams, caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged once, and what was written meanwhile is published then."""
    own.server.stop()
    with caplog.at_level(logging.INFO, "voucher_operator"):
        async with running_relay(own.relay(ledger)) as relay:
            await until(lambda: "problem" in relay.details())
            assert str(relay.details()["problem"]).startswith("NATS cannot be reached")
            await write_events(database18, MANY[:50])
            own.server.start()
            await wait_published(database18)
    assert by_tenant(await own.read()) == expected_by_tenant(MANY[:50])
    messages = [
        record.getMessage() for record in caplog.records if record.name.startswith("voucher_operator.messaging")
    ]
    assert [message.partition(":")[0] for message in messages] == [
        "events are not published",
        "events are published again",
    ]


async def test_disconnect_is_noticed_without_an_event(ledger: Ledger, own: Streams) -> None:
    """It is noticed at once, not by the next event."""
    async with running_relay(own.relay(ledger)) as relay:
        await until(lambda: relay.details() == {"pending": 0, "oldest_seconds": 0})
        own.server.kill()
        await until(lambda: "problem" in relay.details())


@pytest.mark.parametrize("end", ["kill", "stop"])
async def test_events_are_published_once_after_nats_restarts(
    database18: Database, ledger: Ledger, own: Streams, end: str
) -> None:
    await write_events(database18, MANY)
    async with running_relay(own.relay(ledger)):
        await wait_published(database18, left=len(MANY) - 1)
        getattr(own.server, end)()
        assert await unpublished(database18) > 0
        own.server.start()
        await wait_published(database18)
    assert by_tenant(await own.read()) == expected_by_tenant(MANY)


async def test_events_are_published_after_a_frozen_connection_is_replaced(
    database18: Database, ledger: Ledger, own: Streams, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection without answers is closed and opened again."""
    monkeypatch.setattr(bus, "_ACK_TIMEOUT", 0.5)
    async with running_relay(own.relay(ledger)) as relay:
        await write_events(database18, ["one"])
        await wait_published(database18)
        own.server.send(SIGSTOP)
        await write_events(database18, ["two"])
        await until(lambda: "problem" in relay.details())
        own.server.send(SIGCONT)
        await wait_published(database18)
    assert sorted(by_tenant(await own.read())) == ["one", "two"]


async def test_events_are_published_once_after_the_relay_is_killed(
    database18: Database, ledger: Ledger, own: Streams, tmp_path: Path
) -> None:
    """The next leader continues; what was acknowledged and not marked is stored once."""
    await write_events(database18, MANY)
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}/operator:{ROOT}"}
    arguments = [database18.runtime_url, own.server.url, own.name, own.prefix]
    process = Daemon(
        "relay", [sys.executable, "-m", "tests.messaging.relay_process", *arguments], tmp_path / "log", env=environment
    )
    process.start()
    try:
        async with asyncio.timeout(40):
            while not await own.count():
                assert process.running, process.tail()
    finally:
        process.kill()
    assert await unpublished(database18) > 0
    async with running_relay(own.relay(ledger)):
        await wait_published(database18)
    assert by_tenant(await own.read()) == expected_by_tenant(MANY)


async def test_wrong_password_is_reported_and_the_right_one_used(
    database18: Database, ledger: Ledger, caplog: pytest.LogCaptureFixture
) -> None:
    """A wrong one is named as such, and is in no log."""
    with NatsServer(password="right-one") as server:
        streams = Streams(server, "locked")
        urls = [server.url.replace("right-one", "wrong-one")]
        await write_events(database18, ["one"])
        async with running_relay(streams.relay(ledger, servers=lambda: list(urls))) as relay:
            await until(lambda: "refuses the login" in str(relay.details().get("problem")))
            urls[:] = [server.url]
            await wait_published(database18)
    assert "wrong-one" not in caplog.text
    assert "right-one" not in caplog.text


@pytest.mark.parametrize("url", ["nats://", "nats://127.0.0.1:port", "nats://no-such-host.invalid:4222", "http://x"])
async def test_invalid_address_is_reported(ledger: Ledger, streams: Streams, url: str) -> None:
    async with running_relay(streams.relay(ledger, servers=lambda: [url])) as relay:
        await until(lambda: "problem" in relay.details())
        assert str(relay.details()["problem"]).startswith("NATS cannot be reached")
