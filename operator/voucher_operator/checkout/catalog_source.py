"""Where the lists of plans and add-ons come from: the catalog service over HTTP, or a mounted file of the same shapes.

Both may come late and fail; nothing that they say is believed here beyond being a list of objects. Neighbour: `catalog`
judges what is in it.
"""

import asyncio
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

import httpx

from voucher_operator.resources.errors import CatalogUnavailableError
from voucher_operator.settings import Settings

Item = Mapping[str, Any]

TIMEOUT: Final = httpx.Timeout(5.0, connect=2.0)
ANSWER_SECONDS: Final = 10.0
"""How long one answer may take in all, also of a server that sends a byte now and then."""
_PAUSES: Final = (0.2, 0.6)
_LARGEST: Final = 4 * 1024 * 1024
_UNSET: Final = "No catalog is configured: set VOUCHER_OPERATOR_CATALOG_URL or VOUCHER_OPERATOR_CATALOG_FILE."


class Source(Protocol):
    """Reads `plans` or `addons`. Raises CatalogUnavailableError."""

    async def read(self, kind: str) -> Sequence[Item]:
        """Read one list."""
        ...

    async def close(self) -> None:
        """Close what is open."""
        ...


def source(settings: Settings) -> Source:
    """Choose by the settings: a file wins over the service."""
    if settings.catalog_file is not None:
        return CatalogFile(settings.catalog_file)
    return CatalogService(settings.catalog_url)


class CatalogFile:
    """A JSON file `{"plans": [...], "addons": [...]}`, read anew each time."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def read(self, kind: str) -> Sequence[Item]:
        """Read one list. Raises CatalogUnavailableError when the file is absent or is none."""
        try:
            lists = json.loads(await asyncio.to_thread(self._path.read_bytes))
        except OSError:
            raise CatalogUnavailableError("The catalog file cannot be read: mount it where the settings say.") from None
        except ValueError:
            raise CatalogUnavailableError("The catalog file is no JSON: correct it.") from None
        return _items(lists.get(kind) if isinstance(lists, dict) else None, f"`{kind}` of the catalog file")

    async def close(self) -> None:
        """Nothing is open."""


class CatalogService:
    """`GET <url>/catalog/plans` and `/catalog/addons`, public."""

    def __init__(self, url: str, *, timeout: httpx.Timeout = TIMEOUT) -> None:
        self._url = url.rstrip("/")
        self._timeout = timeout
        self._client: httpx.AsyncClient | None = None

    async def read(self, kind: str) -> Sequence[Item]:
        """Read one list; what may pass is tried again, twice. Raises CatalogUnavailableError."""
        if not self._url:
            raise CatalogUnavailableError(_UNSET)
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
            return _items(json.loads(body), f"the catalog's list of {kind}")
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


def _items(value: object, what: str) -> Sequence[Item]:
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise CatalogUnavailableError(f"{what[0].upper()}{what[1:]} is no list of objects: correct it.")
    return value
