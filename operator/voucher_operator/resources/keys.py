"""Idempotency keys: the origin of a request, and its name there.

The ledger stores a key as text: `<namespace>/<name>` of a Redemption resource, `http:<name>` of a request over HTTP,
which has no namespace. No namespace contains a colon, so the two are always different. Only this module and the SQL
function `vouchers.key_namespace` (migrations/0028) parse this text; a test compares them.
"""

from enum import StrEnum
from typing import Final, Self

_HTTP: Final = "http:"


class Origin(StrEnum):
    """Where a request came from."""

    REDEMPTION = "redemption"
    HTTP = "http"


class Key(str):
    """An idempotency key; equal to the text that the ledger stores. `Key(text)` reads a stored one."""

    __slots__ = ()

    @classmethod
    def of_redemption(cls, namespace: str, name: str) -> Self:
        """Return the key of a Redemption resource."""
        return cls(f"{namespace}/{name}")

    @classmethod
    def of_http(cls, name: str) -> Self:
        """Return the key of a request over HTTP; `name` is unique among these."""
        return cls(f"{_HTTP}{name}")

    @property
    def origin(self) -> Origin:
        """Where the request came from."""
        return Origin.HTTP if self.startswith(_HTTP) else Origin.REDEMPTION

    @property
    def namespace(self) -> str | None:
        """The namespace of the Redemption; None over HTTP."""
        return None if self.origin is Origin.HTTP else self.partition("/")[0]

    @property
    def name(self) -> str:
        """The name, unique in the namespace or among requests over HTTP."""
        return self.removeprefix(_HTTP) if self.origin is Origin.HTTP else self.partition("/")[2]
