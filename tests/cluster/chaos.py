"""What the chaos tests share: many clients at once, waiting, and the comparison of resources and ledger.

`ChaosContext.assert_statuses_match_ledger` compares: after any fault, every Redemption is finished, its status is that
of the ledger, and the ledger holds nothing else. See also: `test_chaos_*.py`.
"""

import asyncio
import base64
import json
import ssl
import time
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Self

import aiohttp
import psycopg

from testbed.access import ClusterAccess
from testbed.operator_process import OperatorProcess
from testbed.postgres import Database
from testbed.processes import Daemon, free_port, wait_until
from testbed.tools import ensure
from voucher_operator.ledger.admin.verify import verify

Body = dict[str, Any]

GROUP = "/apis/billing.openova.io/v1alpha1"
CODE = "CHAOS-10"
SLOW_PROCESS_LOG = r"(did not (answer|respond) in time|the API server cannot be used.*Timeout)"
"""What an operator logs that hardly gets any processor time, as under these loads on a busy machine."""
_CLIENTS = 20
_OK, _CREATED, _NOT_FOUND, _CONFLICT, _BUSY, _BROKEN = 200, 201, 404, 409, 429, 500


class ApiError(Exception):
    """The API server refused: `status` and its words."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"{status} {text[:300]}")
        self.status = status


async def until(condition: Callable[[], Awaitable[object]], what: object, within: float = 60.0) -> None:
    """Wait for a condition. Raises AssertionError after a deadline that is generous: nothing is measured by it."""
    deadline = time.monotonic() + within
    pause = 0.02
    while not await condition():
        assert time.monotonic() < deadline, f"no {what} within {within:g} s"
        await asyncio.sleep(pause)
        pause = min(pause * 1.5, 0.25)


class Admin:
    """What Git, shops and people do on the API server, with an administrator's rights."""

    def __init__(self, session: aiohttp.ClientSession, server: str) -> None:
        self._session = session
        self._server = server
        self._gate = asyncio.Semaphore(_CLIENTS)

    @classmethod
    @asynccontextmanager
    async def connect(cls, cluster: ClusterAccess) -> AsyncIterator["Admin"]:
        """Open connections by the cluster's own kubeconfig."""
        config = json.loads(cluster.kubeconfig.read_text())
        target = config["clusters"][0]["cluster"]
        authority = base64.b64decode(target["certificate-authority-data"]).decode()
        tls = ssl.create_default_context(cadata=authority)
        headers = {"Authorization": f"Bearer {config['users'][0]['user']['token']}"}
        connector = aiohttp.TCPConnector(ssl=tls, limit=_CLIENTS)
        timeout = aiohttp.ClientTimeout(total=30)
        async with aiohttp.ClientSession(connector=connector, headers=headers, timeout=timeout) as session:
            yield cls(session, target["server"])

    async def call(self, method: str, path: str, body: object = None, **query: str) -> Body:
        """Make one call, repeated while the API server is absent, starting or busy.

        Raises ApiError for any other refusal.
        """
        kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
        data = None if body is None else json.dumps(body)
        while True:
            try:
                async with (
                    self._gate,
                    self._session.request(
                        method, self._server + path, data=data, params=query, headers={"Content-Type": kind}
                    ) as answer,
                ):
                    status, text = answer.status, await answer.text()
            except (aiohttp.ClientError, TimeoutError, OSError):
                status, text = _BROKEN, ""
            if status in (_OK, _CREATED, 202):
                return dict(json.loads(text))
            if status != _BUSY and status < _BROKEN:
                raise ApiError(status, text)
            await asyncio.sleep(0.1)

    async def create(self, path: str, body: Body) -> None:
        """Create an object, or find it created by the try before."""
        try:
            await self.call("POST", path, body)
        except ApiError as error:
            if error.status != _CONFLICT:
                raise

    async def find(self, path: str) -> Body | None:
        """Read an object, or None."""
        try:
            return await self.call("GET", path)
        except ApiError as error:
            if error.status != _NOT_FOUND:
                raise
            return None

    async def list(self, path: str, **query: str) -> list[Body]:
        """List objects."""
        return list((await self.call("GET", path, **query))["items"])


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
        """Create a Secret."""
        body = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": dict(values)}
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
        """How many grants stand on the ledger."""
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
    """Whether /healthz says that the process is alive."""
    with urllib.request.urlopen(f"http://127.0.0.1:{operator.port}/healthz", timeout=30) as answer:
        return bool(answer.status == _OK)


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


class Proxy:
    """A way to a server that can be cut: toxiproxy on a port of its own. A context manager."""

    def __init__(self, upstream: str, folder: Path) -> None:
        """Lead to `upstream` (host:port); `folder` takes the log and kubeconfigs."""
        self.address = f"127.0.0.1:{free_port()}"
        self._upstream = upstream
        self._folder = folder
        self._api = f"http://127.0.0.1:{free_port()}"
        server = ensure("toxiproxy") / "toxiproxy-server"
        command: list[str | Path] = [server, "-host", "127.0.0.1", "-port", self._api.rpartition(":")[2]]
        self._daemon = Daemon("toxiproxy", command, folder / "toxiproxy.log")

    def __enter__(self) -> Self:
        self._daemon.start()
        wait_until(lambda: self._ask("GET", "/version"), "answer of toxiproxy", alive=self._daemon)
        assert self._ask("POST", "/proxies", {"name": "way", "listen": self.address, "upstream": self._upstream})
        return self

    def __exit__(self, *_: object) -> None:
        self._daemon.kill()

    def cut(self) -> None:
        """Close all connections and take no new ones."""
        assert self._ask("POST", "/proxies/way", {"enabled": False})

    def restore(self) -> None:
        """Accept connections again."""
        assert self._ask("POST", "/proxies/way", {"enabled": True})

    def add_latency(self, milliseconds: int) -> None:
        """Let everything take so long, there and back again, so that a cut finds something under way."""
        for stream in ("upstream", "downstream"):
            toxic = {"type": "latency", "stream": stream, "attributes": {"latency": milliseconds}}
            assert self._ask("POST", "/proxies/way/toxics", toxic)

    def kubeconfig(self, direct: Path) -> Path:
        """Write a copy of a kubeconfig that leads this way."""
        config = json.loads(direct.read_text())
        config["clusters"][0]["cluster"]["server"] = f"https://{self.address}"
        path = self._folder / "through-the-proxy.kubeconfig"
        path.touch(mode=0o600)
        path.write_text(json.dumps(config))
        return path

    def _ask(self, method: str, path: str, body: object = None) -> bool:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._api + path, data, {"Content-Type": "application/json"}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=5) as answer:
                return bool(answer.status < _BROKEN)
        except OSError:
            return False
