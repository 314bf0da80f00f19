"""Shared by the chaos tests: one namespace with its ledger, and the comparison of both.

`ChaosContext.assert_statuses_match_ledger` compares: after any fault, every Redemption is finished, its status is that
of the ledger, and the ledger holds nothing else. See also: `test_chaos_*.py`.
"""

import asyncio
import os
import random
import urllib.request
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import psycopg

from testbed.access import ClusterAccess
from testbed.operator_process import OperatorProcess
from testbed.postgres import Database
from tests.cluster.chaos_client import Admin, Body, until
from tests.cluster.resources import CODE_LABELS
from voucher_operator.ledger.admin.verify import verify

GROUP = "/apis/billing.openova.io/v1alpha1"


CODE = "CHAOS-10"


SLOW_API_LOG = r"the API server cannot be used.*Timeout"
"""What an operator logs when the API server gets little processor time, as under these loads on a busy machine."""
SLOW_PROCESS_LOG = rf"(did not (answer|respond) in time|{SLOW_API_LOG})"
"""The same, also about PostgreSQL."""


SEED = "CHAOS_SEED"
"""The environment variable that repeats a run's random choices; the timing still differs."""


def chaos_seed() -> str:
    """Return the seed of this run, from the environment or a new one, and print it: pytest shows it with a failure."""
    seed = os.environ.get(SEED) or str(random.getrandbits(32))
    print(f"{SEED}={seed}")
    return seed


@dataclass
class ChaosContext:
    """One namespace and its ledger."""

    admin: Admin
    namespace: str
    database: Database
    asked: set[str] = field(default_factory=set)
    """Names of the Redemptions that were created."""

    def path(self, plural: str, name: str = "") -> str:
        """Return where the objects, or one of them, are on the API server."""
        return f"{GROUP}/namespaces/{self.namespace}/{plural}" + (f"/{name}" if name else "")

    async def voucher(self, name: str = "chaos", code: str | None = CODE, **spec: Any) -> None:
        """Create a Voucher of 10 OMR."""
        known = {} if code is None else {"code": code}
        full = known | {"credit": {"amount": 10, "currency": "OMR"}} | spec
        await self.admin.create(self.path("vouchers"), _object("Voucher", name, full))

    async def redeem(self, names: Iterable[str], code: str | None = CODE, **spec: Any) -> None:
        """Create Redemptions, each of a customer of its own."""
        wanted = list(names)
        self.asked.update(wanted)
        known = {} if code is None else {"code": code}
        bodies = [_object("Redemption", name, known | {"customer": _customer(name)} | spec) for name in wanted]
        await asyncio.gather(*(self.admin.create(self.path("redemptions"), body) for body in bodies))

    async def get(self, plural: str, name: str) -> Body:
        """Read an object."""
        return await self.admin.call("GET", self.path(plural, name))

    async def delete(self, plural: str, name: str) -> None:
        """Delete an object, if it is there."""
        if await self.admin.find(self.path(plural, name)):
            await self.admin.call("DELETE", self.path(plural, name))

    async def gone(self, plural: str, name: str) -> bool:
        """Whether there is no such object any more."""
        return await self.admin.find(self.path(plural, name)) is None

    async def secret(self, name: str, values: Mapping[str, str]) -> None:
        """Create a Secret with codes."""
        metadata = {"name": name, "labels": CODE_LABELS}
        body = {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": dict(values)}
        await self.admin.create(f"/api/v1/namespaces/{self.namespace}/secrets", body)

    async def all_have_reason(self, plural: str, names: Iterable[str], reason: str) -> bool:
        """Whether Ready has this reason for all of these objects."""
        found = {one["metadata"]["name"]: one for one in await self.admin.list(self.path(plural))}
        return all(reasons(found[name]).get("Ready") == reason for name in names)

    async def redemptions(self) -> dict[str, Body]:
        """All Redemptions, by name."""
        return {one["metadata"]["name"]: one for one in await self.admin.list(self.path("redemptions"))}

    async def unfinished(self) -> int:
        """How many Redemptions are not finished."""
        return len(await self.admin.list(self.path("redemptions"), fieldSelector="status.finished!=true"))

    async def finished(self, within: float = 90.0) -> None:
        """Wait until all are."""

        await until(lambda: self.none("status.finished!=true"), "end of all Redemptions", within)

    async def none(self, selector: str) -> bool:
        """Whether there is no Redemption of a kind; asked for one only, for there may be thousands."""
        return not await self.admin.list(self.path("redemptions"), fieldSelector=selector, limit="1")

    async def voucher_is(self, name: str = "chaos", within: float = 60.0, **wanted: Any) -> Body:
        """Wait until fields of a Voucher's status, or reasons of its conditions (`Ready="Issued"`), are as given."""
        return await self._until_status("vouchers", name, wanted, within)

    async def redemption_is(self, name: str, within: float = 60.0, **wanted: Any) -> Body:
        """Wait until a Redemption's status is as given; as `voucher_is`."""
        return await self._until_status("redemptions", name, wanted, within)

    async def _until_status(self, plural: str, name: str, wanted: Mapping[str, Any], within: float) -> Body:
        found: Body = {"wanted": wanted, "of": name}

        async def is_so() -> bool:
            found.update(await self.get(plural, name))
            seen = found["status"] | reasons(found)
            return all(seen.get(key) == value for key, value in wanted.items())

        await until(is_so, found, within)
        return found

    async def sql(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        """Run one statement on the ledger as superuser; its rows, if it has any."""
        url = self.database.admin_url
        async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
            cursor = await connection.execute(query.encode(), values)
            return await cursor.fetchall() if cursor.description else []

    async def granted(self) -> int:
        """How many grants the ledger has."""
        return int((await self.sql("SELECT count(*) FROM promo_redemptions"))[0][0])

    async def assert_statuses_match_ledger(self) -> dict[str, Body]:
        """Compare every Redemption with its row of the ledger, and the ledger with itself; returns the Redemptions."""
        assert await verify(self.database.runtime_url) == []
        found = await self.redemptions()
        assert set(found) == self.asked
        prefix = f"{self.namespace}/"
        rows = await self.sql(
            "SELECT key, uid, outcome, reason, credit_minor, decided_at FROM vouchers.redemption WHERE key LIKE %s",
            f"{prefix}%",
        )
        ledger = {key.removeprefix(prefix): _from_ledger(*values) for key, *values in rows}
        assert {name: _from_status(body) for name, body in found.items()} == ledger
        return found

    async def counters_agree(self, name: str = "chaos", within: float = 60.0) -> None:
        """Wait until a Voucher's counters are those of the ledger."""
        code = (await self.get("vouchers", name))["spec"]["code"]
        times = await self.sql("SELECT times_redeemed FROM promo_codes WHERE code = %s", code)
        await self.voucher_is(name, within, timesRedeemed=times[0][0])


@asynccontextmanager
async def open_context(cluster: ClusterAccess, namespace: str, database: Database) -> AsyncIterator[ChaosContext]:
    """Open a context."""
    async with Admin.connect(cluster) as admin:
        yield ChaosContext(admin, namespace, database)


def healthy(operator: OperatorProcess) -> bool:
    """Whether /healthz answers 200."""
    with urllib.request.urlopen(f"http://127.0.0.1:{operator.port}/healthz", timeout=30) as answer:
        return bool(answer.status == 200)


async def wait_for_problem(operator: OperatorProcess, part: str, words: str) -> None:
    """Wait until /readyz says why it is not ready; /healthz stays good."""

    async def reason_is_set() -> bool:
        answer = await asyncio.to_thread(operator.ready)
        return not answer.get("ready", True) and words in answer["problems"].get(part, "")

    await until(reason_is_set, f"{words!r} in /readyz")
    assert await asyncio.to_thread(healthy, operator)


def reasons(body: Body) -> dict[str, str]:
    """Return the reason of each condition, by its type."""
    return {one["type"]: one["reason"] for one in body.get("status", {}).get("conditions", ())}


def _object(kind: str, name: str, spec: Mapping[str, Any]) -> Body:
    return {
        "apiVersion": "billing.openova.io/v1alpha1",
        "kind": kind,
        "metadata": {"name": name},
        "spec": dict(spec),
    }


def _customer(name: str) -> dict[str, str]:
    return {"userID": name, "tenantID": f"{name}-shop", "email": f"{name}@example.com"}


def _from_ledger(
    uid: str, outcome: str, reason: str | None, credit: int, decided_at: datetime
) -> tuple[str, str, str, int, datetime]:
    state = {"redeemed": "Redeemed", "refused": "Rejected", "undone": "RolledBack"}[outcome]
    return uid, state, reason or state, credit, decided_at.replace(microsecond=0)


def _from_status(body: Body) -> tuple[str, str, str, int, datetime]:
    status = body["status"]
    assert status.get("finished"), f"{body['metadata']['name']} is not finished: {status}"
    credit = round(float(status["credit"].split()[0]) * 1000) if "credit" in status else 0
    return (
        body["metadata"]["uid"],
        status["state"],
        reasons(body)["Ready"],
        credit,
        datetime.fromisoformat(status["finishedAt"]),
    )
