"""Idempotency keys: where a request came from, and its name there.

The ledger stores a key as text: `<namespace>/<name>` of a Redemption resource, `http:<name>` of a request over HTTP,
which has no namespace. No namespace holds a colon, so the two never meet. This module and the SQL function
`vouchers.key_namespace` (migrations/0025) are the only places that read this text; a test holds them together.
"""

from enum import StrEnum
from typing import Final, Self

_HTTP: Final = "http:"


class Origin(StrEnum):
    """Which door a request came through."""

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
        """Return the key of a request over HTTP; `name` is unique among those."""
        return cls(f"{_HTTP}{name}")

    @property
    def origin(self) -> Origin:
        """Which door it came through."""
        return Origin.HTTP if self.startswith(_HTTP) else Origin.REDEMPTION

    @property
    def namespace(self) -> str | None:
        """The namespace of the Redemption; None over HTTP."""
        return None if self.origin is Origin.HTTP else self.partition("/")[0]

    @property
    def name(self) -> str:
        """The name, unique in the namespace or among requests over HTTP."""
        return self.removeprefix(_HTTP) if self.origin is Origin.HTTP else self.partition("/")[2]
