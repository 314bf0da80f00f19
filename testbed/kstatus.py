"""How Flux and `kubectl wait` read a resource: kstatus, as far as conditions go.

See also: `resources.conditions` writes them.
"""

from collections.abc import Mapping
from typing import Any, Literal

from voucher_operator.resources.conditions import READY, RECONCILING, STALLED

KStatus = Literal["InProgress", "Failed", "Current"]


def kstatus(body: Mapping[str, Any]) -> KStatus:
    """Read a resource as kstatus does (deletion aside): by generation, Reconciling, Stalled, Ready, in this order."""
    status = body.get("status") or {}
    generation = body["metadata"].get("generation")
    statuses = {one["type"]: one["status"] for one in status.get("conditions", ())}
    if status.get("observedGeneration", generation) != generation or statuses.get(RECONCILING) == "True":
        return "InProgress"
    if statuses.get(STALLED) == "True":
        return "Failed"
    return "Current" if statuses.get(READY, "True") == "True" else "InProgress"
