"""The catalog in a mounted file, in the format of the catalog service; the file may appear later.

See also: `catalog_source` chooses it by the settings.
"""

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path

from voucher_operator.payments.catalog_list import Item, items
from voucher_operator.resources.errors import CatalogUnavailableError


class CatalogFile:
    """A JSON file `{"plans": [...], "addons": [...]}`, read at each call."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def read(self, kind: str) -> Sequence[Item]:
        """Read one list. Raises CatalogUnavailableError when the file is absent or invalid."""
        try:
            lists = json.loads(await asyncio.to_thread(self._path.read_bytes))
        except OSError:
            raise CatalogUnavailableError(
                "The catalog file cannot be read: mount it at the path in the settings."
            ) from None
        except ValueError:
            raise CatalogUnavailableError("The catalog file is not JSON: correct it.") from None
        return items(lists.get(kind) if isinstance(lists, dict) else None, f"`{kind}` of the catalog file")

    async def close(self) -> None:
        """Do nothing."""
