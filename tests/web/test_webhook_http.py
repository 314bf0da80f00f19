"""The webhook's port with bad input: too large, too slow, incomplete, other paths; and how it stops."""

import asyncio
import dataclasses
import logging
import signal
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest
from pydantic import ValidationError
from starlette.applications import Starlette

from testbed.postgres import Database
from tests.ledger.helpers import rows, until
from tests.web.helpers import PATH, WebhookClient, read, session_event, sign, webhook, webhook_count
from voucher_operator.ledger.api import Ledger
from voucher_operator.ledger.purchase.types import PaymentEvent
from voucher_operator.resources.errors import AddressInUseError
from voucher_operator.settings import Settings
from voucher_operator.web import webhook as module
from voucher_operator.web.server import WebServer

HEAD = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nStripe-Signature: t=1,v1=x\r\n"


async def test_body_of_ten_megabytes_is_answered_413(stripe_calls: WebhookClient) -> None:
    before = webhook_count("too_large")
    answer = await stripe_calls.post(" " * 10_000_000, "t=1,v1=x")
    assert (answer.status_code, answer.json()) == (413, {"error": "the body has more than 262144 bytes"})
    assert webhook_count("too_large") == before + 1
    assert (await stripe_calls.post(session_event())).status_code == 200


async def test_body_limit_is_exact(stripe_calls: WebhookClient) -> None:
    body = session_event()
    assert (await stripe_calls.post(body + " " * (module.MAX_BYTES - len(body)))).status_code == 200
    assert (await stripe_calls.post(body + " " * (module.MAX_BYTES - len(body) + 1))).status_code == 413


async def test_body_limit_is_that_of_the_settings(ledger: Ledger, database18: Database) -> None:
    """A signed event of almost a mebibyte is stored as it came."""
    largest = 1024 * 1024
    assert Settings(webhook_max_bytes=largest).webhook_max_bytes == largest
    for wrong in (largest + 1, 64 * 1024 - 1):
        with pytest.raises(ValidationError):
            Settings(webhook_max_bytes=wrong)
    async with webhook(ledger.receive, max_bytes=largest) as caller:
        body = session_event()
        assert (await caller.post(body + " " * (largest - len(body)))).status_code == 200
        assert (await caller.post(body + " " * (largest - len(body) + 1))).status_code == 413
    assert await rows(database18, "SELECT length(raw) FROM vouchers.webhook_event") == [(largest,)]


async def test_bodies_that_are_read_together_are_limited(
    stripe_calls: WebhookClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without that, callers who need no signature could fill the memory."""
    monkeypatch.setattr(module, "_MAX_BYTES_TOGETHER", 100_000)
    monkeypatch.setattr(module, "_OWN_BYTES", 5_000)
    before = webhook_count("busy")
    reader, writer = await asyncio.open_connection("127.0.0.1", stripe_calls.server.port)
    writer.write(f"{HEAD}Content-Length: 90001\r\n\r\n".encode() + b"x" * 90_000)
    await writer.drain()
    body = session_event() + " " * 20_000

    async def is_busy() -> bool:
        return (await stripe_calls.post(body)).status_code == 503

    async with asyncio.timeout(20):
        while not await is_busy():
            pass
    assert webhook_count("busy") == before + 1
    # Almost every event is small: others' large bodies do not delay it.
    assert (await stripe_calls.post(session_event())).status_code == 200
    writer.write(b"x")
    assert (await reader.readline()).split()[1] == b"400"
    assert (await stripe_calls.post(body)).status_code == 200
    writer.close()
    await writer.wait_closed()


async def _chunks(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> AsyncIterator[int]:
    """Send chunks of a body until an answer comes."""
    sent = 0
    async with asyncio.timeout(20):
        while not reader._buffer:  # type: ignore[attr-defined]
            writer.write(b"2000\r\n" + b"x" * 0x2000 + b"\r\n")
            await writer.drain()
            sent += 0x2000
            yield sent
            await asyncio.sleep(0)


async def test_chunked_body_is_answered_413_at_the_limit(stripe_calls: WebhookClient) -> None:
    """No length is declared: what has come is webhook_count, not gathered."""
    reader, writer = await asyncio.open_connection("127.0.0.1", stripe_calls.server.port)
    writer.write(f"{HEAD}Transfer-Encoding: chunked\r\n\r\n".encode())
    sent = [size async for size in _chunks(reader, writer)]
    assert (await reader.readline()).split()[1] == b"413"
    assert sent[-1] > module.MAX_BYTES
    writer.close()
    await writer.wait_closed()


async def test_declared_length_over_the_limit_is_answered_413_at_once(stripe_calls: WebhookClient) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", stripe_calls.server.port)
    writer.write(f"{HEAD}Content-Length: {module.MAX_BYTES + 1}\r\n\r\n".encode())
    assert (await reader.readline()).split()[1] == b"413"
    writer.close()
    await writer.wait_closed()


async def test_slow_body_is_answered_408(stripe_calls: WebhookClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BODY_TIMEOUT", 0.2)
    reader, writer = await asyncio.open_connection("127.0.0.1", stripe_calls.server.port)
    writer.write(f"{HEAD}Content-Length: 10\r\n\r\n12345".encode())
    assert (await reader.readline()).split()[1] == b"408"
    writer.close()
    await writer.wait_closed()


async def test_caller_that_disconnects_is_counted_as_invalid(database18: Database, stripe_calls: WebhookClient) -> None:
    before = webhook_count("invalid")
    _, writer = await asyncio.open_connection("127.0.0.1", stripe_calls.server.port)
    writer.write(f"{HEAD}Content-Length: 10\r\n\r\n12345".encode())
    await writer.drain()
    writer.close()
    await writer.wait_closed()
    await until(lambda: webhook_count("invalid") == before + 1)
    assert await rows(database18, "SELECT 1 FROM vouchers.webhook_event") == []


async def test_other_paths_and_methods_are_404_and_405(stripe_calls: WebhookClient) -> None:
    for method, path, status in (("GET", PATH, 405), ("POST", "/", 404), ("GET", "/docs", 404)):
        answer = await stripe_calls.client.request(method, path)
        assert (answer.status_code, set(answer.json())) == (status, {"error"}), path
        assert "server" not in answer.headers


@pytest.mark.parametrize("path", [f"{PATH}/", f"{PATH}//", "/billing", "/billing/", f"/{PATH}", f"{PATH}/../webhook/"])
async def test_no_path_is_answered_by_a_redirect(stripe_calls: WebhookClient, path: str) -> None:
    """It would lead to the host that the caller names."""
    body = session_event()
    header = {"Stripe-Signature": sign(body), "Host": "evil.example"}
    answer = await stripe_calls.client.post(f"{stripe_calls.client.base_url}{path}", content=body, headers=header)
    assert (answer.status_code, answer.json()) == (404, {"error": "not found"})
    assert "location" not in answer.headers
    assert "evil" not in answer.text


async def test_call_under_way_is_finished_at_stop(database18: Database, ledger: Ledger) -> None:
    reached, go_on = asyncio.Event(), asyncio.Event()

    async def slow(event: Mapping[str, Any], raw: bytes) -> PaymentEvent:
        reached.set()
        await go_on.wait()
        return await read(event, raw)

    async with webhook(ledger.receive, reader=slow) as caller:
        call = asyncio.create_task(caller.post(session_event()))
        await reached.wait()
        stop = asyncio.create_task(caller.server.stop())
        await until(lambda: not caller.server._server.servers[0].is_serving())
        go_on.set()
        assert (await call).status_code == 200
        await stop
    assert len(await rows(database18, "SELECT 1 FROM vouchers.webhook_event")) == 1


async def test_concurrent_events_are_each_kept_once(database18: Database, stripe_calls: WebhookClient) -> None:
    bodies = [session_event() for _ in range(12)] * 2
    answers = await asyncio.gather(*(stripe_calls.post(body) for body in bodies))
    assert {answer.status_code for answer in answers} == {200}
    results = [answer.json()["result"] for answer in answers]
    assert (results.count("unknown"), results.count("duplicate")) == (12, 12)
    assert len(await rows(database18, "SELECT 1 FROM vouchers.webhook_event")) == 12


async def test_server_changes_no_signal_handler_and_logs_no_call(
    ledger: Ledger, caplog: pytest.LogCaptureFixture
) -> None:
    """A server that took the signals would end alone; one that logged each call would hide what matters."""
    handlers = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    with caplog.at_level(logging.DEBUG):
        async with webhook(ledger.receive) as caller:
            body = session_event()
            assert (await caller.post(body)).status_code == 200
            assert (await caller.post(body, sign(body, "whsec_other"))).status_code == 400
            assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == handlers
    assert [record for record in caplog.records if record.name.startswith(("uvicorn", "voucher_operator"))] == []
    assert "whsec" not in caplog.text


async def test_port_in_use_is_an_error_with_the_setting(stripe_calls: WebhookClient) -> None:
    """Ends the start with an error that names the setting, not the process with a line of uvicorn's."""
    port = stripe_calls.server.port
    server = WebServer(Starlette(), port, name="other", setting="OTHER_PORT", limits=module.PORT_LIMITS)
    with pytest.raises(AddressInUseError, match="OTHER_PORT"):
        server.start()


async def test_a_call_that_outlasts_the_stop_is_answered_503(ledger: Ledger, caplog: pytest.LogCaptureFixture) -> None:
    """Stripe sends it again; a traceback in the log would look like a fault."""
    reached = asyncio.Event()

    async def endless(_: Mapping[str, Any], __: bytes) -> PaymentEvent:
        reached.set()
        await asyncio.Event().wait()
        raise AssertionError

    limits = dataclasses.replace(module.PORT_LIMITS, stopping=0.3)
    async with webhook(ledger.receive, reader=endless, limits=limits) as caller:
        call = asyncio.create_task(caller.post(session_event()))
        await reached.wait()
        async with asyncio.timeout(10):
            await caller.server.stop()
        answer = await call
    assert (answer.status_code, answer.json()) == (503, {"error": "the server is stopping"})
    assert [record for record in caplog.records if record.name.startswith("uvicorn")] == []
