"""Idle connections are closed by a time limit, and do not block other callers for long."""

import asyncio
import dataclasses
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.ledger.helpers import until
from tests.web.helpers import PATH, WebhookClient, session_event, webhook, webhook_count
from voucher_operator.ledger.api import Ledger
from voucher_operator.web.uvicorn_internals import Connection, Limits
from voucher_operator.web.webhook import PORT_LIMITS

HEAD = f"POST {PATH} HTTP/1.1\r\nHost: x\r\n"
SILENT = {
    "nothing": "",
    "half a line": "POST",
    "no end of headers": HEAD,
    "no body": f"{HEAD}Content-Length: 10\r\n\r\n",
    "half a body": f"{HEAD}Content-Length: 10\r\n\r\n12345",
    "answered in the middle of its body": f"{HEAD}Content-Length: 65000\r\n\r\n12345",
}


def reading(seconds: float) -> Limits:
    """Return the webhook's limits with less time for a request."""
    return dataclasses.replace(PORT_LIMITS, reading=seconds)


@asynccontextmanager
async def opened(caller: WebhookClient, said: str) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", caller.server.port)
    try:
        writer.write(said.encode())
        await writer.drain()
        yield reader, writer
    finally:
        writer.close()
        await asyncio.gather(writer.wait_closed(), return_exceptions=True)


async def _ended(reader: asyncio.StreamReader) -> None:
    """Wait until the other side has ended the connection, whatever it answers before."""
    async with asyncio.timeout(20):
        try:
            while await reader.read(4096):
                pass
        except ConnectionError:
            return


@pytest.mark.parametrize("said", SILENT.values(), ids=SILENT)
async def test_idle_connection_is_closed(ledger: Ledger, said: str) -> None:
    async with webhook(ledger.receive, limits=reading(0.2)) as caller:
        async with opened(caller, said) as (reader, _):
            await _ended(reader)
        assert (await caller.post(session_event())).status_code == 200


@pytest.mark.parametrize("said", ["", HEAD, f"{HEAD}Content-Length: 65000\r\n\r\n"], ids=["nothing", "line", "headers"])
async def test_slow_connection_is_closed(ledger: Ledger, said: str) -> None:
    """A byte now and then earns no time."""
    async with webhook(ledger.receive, limits=reading(0.5)) as caller, opened(caller, said) as (reader, writer):
        end = asyncio.create_task(_ended(reader))
        for byte in b"abcdefghij" * 40:
            writer.write(bytes([byte]))
            if (await asyncio.wait([end], timeout=0.05))[0]:
                break
        assert end.done()
        await end


async def test_idle_time_starts_anew_for_the_second_request(ledger: Ledger) -> None:
    """It is waited for no longer than the first, and the first one's wait is over."""
    first = f"GET {PATH} HTTP/1.1\r\nHost: x\r\n\r\n"
    async with webhook(ledger.receive, limits=reading(0.5)) as caller, opened(caller, first) as (reader, writer):
        assert (await reader.readuntil(b"}")).startswith(b"HTTP/1.1 405")
        (held,) = caller.server._server.server_state.connections
        assert isinstance(held, Connection)
        assert held._deadline is None
        writer.write(HEAD.encode())
        await _ended(reader)


async def test_connection_over_the_limit_is_refused_until_one_ends(ledger: Ledger) -> None:
    """It is turned away and webhook_count; as soon as the idle ones have ended, calls are taken again."""
    before = webhook_count("busy")
    async with webhook(ledger.receive, limits=dataclasses.replace(PORT_LIMITS, connections=3, reading=1.0)) as caller:
        held = [await asyncio.open_connection("127.0.0.1", caller.server.port) for _ in range(3)]
        await until(lambda: len(caller.server._server.server_state.connections) == 3)
        async with opened(caller, "") as (reader, _):
            assert (await reader.readline()).split()[1] == b"503"
        assert webhook_count("busy") == before + 1
        await asyncio.gather(*(_ended(reader) for reader, _ in held))
        assert (await caller.post(session_event())).status_code == 200
        for _, writer in held:
            writer.close()
        await asyncio.gather(*(writer.wait_closed() for _, writer in held), return_exceptions=True)


async def test_connection_that_does_not_read_is_closed(stripe_calls: WebhookClient) -> None:
    """Requests behind one another, until no answer fits in: it ends, and holds no memory."""
    stripe_calls.server._server.servers[0].sockets[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    with socket.create_connection(("127.0.0.1", stripe_calls.server.port)) as caller:
        caller.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        caller.setblocking(False)
        await until(lambda: _pushed(caller))
    await until(lambda: not stripe_calls.server._server.server_state.connections)


def _pushed(caller: socket.socket) -> bool:
    """Send what fits in; return whether the other side has ended the connection."""
    try:
        caller.send(f"GET {PATH} HTTP/1.1\r\nHost: x\r\n\r\n".encode() * 20)
    except BlockingIOError:
        return False
    except ConnectionError:
        return True
    return False
