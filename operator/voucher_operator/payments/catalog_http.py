"""The catalog service over HTTP. See also: `catalog_source` chooses it by the settings."""

import asyncio
import json
from collections.abc import Sequence
from typing import Final

import httpx

from voucher_operator.payments.catalog_list import Item, items
from voucher_operator.resources.errors import CatalogUnavailableError

TIMEOUT: Final = httpx.Timeout(5.0, connect=2.0)
ANSWER_SECONDS: Final = 10.0
"""How long one answer may take in all, also of a server that sends a byte now and then."""
_PAUSES: Final = (0.2, 0.6)
_LARGEST: Final = 4 * 1024 * 1024


class CatalogService:
    """`GET <url>/catalog/plans` and `/catalog/addons`, public."""

    def __init__(self, url: str, *, timeout: httpx.Timeout = TIMEOUT) -> None:
        self._url = url.rstrip("/")
        self._timeout = timeout
        self._client: httpx.AsyncClient | None = None

    async def read(self, kind: str) -> Sequence[Item]:
        """Read one list; what may pass is tried again, twice. Raises CatalogUnavailableError."""
        for pause in _PAUSES:
            try:
                return await self._once(kind)
            except _MayPassError:
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
                asyncio.timeout(ANSWER_SECONDS),
                self._client.stream("GET", f"{self._url}/catalog/{kind}") as response,
            ):
                _check(response.status_code)
                body = await _body(response)
        except (httpx.TransportError, TimeoutError):
            raise _MayPassError("The catalog does not answer: check that it runs and its URL.") from None
        except (httpx.HTTPError, httpx.InvalidURL):
            raise CatalogUnavailableError("The catalog's answer cannot be read: check its URL.") from None
        try:
            return items(json.loads(body), f"the catalog's list of {kind}")
        except ValueError:
            raise CatalogUnavailableError(
                "The catalog answers with something that is no JSON: check its URL."
            ) from None


class _MayPassError(CatalogUnavailableError):
    """Worth another try at once."""


def _check(status: int) -> None:
    if status >= 500 or status == 429:
        raise _MayPassError(f"The catalog answers with status {status}: look into its log.")
    if status != 200:
        raise CatalogUnavailableError(f"The catalog answers with status {status}: check its URL.")


async def _body(response: httpx.Response) -> bytes:
    body = bytearray()
    async for part in response.aiter_bytes():
        body += part
        if len(body) > _LARGEST:
            raise CatalogUnavailableError("The catalog's answer is too long: check its URL.")
    return bytes(body)
