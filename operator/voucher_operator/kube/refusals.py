"""Logs which calls the API server refuses, once for each kind of call, and not those of a server that has just started.

See also: `client` makes the calls; `errors` tells a missing permission from a denial of admission control.
"""

import logging
import time
from dataclasses import dataclass
from typing import Final

from voucher_operator.kube.errors import ForbiddenError, is_authorization, permission
from voucher_operator.resources.errors import ApiError

log = logging.getLogger(__name__)

_UNAUTHORIZED: Final = 401
_REFUSED_FOR_LONG: Final = 10.0
"""Seconds after which a refused call is logged: an API server that has just started refuses all before it has read its
Roles."""
_FORGOTTEN_AFTER: Final = 300.0
"""Seconds without a refusal after which the next one is a new one."""


@dataclass(slots=True)
class _Refusal:
    """Since when calls of a kind are refused, when last, and of which object; None: of all."""

    since: float
    last: float
    path: str | None


class RefusalLog:
    """One for each client."""

    def __init__(self) -> None:
        self._refused: dict[tuple[str, str], _Refusal] = {}
        self._reported: set[tuple[str, str]] = set()

    def refused(self, method: str, path: str, status: int, error: ApiError) -> None:
        """Log that a call is not allowed, and which permission is missing, if it is refused for some time already."""
        call = (method, _collection(path))
        # A permission is for all objects of a kind; admission control decides on each of them.
        by_admission = isinstance(error, ForbiddenError) and not is_authorization(error)
        is_refusal = status == _UNAUTHORIZED or isinstance(error, ForbiddenError)
        if not is_refusal or not self._is_refused_for_long(call, path if by_admission else None):
            return
        self._reported.add(call)
        extra = {"key": " ".join(call), "reason": f"{error}"}
        if not isinstance(error, ForbiddenError):
            log.warning("the API server refuses a call: it rejects the operator's token", extra=extra)
        elif is_authorization(error):
            log.warning("the API server refuses a call: missing permission: %s", permission(method, path), extra=extra)
        else:
            log.warning("the API server refuses a call: admission control denies it", extra=extra)

    def accepted(self, method: str, path: str) -> None:
        """Record that a call was accepted: it is not refused any more."""
        if not self._refused:
            return
        call = (method, _collection(path))
        if (refusal := self._refused.get(call)) is not None and refusal.path in (None, path):
            del self._refused[call]
            self._reported.discard(call)

    def _is_refused_for_long(self, call: tuple[str, str], path: str | None) -> bool:
        """Whether to log that a call is refused: it was refused some time ago, too, and that is not logged yet."""
        now = time.monotonic()
        refusal = self._refused.get(call)
        if refusal is None or now - refusal.last > _FORGOTTEN_AFTER:
            self._reported.discard(call)
            refusal = self._refused[call] = _Refusal(now, now, path)
        refusal.last = now
        return now - refusal.since >= _REFUSED_FOR_LONG and call not in self._reported


def _collection(path: str) -> str:
    """Return the collection's part of a path: `/apis/<group>/<version>/namespaces/<namespace>/<resource>`."""
    parts = path.split("/")
    return "/".join(parts[: (7 if "namespaces" in parts else 5) - path.startswith("/api/")])
