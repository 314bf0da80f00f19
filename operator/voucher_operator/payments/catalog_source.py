"""Chooses the source of the catalog by the settings: a mounted file, the catalog service over HTTP, or none.

See also: `catalog_file`; `catalog_http`, which is imported only when it is used, because its HTTP client is large.
"""

from collections.abc import Sequence
from typing import Final

from voucher_operator.payments.catalog_file import CatalogFile
from voucher_operator.payments.catalog_list import Item, Source
from voucher_operator.resources.errors import CatalogUnavailableError
from voucher_operator.settings import Settings

_UNSET: Final = "No catalog is configured: set VOUCHER_OPERATOR_CATALOG_URL or VOUCHER_OPERATOR_CATALOG_FILE."


def source(settings: Settings) -> Source:
    """Choose by the settings: a file has precedence over the service."""
    if settings.catalog_file is not None:
        return CatalogFile(settings.catalog_file)
    if not settings.catalog_url:
        return NoCatalog()
    from voucher_operator.payments.catalog_http import CatalogService

    return CatalogService(settings.catalog_url)


class NoCatalog:
    """No catalog is configured: nothing can be ordered."""

    async def read(self, kind: str) -> Sequence[Item]:  # noqa: ARG002 - as the others
        """Raise CatalogUnavailableError."""
        raise CatalogUnavailableError(_UNSET)

    async def close(self) -> None:
        """Do nothing."""
