"""Chooses where the catalog comes from by the settings: a mounted file, the catalog service over HTTP, or nowhere.

See also: `catalog_http`, which is imported only where it is wanted, for an HTTP client is a large thing.
"""

from collections.abc import Sequence
from typing import Final

from voucher_operator.payments.catalog_file import CatalogFile
from voucher_operator.payments.catalog_list import Item, Source
from voucher_operator.resources.errors import CatalogUnavailableError
from voucher_operator.settings import Settings

_UNSET: Final = "No catalog is configured: set VOUCHER_OPERATOR_CATALOG_URL or VOUCHER_OPERATOR_CATALOG_FILE."


def source(settings: Settings) -> Source:
    """Choose by the settings: a file wins over the service."""
    if settings.catalog_file is not None:
        return CatalogFile(settings.catalog_file)
    if not settings.catalog_url:
        return NoCatalog()
    from voucher_operator.payments.catalog_http import CatalogService

    return CatalogService(settings.catalog_url)


class NoCatalog:
    """Where nothing is sold."""

    async def read(self, kind: str) -> Sequence[Item]:  # noqa: ARG002 - as the others
        """Raise CatalogUnavailableError."""
        raise CatalogUnavailableError(_UNSET)

    async def close(self) -> None:
        """Nothing is open."""
