"""A Stripe with state that fails when a test says so, over HTTP on loopback, for operators in this and other processes.

It answers as Stripe documents: a repeated idempotency key gets the first answer, with other parameters it is
refused, and while the first is under way it conflicts. `fail` orders faults, `pause` holds a request. See also:
`stripe_objects` keeps the state; `stripe` is Stripe's own mock, which knows more parameters and has no state.
"""

import asyncio
import hashlib
import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import parse_qsl

from aiohttp import web

from testbed.processes import free_port
from testbed.stripe_customers import StripeCustomers
from testbed.stripe_objects import Refusal

KEY: Final = "sk_test_voucher"
VERSION: Final = "2026-08-26.dahlia"


class Fault(StrEnum):
    """What may go wrong with a request."""

    UNAUTHORIZED = "unauthorized"
    FORBIDDEN = "forbidden"
    DECLINED = "declined"
    INVALID = "invalid"
    BUSY = "busy"
    """429, nothing is done or kept."""
    BROKEN = "broken"
    """500 that is kept for the idempotency key, and nothing is done."""
    BROKEN_AFTER = "broken_after"
    """The same, and all is done."""
    UNAVAILABLE = "unavailable"
    """503, nothing is done or kept."""
    IN_USE = "in_use"
    """409: the key is in use by a request under way."""
    CUT = "cut"
    """The connection ends before anything is done."""
    CUT_AFTER = "cut_after"
    """All is done, and the connection ends without an answer."""
    SILENT_AFTER = "silent_after"
    """All is done, and no answer comes: the client's time runs out."""
    EMPTY = "empty"
    """200 and an object with nothing in it."""
    GARBAGE = "garbage"
    """200 and a page of HTML, as from something in between."""
    GATEWAY = "gateway"
    """502 and a page of HTML."""


_REFUSALS: Final[Mapping[Fault, tuple[int, str, str | None]]] = {
    Fault.UNAUTHORIZED: (401, "invalid_request_error", "api_key_expired"),
    Fault.FORBIDDEN: (403, "invalid_request_error", "more_permissions_required"),
    Fault.DECLINED: (402, "card_error", "card_declined"),
    Fault.INVALID: (400, "invalid_request_error", "amount_too_small"),
    Fault.BUSY: (429, "invalid_request_error", "rate_limit"),
    Fault.BROKEN: (500, "api_error", None),
    Fault.BROKEN_AFTER: (500, "api_error", None),
    Fault.UNAVAILABLE: (503, "api_error", None),
    Fault.IN_USE: (409, "idempotency_error", "idempotency_key_in_use"),
}
_KEPT: Final = (Fault.BROKEN, Fault.BROKEN_AFTER, Fault.DECLINED)
"""Kept for the idempotency key: the work had begun."""


@dataclass
class Pause:
    """A request that is held when its work is done, before it is answered."""

    reached: threading.Event = field(default_factory=threading.Event)
    released: threading.Event = field(default_factory=threading.Event)
    when: Callable[[], bool] = lambda: True


class ScriptedStripe(StripeCustomers):
    """The server, in a thread of its own; a context manager."""

    def __init__(self, currency: str = "omr") -> None:
        """Prepare; nothing runs yet."""
        super().__init__(currency)
        self.key = KEY
        self.port = free_port()
        self.requests: list[str] = []
        """`METHOD path` of everything that came, in order."""
        self._faults: dict[str, list[Fault]] = {}
        self._pauses: dict[str, Pause] = {}
        self._answers: dict[str, tuple[str, int, Mapping[str, Any]]] = {}
        self._under_way: set[str] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="stripe", daemon=True)
        self._runner: web.AppRunner | None = None
        self._silent: asyncio.Event | None = None

    @property
    def url(self) -> str:
        """The base address."""
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        """Start; it listens on return."""
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop, and release the held requests."""
        for pause in self._pauses.values():
            pause.released.set()
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def fail(self, path: str, *faults: Fault) -> None:
        """Order faults for the next requests to a path such as `/v1/customers`, one each."""
        with self.lock:
            self._faults.setdefault(path, []).extend(faults)

    def clear_faults(self) -> None:
        """Remove the faults that have not happened yet."""
        with self.lock:
            self._faults.clear()

    def pause(self, path: str, when: Callable[[], bool] = lambda: True) -> Pause:
        """Hold the next request to a path after whose work `when` is true."""
        with self.lock:
            return self._pauses.setdefault(path, Pause(when=when))

    def count(self, request: str) -> int:
        """How often something was asked: `POST /v1/customers`."""
        return self.requests.count(request)

    async def _start(self) -> None:
        self._silent = asyncio.Event()
        app = web.Application()
        app.router.add_route("*", "/v1/{path:.*}", self._serve)
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=1.0)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port).start()

    async def _stop(self) -> None:
        assert self._runner is not None
        assert self._silent is not None
        self._silent.set()
        await self._runner.cleanup()

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        params = _nested(parse_qsl((await request.text()) if request.method == "POST" else request.query_string))
        with self.lock:
            self.requests.append(f"{request.method} {request.path}")
            waiting = self._faults.get(request.path)
            fault = waiting.pop(0) if waiting else None
        if fault is Fault.CUT:
            return _cut(request)
        if fault is Fault.EMPTY:
            return web.json_response({})
        if fault in (Fault.GARBAGE, Fault.GATEWAY):
            return web.Response(status=200 if fault is Fault.GARBAGE else 502, text="<html>", content_type="text/html")
        replayed = request.headers.get("Idempotency-Key", "") in self._answers
        try:
            status, body = self._answer(request, params, fault)
        except Refusal as refusal:
            status, body, replayed = refusal.status, refusal.body, False
        return await self._send(request, fault, status, body, replayed=replayed)

    async def _send(
        self, request: web.Request, fault: Fault | None, status: int, body: Mapping[str, Any], *, replayed: bool
    ) -> web.StreamResponse:
        key = request.headers.get("Idempotency-Key", "")
        pause = self._pauses.get(request.path)
        if pause is not None and pause.when():
            del self._pauses[request.path]
            self._under_way.add(key)
            pause.reached.set()
            await asyncio.to_thread(pause.released.wait)
            self._under_way.discard(key)
        if fault is Fault.SILENT_AFTER:
            assert self._silent is not None
            await self._silent.wait()
        if fault in (Fault.CUT_AFTER, Fault.SILENT_AFTER):
            return _cut(request)
        headers = {"Request-Id": "req_12345"} | ({"Idempotent-Replayed": "true"} if replayed else {})
        return web.json_response(body, status=status, headers=headers)

    def _answer(
        self, request: web.Request, params: Mapping[str, Any], fault: Fault | None
    ) -> tuple[int, Mapping[str, Any]]:
        """Do what is asked, once for each idempotency key. Raises Refusal."""
        with self.lock:
            if request.headers.get("Authorization") != f"Bearer {self.key}":
                raise Refusal(*_REFUSALS[Fault.UNAUTHORIZED])
            if request.headers.get("Stripe-Version") != VERSION:
                self.invalid_requests.append(f"version {request.headers.get('Stripe-Version')}")
            if fault is not None and fault in _REFUSALS and fault not in _KEPT:
                raise Refusal(*_REFUSALS[fault])
            if request.method == "DELETE":
                return 200, json.loads(json.dumps(self.delete(request.path)))
            if request.method != "POST":
                return 200, json.loads(json.dumps(self.get(request.path, params)))
            key = request.headers.get("Idempotency-Key", "")
            if not key or len(key) > 255:
                self.invalid_requests.append(f"POST {request.path} with an idempotency key of {len(key)} characters")
            return self._once(key, request.path, params, fault)

    def _once(
        self, key: str, path: str, params: Mapping[str, Any], fault: Fault | None
    ) -> tuple[int, Mapping[str, Any]]:
        words = hashlib.sha256(json.dumps([path, params], sort_keys=True).encode()).hexdigest()
        if key in self._under_way:
            raise Refusal(*_REFUSALS[Fault.IN_USE])
        if key not in self._answers:
            if fault is not None and fault in _KEPT:
                if fault is Fault.BROKEN_AFTER:
                    self.post(path, params)
                refusal = Refusal(*_REFUSALS[fault])
                self._answers[key] = words, refusal.status, refusal.body
            else:
                self._answers[key] = words, 200, json.loads(json.dumps(self.post(path, params)))
        before, status, body = self._answers[key]
        if before != words:
            raise Refusal(400, "idempotency_error", None)
        return status, body


def _cut(request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


def _nested(pairs: list[tuple[str, str]]) -> dict[str, Any]:
    """Read `a[b][0]=c` as {"a": {"b": {"0": "c"}}}."""
    found: dict[str, Any] = {}
    for name, value in pairs:
        *path, last = name.replace("]", "").split("[")
        place = found
        for part in path:
            place = place.setdefault(part, {})
        place[last] = value
    return found
