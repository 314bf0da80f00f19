"""Gives kopf no memory of its attempts: what a resource says in `status.kopf` is never believed.

kopf would read there whether, since when and how often a deleted Voucher was handled: text in place of a time would
make each attempt fail, and `success: true` would remove the finalizer with the code still valid. Each event is handled
from the beginning instead. Between two attempts kopf writes a field that only causes the next event.
See also: `watch` uses it; `voucher.revocation` counts the time of failures.
"""

from collections.abc import Mapping
from typing import Any, Final

import kopf

_FIELD: Final = "kopf"
_TOUCHED: Final = "dummy"


class NoProgress(kopf.ProgressStorage):
    """Stores no progress, and removes what is in `status.kopf`."""

    def fetch(self, *, key: Any, body: kopf.Body) -> None:
        """Return nothing: the handler has not been called."""

    def store(self, *, key: Any, record: Any, body: kopf.Body, patch: kopf.Patch) -> None:
        """Store nothing."""

    def purge(self, *, key: Any, body: kopf.Body, patch: kopf.Patch) -> None:  # noqa: ARG002 - kopf's signature
        """Remove the whole field, whoever wrote it."""
        self.touch(body=body, patch=patch, value=None)

    def touch(self, *, body: kopf.Body, patch: kopf.Patch, value: str | None) -> None:
        """Change the object, so that the next event comes; with None remove the whole field."""
        present = body.get("status", {}).get(_FIELD)
        if value is not None:
            others = dict.fromkeys(present) if isinstance(present, Mapping) else {}
            patch.status[_FIELD] = others | {_TOUCHED: value}
        elif present is not None:
            patch.status[_FIELD] = None

    def clear(self, *, essence: Any) -> Any:
        """Return what `GenerationMark` built: it has no status."""
        return essence
