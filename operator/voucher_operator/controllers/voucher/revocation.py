"""Revokes the codes of deleted Vouchers before their finalizers are removed; without a ledger only for some time.

Two callers remove finalizers: kopf's delete handler, and `release_all` where kopf does not watch: it serves no resource
whose CRD is being deleted, and that CRD stays until the last finalizer is removed.
See also: `controller` revokes; `controllers.watch` has the handler; `process.crds` calls `release_all`.
"""

import asyncio
import logging
import time
from collections.abc import Iterable
from typing import Final

from voucher_operator.controllers.kinds import VOUCHER
from voucher_operator.controllers.voucher.controller import FINALIZER, VoucherController
from voucher_operator.kube.cache import key_of
from voucher_operator.kube.client import Body, KubeApi
from voucher_operator.kube.errors import NotFoundError
from voucher_operator.resources.errors import ApiError, TransientError

log = logging.getLogger(__name__)

_AT_ONCE: Final = 8
_ABANDONED: Final = 3600.0
"""Seconds without an attempt after which a failure is forgotten: the Voucher was deleted in another way. It is much
longer than one attempt for each of many thousands takes."""


class Revocations:
    """Remembers since when revocations fail, as long as the process lives: a new term as leader does not begin anew."""

    def __init__(self, timeout: float) -> None:
        """After `timeout` seconds without a ledger a finalizer is removed before the code is revoked."""
        self._timeout = timeout
        self._failing: dict[str, tuple[float, float]] = {}
        """By uid: when its first and its last attempt failed; the last attempts are in order."""

    async def revoke(self, vouchers: VoucherController, body: Body) -> None:
        """Revoke the code; then the finalizer can be removed. Raises TransientError and ApiError: try again.

        Without a ledger it returns after the time limit; the resync revokes the code later.
        """
        uid = body["metadata"]["uid"]
        try:
            await vouchers.revoke(body)
        except TransientError as error:
            if self._failing_for(uid) < self._timeout:
                raise
            vouchers.release_finalizer(body, error)
        self._failing.pop(uid, None)

    def _failing_for(self, uid: str) -> float:
        now = time.monotonic()
        since, _ = self._failing.pop(uid, (now, now))
        self._failing[uid] = (since, now)
        # Never by their number: one that is forgotten while it is tried again would begin anew, and never end.
        while self._failing[oldest := next(iter(self._failing))][1] < now - _ABANDONED:
            del self._failing[oldest]
        return now - since

    async def release_all(self, vouchers: VoucherController, api: KubeApi, namespaces: Iterable[str]) -> None:
        """Revoke the codes of all Vouchers whose deletion has begun, and remove their finalizers.

        One that fails is left to the next call, and a namespace that cannot be listed does not stop the others.
        """
        for namespace in namespaces:
            try:
                async for page in api.pages(VOUCHER, namespace):
                    waiting = [body for body in page if _waits(body)]
                    for start in range(0, len(waiting), _AT_ONCE):
                        some = waiting[start : start + _AT_ONCE]
                        await asyncio.gather(*(self._release(vouchers, api, body) for body in some))
            except ApiError as error:
                _will_retry("namespace", namespace, error)

    async def _release(self, vouchers: VoucherController, api: KubeApi, body: Body) -> None:
        try:
            await self.revoke(vouchers, body)
            await api.remove_finalizer(VOUCHER, body, FINALIZER)
        except NotFoundError:
            return
        except (ApiError, TransientError) as error:
            _will_retry("Voucher", key_of(body), error)


def _waits(body: Body) -> bool:
    metadata = body["metadata"]
    return "deletionTimestamp" in metadata and FINALIZER in metadata.get("finalizers", ())


def _will_retry(resource: str, key: str, error: Exception) -> None:
    log.info("will retry", extra={"resource": resource, "key": key, "reason": str(error)})
