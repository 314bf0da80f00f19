"""Lists of plans and add-ons from any source: only checked to be lists of objects.

See also: `catalog_file` and `catalog_http` read them; `catalog` checks the items.
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
        """Close connections."""
        ...


def items(value: object, what: str) -> Sequence[Item]:
    """Return `value`, named `what` in messages. Raises CatalogUnavailableError when it is not a list of objects."""
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise CatalogUnavailableError(f"{what[0].upper()}{what[1:]} is not a list of objects: correct it.")
    return value
