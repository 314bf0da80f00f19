"""The catalog service over HTTP. See also: `catalog_source` chooses it by the settings."""

import asyncio
import json
from collections.abc import Sequence
from typing import Final

import httpx

from voucher_operator.payments.catalog_list import Item, items
from voucher_operator.resources.errors import CatalogUnavailableError

TIMEOUT: Final = httpx.Timeout(5.0, connect=2.0)
RESPONSE_SECONDS: Final = 10.0
"""Time limit of a whole response, also for a server that sends it byte by byte."""
_PAUSES: Final = (0.2, 0.6)
_MAX_BYTES: Final = 4 * 1024 * 1024


class CatalogService:
    """`GET <url>/catalog/plans` and `/catalog/addons`, public."""

    def __init__(self, url: str, *, timeout: httpx.Timeout = TIMEOUT) -> None:
        self._url = url.rstrip("/")
        self._timeout = timeout
        self._client: httpx.AsyncClient | None = None

    async def read(self, kind: str) -> Sequence[Item]:
        """Read one list; a transient failure is retried twice. Raises CatalogUnavailableError."""
        for pause in _PAUSES:
            try:
                return await self._once(kind)
            except _RetriableError:
                await asyncio.sleep(pause)
        return await self._once(kind)

    async def close(self) -> None:
        """Close the connections."""
        if self._client is not None:
            await self._client.aclose()

    async def _once(self, kind: str) -> Sequence[Item]:
        if self._client is None:
            self._client = httpx.AsyncClient(timeout=self._timeout)
        try:
            async with (
                asyncio.timeout(RESPONSE_SECONDS),
                self._client.stream("GET", f"{self._url}/catalog/{kind}") as response,
            ):
                _check(response.status_code)
                body = await _body(response)
        except (httpx.TransportError, TimeoutError):
            raise _RetriableError("The catalog does not respond: check that it runs, and its URL.") from None
        except (httpx.HTTPError, httpx.InvalidURL):
            raise CatalogUnavailableError("The catalog's response cannot be read: check its URL.") from None
        try:
            return items(json.loads(body), f"the catalog's list of {kind}")
        except ValueError:
            raise CatalogUnavailableError("The catalog's response is not JSON: check its URL.") from None


class _RetriableError(CatalogUnavailableError):
    """A transient failure, retried at once."""


def _check(status: int) -> None:
    if status >= 500 or status == 429:
        raise _RetriableError(f"The catalog responds with status {status}: check its log.")
    if status != 200:
        raise CatalogUnavailableError(f"The catalog responds with status {status}: check its URL.")


async def _body(response: httpx.Response) -> bytes:
    body = bytearray()
    async for part in response.aiter_bytes():
        body += part
        if len(body) > _MAX_BYTES:
            raise CatalogUnavailableError("The catalog's response is too long: check its URL.")
    return bytes(body)
