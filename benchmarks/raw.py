"""A client of the API server that does as little as a client can, so that its rate is the server's.

Requests are bytes before the clock starts; an answer is awaited to its end, its status looked at, the rest is not
parsed unless asked for. See also: `redemptions` makes the requests.
"""

import asyncio
import base64
import json
import ssl
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from testbed.processes import TestbedError

CONNECTIONS = 20


class RawClient:
    """Sends prepared requests with the credentials of a kubeconfig as the test bed writes it (JSON, bearer token)."""

    def __init__(self, kubeconfig: Path) -> None:
        content = json.loads(kubeconfig.read_text())
        cluster = content["clusters"][0]["cluster"]
        address = urlsplit(cluster["server"])
        self._host, self._port = address.hostname or "", address.port or 443
        self._token = content["users"][0]["user"]["token"]
        authority = base64.b64decode(cluster["certificate-authority-data"]).decode()
        self._tls = ssl.create_default_context(cadata=authority)

    def request(self, method: str, path: str, body: Mapping[str, Any], content: str = "application/json") -> bytes:
        """Write down one request."""
        data = json.dumps(body).encode()
        lines = (
            f"{method} {path} HTTP/1.1",
            f"Host: {self._host}:{self._port}",
            f"Authorization: Bearer {self._token}",
            "Accept: application/json",
            f"Content-Type: {content}",
            f"Content-Length: {len(data)}",
        )
        return "\r\n".join(lines).encode() + b"\r\n\r\n" + data

    def send(self, requests: Sequence[bytes], *, read: bool = False) -> tuple[float, list[Any]]:
        """Send all, over twenty connections; returns seconds from first to last, and the parsed answers if asked for.

        Raises TestbedError when one is refused.
        """
        return asyncio.run(self._send(list(requests), read))

    async def _send(self, requests: list[bytes], read: bool) -> tuple[float, list[Any]]:
        loop = asyncio.get_running_loop()
        connections = [
            (await loop.create_connection(_Connection, self._host, self._port, ssl=self._tls))[1]
            for _ in range(CONNECTIONS)
        ]
        answers: list[Any] = []
        waiting = iter(requests)

        async def work(connection: "_Connection") -> None:
            for request in waiting:
                answer = await connection.ask(request)
                if read:
                    answers.append(json.loads(_body(answer)))

        began = loop.time()
        await asyncio.gather(*map(work, connections))
        took = loop.time() - began
        for connection in connections:
            connection.transport.close()
        return took, answers


class _Connection(asyncio.Protocol):
    """One request at a time over HTTP/1.1."""

    transport: asyncio.Transport

    def __init__(self) -> None:
        self._received = bytearray()
        self._answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def ask(self, request: bytes) -> "asyncio.Future[bytes]":
        self._received.clear()
        self._answer = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        return self._answer

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._answer.done():
            self._answer.set_exception(TestbedError(f"the API server closed the connection: {exc}"))

    def data_received(self, data: bytes) -> None:
        received = self._received
        received += data
        if not _is_whole(received) or self._answer.done():
            return
        if received.startswith(b"HTTP/1.1 2"):
            self._answer.set_result(bytes(received))
        else:
            self._answer.set_exception(TestbedError(received.decode()))


def _is_whole(received: bytearray) -> bool:
    head = received.find(b"\r\n\r\n")
    if head < 0:
        return False
    length = received.find(b"Content-Length: ", 0, head)
    if length < 0:  # in chunks
        return received.endswith(b"\r\n0\r\n\r\n")
    return len(received) - head - 4 >= int(received[length + 16 : received.find(b"\r", length)])


def _body(answer: bytes) -> bytes:
    head, _, rest = answer.partition(b"\r\n\r\n")
    if b"Content-Length: " in head:
        return rest
    parts = []
    while (size := int(rest[: rest.index(b"\r\n")], 16)) > 0:
        start = rest.index(b"\r\n") + 2
        parts.append(rest[start : start + size])
        rest = rest[start + size + 2 :]
    return b"".join(parts)
