"""Writes the status of a resource: only when it differs, and only to the object from which it was computed.

See also: all controllers write through it; `client` sends the patch; `cache` is refreshed after a conflict.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from voucher_operator import telemetry
from voucher_operator.kube.cache import Cache, slim
from voucher_operator.kube.client import Body, KubeApi
from voucher_operator.kube.errors import ConflictError, NotFoundError, ResponseError
from voucher_operator.kube.kinds import ResourceKind
from voucher_operator.resources import conditions
from voucher_operator.resources.errors import ApiUnavailableError, InvalidSpecError

Report = Callable[[], None]
"""Called once the status is written: posts the Event that belongs to it, and counts it."""


@dataclass(frozen=True, slots=True)
class _Unconfirmed:
    """A patch that was sent, and whose response was lost."""

    body: Body
    patch: Mapping[str, Any]
    report: Report


class StatusWriter:
    """Writes the status of one kind."""

    def __init__(self, api: KubeApi, kind: ResourceKind, cache: Cache) -> None:
        self._kube = api
        self._kind = kind
        self._cache = cache
        self._unconfirmed: dict[str, _Unconfirmed] = {}

    async def write(self, key: str, body: Body, patch: Mapping[str, Any], report: Report | None = None) -> bool:
        """Merge `patch` into the status; False when the object was changed or deleted meanwhile: reconcile it again.

        `report` is called once the status is written; it is not called when the status was equal before.
        Raises ApiUnavailableError when the API server did not respond; the patch may be applied, see `confirm`.
        Raises ForbiddenError and InvalidError when the patch is refused, NotFoundError when the object is there and its
        CRD has no subresource for the status.
        """
        if not is_news(body, patch):
            return not self._has_changed(key, body)
        try:
            await self._kube.patch_status(self._kind, body, patch)
        except (ConflictError, NotFoundError) as error:
            if await self._refresh(body) and isinstance(error, NotFoundError):
                raise
            return False
        except ApiUnavailableError:
            if report is not None:
                self._unconfirmed[key] = _Unconfirmed(body, patch, report)
            raise
        telemetry.STATUS_WRITES.labels(self._kind.kind).inc()
        if report is not None:
            report()
        return True

    async def confirm(self, key: str) -> None:
        """Report a patch that was applied although its response was lost; call it before the object is reconciled.

        Without this nobody would report it: the next reconcile finds an equal status. Raises ApiUnavailableError.
        """
        if (sent := self._unconfirmed.get(key)) is None:
            return
        try:
            live = await self._live(sent.body)
        except ResponseError:
            live = None  # not readable
        if self._unconfirmed.pop(key, None) is not sent:
            return  # another caller has reported it
        if live is None or live["metadata"]["uid"] != sent.body["metadata"]["uid"]:
            return
        if not is_news(slim(live), sent.patch):
            sent.report()

    async def write_invalid(self, key: str, body: Body, error: InvalidSpecError, owned: frozenset[str]) -> bool:
        """Write conditions that say that this version cannot read the spec; otherwise as `write`."""
        generation = body["metadata"]["generation"]
        wanted = conditions.stalled(error.reason, error.message, generation=generation)
        previous = body["status"].get("conditions", [])
        merged = conditions.merge(previous, wanted, owned=owned, now=datetime.now(UTC))
        return await self.write(key, body, {"observedGeneration": generation, "conditions": merged})

    def _has_changed(self, key: str, body: Body) -> bool:
        """Whether the watch delivered another status while this one was computed: that one may need this patch."""
        known = self._cache.get(key)
        return known is not None and known["metadata"]["resourceVersion"] != body["metadata"]["resourceVersion"]

    async def _refresh(self, body: Body) -> bool:
        """Read the live object: the cached one is older, or is another object of this name. True when it is neither."""
        live = await self._live(body)
        if live is None:
            self._cache.drop_object(body)
            return False
        self._cache.read(live)
        return bool(live["metadata"]["resourceVersion"] == body["metadata"]["resourceVersion"])

    async def _live(self, body: Body) -> Body | None:
        return await self._kube.get(self._kind, body["metadata"]["namespace"], body["metadata"]["name"])


def is_news(body: Body, patch: Mapping[str, Any]) -> bool:
    """Whether merging `patch` into the status would change it."""
    return any(body["status"].get(name) != value for name, value in patch.items())
