"""Where the lists of plans and add-ons come from: the catalog service over HTTP, or a mounted file of the same shapes.

Both may come late and fail; nothing that they say is believed here beyond being a list of objects. See also:
`catalog_service` is the first of the two, and is read only where it is wanted, for an HTTP client is a large thing;
`catalog` judges what is in the lists.
"""

import asyncio
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

from voucher_operator.resources.errors import CatalogUnavailableError
from voucher_operator.settings import Settings

Item = Mapping[str, Any]

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
    if not settings.catalog_url:
        return NoCatalog()
    from voucher_operator.payments.catalog_service import CatalogService

    return CatalogService(settings.catalog_url)


class NoCatalog:
    """Where nothing is sold."""

    async def read(self, kind: str) -> Sequence[Item]:  # noqa: ARG002 - as the others
        """Raise CatalogUnavailableError."""
        raise CatalogUnavailableError(_UNSET)

    async def close(self) -> None:
        """Nothing is open."""


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
        return items(lists.get(kind) if isinstance(lists, dict) else None, f"`{kind}` of the catalog file")

    async def close(self) -> None:
        """Nothing is open."""


def items(value: object, what: str) -> Sequence[Item]:
    """Return what should be a list of objects, and is named `what`. Raises CatalogUnavailableError when it is none."""
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise CatalogUnavailableError(f"{what[0].upper()}{what[1:]} is no list of objects: correct it.")
    return value
