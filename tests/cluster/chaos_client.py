"""A client of the API server for the chaos tests: many calls at once, repeated while the server is absent.

See also: `chaos` uses it for one namespace.
"""

import asyncio
import base64
import json
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp

from testbed.access import ClusterAccess

Body = dict[str, Any]


_CLIENTS = 20


_OK, _CREATED, _NOT_FOUND, _CONFLICT, _BUSY, _BROKEN = 200, 201, 404, 409, 429, 500


class ApiError(Exception):
    """The API server refused: `status` and its message."""

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
    """A client of the API server with an administrator's rights."""

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
