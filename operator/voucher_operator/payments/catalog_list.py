"""Lists of plans and add-ons, from wherever they come: nothing is taken for granted beyond a list of objects.

See also: `catalog_file` and `catalog_http` read them; `catalog` judges what is in them.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from voucher_operator.resources.errors import CatalogUnavailableError

Item = Mapping[str, Any]


class Source(Protocol):
    """Reads `plans` or `addons`. Raises CatalogUnavailableError."""

    async def read(self, kind: str) -> Sequence[Item]:
        """Read one list."""
        ...

    async def close(self) -> None:
        """Close what is open."""
        ...


def items(value: object, what: str) -> Sequence[Item]:
    """Return what should be a list of objects, and is named `what`. Raises CatalogUnavailableError when it is none."""
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise CatalogUnavailableError(f"{what[0].upper()}{what[1:]} is no list of objects: correct it.")
    return value
