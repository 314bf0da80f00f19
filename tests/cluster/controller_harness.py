"""The controllers of orders with real ledger, checkout and catalog, and an API server in memory.

The API server fails when a test says so, and a periodic pass or a reconcile runs when a test calls it. See also:
conftest.py has the fixture `harness`; other test_order_*.py run a whole operator.
"""

import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from testbed.postgres import Database
from testbed.scripted_stripe import ScriptedStripe
from tests.cluster.resources import CODE_LABELS, Object, unique
from tests.cluster.stripe_fixture import SOVEREIGN, StripeFixture, order
from tests.ledger.helpers import rows, terms
from voucher_operator.controllers.wiring import Controllers, Process, build_controllers
from voucher_operator.kube.client import KubeApi
from voucher_operator.kube.event_recorder import EventRecorder
from voucher_operator.kube.work_queue import Result
from voucher_operator.ledger.api import Ledger
from voucher_operator.ledger.purchase.types import Purchase
from voucher_operator.ledger.types import AttemptLimit
from voucher_operator.payments.catalog import Catalog
from voucher_operator.payments.catalog_source import source
from voucher_operator.payments.purchase_saga import Checkout
from voucher_operator.resources.keys import Key
from voucher_operator.settings import Settings

_ORGANIZATIONS: Final = "/apis/catalyst.openova.io/v1alpha1"
_EVENTS: Final = "/apis/events.k8s.io/v1"
_REDEMPTIONS: Final = "/apis/billing.openova.io/v1alpha1/namespaces/billing/redemptions"


@dataclass(frozen=True)
class _Response:
    status: int
    reason: str
    body: bytes

    async def read(self) -> bytes:
        return self.body


@dataclass
class Memory:
    """What the API server has, by path, and how it fails: it takes the place of the client's connection."""

    objects: dict[str, Object] = field(default_factory=dict)
    organizations: bool = False
    """Whether there is a CRD for them, of the cluster's scope."""
    faults: dict[str, tuple[int, str | Object]] = field(default_factory=dict)
    """Status, and message or whole answer, for the calls whose `METHOD path` begins so."""
    unanswered: str = ""
    """Calls whose `METHOD path` begins so are done, and their answer is lost."""
    calls: list[str] = field(default_factory=list)

    async def param_serialize(self, method: str, path: str, **_: Any) -> tuple[str, str, None]:
        """Stand in for the client's."""
        return method, path, None

    async def call_api(self, method: str, path: str, _: None, body: Object | None, **__: Any) -> _Response:
        """Stand in for the client's."""
        self.calls.append(f"{method} {path}")
        fault = next((one for start, one in self.faults.items() if f"{method} {path}".startswith(start)), None)
        status, answer = _failed(*fault) if fault else self._answer(method, path, body or {})
        if self.unanswered and f"{method} {path}".startswith(self.unanswered):
            status, answer = 504, {}
        return _Response(status, "", json.dumps(answer).encode())

    def _answer(self, method: str, path: str, body: Object) -> tuple[int, Object]:
        if path == _ORGANIZATIONS:
            listed = {"resources": [{"name": "organizations", "namespaced": False}]}
            return (200, listed) if self.organizations else (404, {})
        if method == "POST":
            return self._create(f"{path}/{body['metadata'].get('name', unique('event'))}", body)
        if path.endswith(("/vouchers", "/redemptions")):
            return 200, {
                "items": [one for at, one in self.objects.items() if at.startswith(f"{path}/")],
                "metadata": {},
            }
        path = path.removesuffix("/status")
        if path not in self.objects:
            return 404, {}
        if method == "PATCH":
            return _patch(self.objects[path], body)
        return 200, self.objects.pop(path) if method == "DELETE" else self.objects[path]

    def _create(self, path: str, body: Object) -> tuple[int, Object]:
        if path in self.objects:
            return 409, {}
        self.objects[path] = {**body, "metadata": {**body["metadata"], "generation": 1}}
        return 201, self.objects[path]


def _patch(live: Object, body: Object) -> tuple[int, Object]:
    """Merge a status, provided that the object is as it was, or an Event's series."""
    if "series" in body:
        live.update(body)
        return 200, live
    if any(live["metadata"][name] != value for name, value in body["metadata"].items()):
        return 409, {}
    live["status"] = dict(live["status"])  # the caches keep what they were given
    for name, value in body["status"].items():
        live["status"].pop(name, None)
        if value is not None:
            live["status"][name] = value
    live["metadata"]["resourceVersion"] = unique("version")
    return 200, live


def _failed(status: int, said: str | Object) -> tuple[int, Object]:
    return status, {"message": said} if isinstance(said, str) else said


@dataclass
class ControllerHarness:
    """What one leader runs, without watches and retries: tests do both."""

    server: Memory
    process: Process
    parts: Controllers
    ledger: Ledger
    checkout: Checkout
    stripe_fixture: StripeFixture
    database: Database

    def elect_new_leader(self) -> None:
        """Have another replica lead, whose memory is empty."""
        self.parts = build_controllers(self.process)

    async def deliver(self) -> None:
        """Make one pass over what has ended."""
        await self.parts.purchase_tasks.deliver()

    async def issue(self, credit_minor: int = 10_000) -> str:
        """Issue a code."""
        code = unique("CODE").upper()
        await self.ledger.put(terms(code, uid=unique("voucher"), name=code.lower(), credit_minor=credit_minor))
        return code

    def secret(self, name: str, code: str | None) -> Object:
        """Keep a code in a Secret, or delete the Secret; returns how a spec refers to it."""
        path = f"/api/v1/namespaces/billing/secrets/{name}"
        if code is None:
            del self.server.objects[path]
        else:
            data = {"code": base64.b64encode(code.encode()).decode()}
            self.server.objects[path] = {"metadata": {"labels": CODE_LABELS}, "data": data}
        return {"codeFrom": {"secretKeyRef": {"name": name, "key": "code"}}}

    def apply(self, name: str, spec: Object, status: Object | None = None) -> Object:
        """Create a Redemption, or create it anew, and deliver its watch event."""
        metadata = {"name": name, "namespace": "billing", "uid": unique("uid"), "generation": 1}
        times = {"resourceVersion": unique("version"), "creationTimestamp": "2026-12-01T00:00:00Z"}
        body = {"metadata": metadata | times, "spec": spec, "status": status or {}}
        self.server.objects[f"{_REDEMPTIONS}/{name}"] = body
        self.parts.feed.redemption_cache.put(body)
        return body

    def remove(self, name: str) -> None:
        """Delete a Redemption, and deliver its watch event."""
        body = self.server.objects.pop(f"{_REDEMPTIONS}/{name}")
        self.parts.feed.redemption(body, gone=True)

    def watch(self, name: str) -> Object:
        """Deliver the watch event of its present status; returns the status."""
        body = self.server.objects[f"{_REDEMPTIONS}/{name}"]
        if body["status"].get("finished"):
            self.parts.feed.redemption_cache.drop(f"billing/{name}")
        else:
            self.parts.feed.redemption_cache.put(body)
        status: Object = body["status"]
        return status

    async def reconcile(self, name: str) -> Object:
        """Have the worker reconcile one order; returns its status then."""
        while await self.parts.purchases.reconcile(f"billing/{name}") is Result.REQUEUE:
            pass
        return self.watch(name)

    async def events(self, name: str) -> list[str]:
        """Post what is recorded; return the reasons of all events about an object, with how often each repeats."""
        await self.process.recorder.drain(5.0)
        found = [one for path, one in self.server.objects.items() if path.startswith(_EVENTS)]
        mine = [one for one in found if one["regarding"]["name"] == name]
        return [one["reason"] for one in mine for _ in range(one.get("series", {}).get("count", 1))]

    async def purchase(self, name: str) -> Purchase:
        """Read what a Redemption bought."""
        found = await self.ledger.purchase_of(Key(f"billing/{name}"))
        assert found is not None
        return found

    async def sql(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        """Run a statement on the ledger as superuser."""
        return await rows(self.database, query, *values)

    def organization(self, name: str) -> Object | None:
        """Read an Organization."""
        return self.server.objects.get(f"{_ORGANIZATIONS}/organizations/{name}")

    def found(
        self, name: str, *, tenant: str | None = None, annotations: Object | None = None, ready: bool = True
    ) -> None:
        """Have another part of the platform create an Organization."""
        metadata = {"name": name, "generation": 1, "annotations": annotations or {}}
        spec = {"slug": name} | ({"tenantID": tenant} if tenant else {})
        conditions = [{"type": "Ready", "status": "True" if ready else "False"}]
        body = {"metadata": metadata, "spec": spec, "status": {"conditions": conditions}}
        self.server.objects[f"{_ORGANIZATIONS}/organizations/{name}"] = body


def spec(code: str | None = None, user: str | None = None, tenant: str = "kestrel", **more: Any) -> Object:
    """Ask for plan `m`, which costs 9; `xl` costs 30."""
    customer = {"userID": user or unique("user"), "tenantID": tenant, "email": "ahmed@example.com"}
    return {"customer": customer, "order": order("m"), **({"code": code} if code else {}), **more}


def reason(status: Object, kind: str = "Ready") -> tuple[str, str] | None:
    """Return status and reason of a condition."""
    found = (one for one in status["conditions"] if one["type"] == kind)
    return next(((one["status"], one["reason"]) for one in found), None)


async def settle(harness: ControllerHarness, event: dict[str, Any]) -> None:
    """Receive a webhook, as any replica may."""
    assert await harness.checkout.receive(await harness.checkout.payment_event(event, b"{}")) == "applied"


@asynccontextmanager
async def opened(database: Database, folder: Path, **changes: Any) -> AsyncIterator[ControllerHarness]:
    """Open a harness on a ledger."""
    with ScriptedStripe() as stripe:
        stripe_fixture = StripeFixture(stripe, folder)
        env = {name.removeprefix("VOUCHER_OPERATOR_").lower(): value for name, value in stripe_fixture.env.items()}
        settings = Settings(
            **{
                **env,
                "stripe_timeout": 5.0,
                "not_found_grace": 0.0,
                "counter_sync_interval": 0.001,
                # No time at all to PostgreSQL: what failed is due again at once.
                "backoff_max": 1e-9,
                **changes,
            }
        )
        attempts = AttemptLimit(settings.wrong_codes, settings.wrong_codes_seconds)
        ledger = Ledger(lambda: database.runtime_url, sovereign=SOVEREIGN, attempts=attempts)
        await ledger.open()
        server, api = Memory(), KubeApi()
        api.client = server  # type: ignore[assignment]
        checkout, catalog = Checkout(ledger, settings), Catalog(source(settings), fresh_seconds=0.0)
        try:
            process = Process(
                ledger, api, EventRecorder(api, "example.com/test", "harness"), catalog, checkout, settings
            )
            yield ControllerHarness(
                server, process, build_controllers(process), ledger, checkout, stripe_fixture, database
            )
        finally:
            await catalog.close()
            await checkout.close()
            await ledger.close()
