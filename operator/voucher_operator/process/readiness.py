"""The checks behind /readyz: whether this replica can use the ledger, the API server and the CRDs now.

See also: `process.run` has the parts that are checked; `web.probes` asks.
"""

from voucher_operator import telemetry
from voucher_operator.kube.crd_check import CRDCheck
from voucher_operator.ledger.api import Ledger
from voucher_operator.ledger.errors import is_outage
from voucher_operator.resources.errors import ApiError, LedgerUnavailableError


async def problems(ledger: Ledger, crd_check: CRDCheck) -> dict[str, str]:
    """Return why this replica is not ready: part -> one line. Empty when it is ready."""
    found = {}
    if (fault := await _ledger_fault(ledger)) is not None:
        found["ledger"] = fault
    try:
        if (of_crds := await crd_check.fault()) is not None:
            found["resources"] = of_crds.message
    except ApiError as error:
        found["api"] = str(error)
    return found


async def _ledger_fault(ledger: Ledger) -> str | None:
    """Check the ledger, and set its metric: to 0 also when the check raises an error that nobody expects."""
    up = False
    try:
        await ledger.check()
        up = True
    except LedgerUnavailableError as error:
        up = not is_outage(error)
        return None if up else error.message
    finally:
        telemetry.LEDGER_UP.set(up)
    return None
