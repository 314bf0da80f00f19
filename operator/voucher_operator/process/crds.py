"""Waits until the CRDs can be used, and says when they no longer can: kopf looks for its resources only once.

While a CRD is being deleted kopf watches nothing of it, and the deletion waits for the finalizers of its Vouchers: they
are removed here. See also: `kube.crd_check` finds the faults; `run` starts and stops the controllers.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from voucher_operator.kube.crd_check import CRDCheck, CRDFault
from voucher_operator.resources.errors import ApiError

log = logging.getLogger(__name__)

_PAUSE: Final = 2.0
_INTERVAL: Final = 3.0
_UNKNOWN: Final = CRDFault("The API server is unavailable.")


async def wait_until_served(check: CRDCheck, release_vouchers: Callable[[], Awaitable[None]]) -> None:
    """Wait until the controllers can use the CRDs; meanwhile log why not, and release Vouchers that are deleted."""
    logged: str | None = None
    while (fault := await _fault(check)) is not None:
        if fault.message != logged:
            _log("waiting for the CRDs: %s", fault)
        logged = fault.message
        if fault.terminating:
            await release_vouchers()
        await asyncio.sleep(_PAUSE)
    check.use()


async def watch_until_fault(check: CRDCheck) -> None:
    """End when the CRDs have a fault, at the second look: an API server that starts does not know them at once."""
    faults = 0
    while faults < 2:
        await asyncio.sleep(_INTERVAL)
        faults = faults + 1 if await _fault(check) not in (None, _UNKNOWN) else 0


async def log_fault(check: CRDCheck) -> bool:
    """Log the fault of the CRDs that stops the controllers; False when there is none, or it cannot be known."""
    fault = await _fault(check)
    if fault is None or fault is _UNKNOWN:
        return False
    _log("stopping the controllers: %s", fault)
    return True


async def _fault(check: CRDCheck) -> CRDFault | None:
    try:
        return await check.fault()
    except ApiError:
        return _UNKNOWN


def _log(text: str, fault: CRDFault) -> None:
    extra = {"resource": "crd", "key": "billing.openova.io", "reason": "NotServed"}
    log.warning(text, fault.message, extra=extra)
