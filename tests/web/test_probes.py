"""/healthz, /readyz and /metrics over HTTP: status, body, format, and what a caller may hold of the port."""

import asyncio
import dataclasses
import gzip
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from tests.ledger.helpers import until
from tests.web.helpers import WebhookClient, served
from voucher_operator import telemetry
from voucher_operator.web import probes
from voucher_operator.web.uvicorn_internals import Limits

FORMAT = "text/plain; version="


@asynccontextmanager
async def probing(
    problems: probes.Check | None = None,
    refresh: Callable[[], None] = lambda: None,
    limits: Limits = probes.PORT_LIMITS,
) -> AsyncIterator[WebhookClient]:
    """Serve the probes of a process that leads."""

    async def none() -> dict[str, str]:
        return {}

    app = probes.application(problems or none, lambda: {"leader": True, "queues": {"b": 0, "a": 1}}, refresh)
    async with served(app, limits) as caller:
        yield caller


async def test_healthz_is_200_while_the_api_server_answers_and_503_after_ten_silent_minutes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with probing() as caller:
        monkeypatch.setattr(telemetry.API_LIVENESS, "at", time.monotonic() - 590)
        alive = await caller.client.get("/healthz")
        assert (alive.status_code, alive.text) == (200, "ok")
        monkeypatch.setattr(telemetry.API_LIVENESS, "at", time.monotonic() - 601)
        silent = await caller.client.get("/healthz")
        assert (silent.status_code, silent.text) == (503, "no response from the API server")
        assert silent.headers["content-type"].startswith("text/plain")


async def test_readyz_names_what_is_wrong_and_the_facts_in_sorted_json() -> None:
    found: dict[str, str] = {}

    async def problems() -> dict[str, str]:
        return found

    async with probing(problems) as caller:
        ready = await caller.client.get("/readyz")
        assert ready.status_code == 200
        assert ready.text == '{"leader": true, "problems": {}, "queues": {"a": 1, "b": 0}, "ready": true}'
        assert ready.headers["content-type"] == "application/json"
        found["ledger"] = "cannot be reached"
        unready = await caller.client.get("/readyz")
        assert unready.status_code == 503
        assert (unready.json()["ready"], unready.json()["problems"]) == (False, found)


async def test_metrics_are_refreshed_at_each_read_and_come_in_the_format_that_is_asked_for() -> None:
    reads: list[int] = []
    async with probing(refresh=lambda: reads.append(1)) as caller:
        plain = await caller.client.get("/metrics", headers={"Accept": "*/*", "Accept-Encoding": "identity"})
        assert plain.status_code == 200
        assert plain.headers["content-type"].startswith(FORMAT)
        assert "voucher_operator_leader 0.0" in plain.text.splitlines()
        assert len(reads) == 1
        accepted = {"Accept": "application/openmetrics-text;version=1.0.0"}
        assert (await caller.client.get("/metrics", headers=accepted)).text.endswith("# EOF\n")
        async with caller.client.stream("GET", "/metrics", headers={"Accept-Encoding": "gzip"}) as packed:
            raw = b"".join([part async for part in packed.aiter_raw()])
            assert packed.headers["content-encoding"] == "gzip"
        assert b"voucher_operator_leader 0.0" in gzip.decompress(raw)
        assert len(reads) == 3


async def test_only_the_three_paths_are_served_and_only_for_reading() -> None:
    async with probing() as caller:
        for path in ("/healthz", "/readyz", "/metrics"):
            head = await caller.client.head(path)
            assert (head.status_code, head.content) == (200, b""), path
            posted = await caller.client.post(path)
            assert (posted.status_code, set(posted.json())) == (405, {"error"}), path
            slash = await caller.client.get(f"{path}/")
            assert (slash.status_code, slash.json()) == (404, {"error": "not found"}), path
        for path in ("/", "/docs", "/redoc", "/openapi.json", "/billing/webhook"):
            assert (await caller.client.get(path)).status_code == 404, path


@pytest.mark.parametrize("broken", ["problems", "details"])
async def test_check_that_raises_is_answered_503_with_a_reason_and_logged_once(
    broken: str, caplog: pytest.LogCaptureFixture
) -> None:
    faults = [broken]

    async def problems() -> dict[str, str]:
        if "problems" in faults:
            raise NotImplementedError("can't parse timestamptz with DateStyle 'German'")
        return {}

    def details() -> dict[str, object]:
        if "details" in faults:
            raise RuntimeError("broken detail")
        return {}

    async with served(probes.application(problems, details, lambda: None), probes.PORT_LIMITS) as caller:
        for _ in range(2):
            answer = await caller.client.get("/readyz")
            assert (answer.status_code, answer.json()["ready"]) == (503, False)
            assert "look into the log" in answer.json()["problems"]["checks"]
        assert (await caller.client.get("/healthz")).status_code == 200
        (record,) = caplog.records
        assert (record.levelname, record.exc_info is not None) == ("ERROR", True)
        faults.clear()
        assert (await caller.client.get("/readyz")).json() == {"ready": True, "problems": {}}
        faults.append(broken)
        await caller.client.get("/readyz")
        assert len(caplog.records) == 2


async def test_a_check_that_hangs_is_answered_503_at_the_stop_without_a_line_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    reached = asyncio.Event()

    async def endless() -> dict[str, str]:
        reached.set()
        await asyncio.Event().wait()
        return {}

    async with probing(endless, limits=dataclasses.replace(probes.PORT_LIMITS, stopping=0.3)) as caller:
        call = asyncio.create_task(caller.client.get("/readyz"))
        await reached.wait()
        async with asyncio.timeout(10):
            await caller.server.stop()
        assert (await call).status_code == 503
    assert caplog.records == []


async def test_idle_connections_are_closed_and_keep_the_kubelet_out_for_no_longer() -> None:
    async with probing(limits=dataclasses.replace(probes.PORT_LIMITS, connections=2, reading=0.5)) as caller:
        held = [await asyncio.open_connection("127.0.0.1", caller.server.port) for _ in range(2)]
        await until(lambda: len(caller.server._server.server_state.connections) == 2)
        assert (await caller.client.get("/healthz")).status_code == 503
        await until(lambda: not caller.server._server.server_state.connections)
        assert (await caller.client.get("/healthz")).status_code == 200
        for _, writer in held:
            writer.close()
        await asyncio.gather(*(writer.wait_closed() for _, writer in held), return_exceptions=True)


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
async def test_port_is_served_on_ipv4_and_ipv6(address: str) -> None:
    if address == "::1" and not socket.has_dualstack_ipv6():
        pytest.skip("this machine has no IPv6")
    async with probing() as caller:
        reader, writer = await asyncio.open_connection(address, caller.server.port)
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert (await reader.readline()).split()[1] == b"200"
        writer.close()
        await writer.wait_closed()
