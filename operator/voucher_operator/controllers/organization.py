"""The Organization that a completed order pays for: created, or taken as it is when it is there, and never deleted.

Its CRD belongs to the platform and may be absent, be of either scope, and want other fields than we know: where it is
absent the event order.placed is the hand-over, and what is refused is said and tried again. See also: `orders` asks
for it, `purchases` for an order whose Redemption is gone; `purchase_status` says how it stands.
"""

import asyncio
from dataclasses import dataclass
from typing import Any, Final

from voucher_operator.failpoints import Step, failpoint
from voucher_operator.kube.client import Body, KubeApi
from voucher_operator.kube.errors import (
    ConflictError,
    ForbiddenError,
    InvalidError,
    NamespaceTerminatingError,
    NotFoundError,
    ResponseError,
)
from voucher_operator.ledger.purchase.types import Purchase
from voucher_operator.resources.conditions import READY
from voucher_operator.resources.errors import ApiError
from voucher_operator.resources.reasons import Reason

API_VERSION: Final = "catalyst.openova.io/v1alpha1"
PLURAL: Final = "organizations"
ORDER: Final = "billing.openova.io/order-id"
TENANT: Final = "billing.openova.io/tenant-id"
REDEMPTION: Final = "billing.openova.io/redemption"


@dataclass(frozen=True, slots=True)
class OrganizationStatus:
    """How an Organization stands: `ready` None is unknown; `settled`: nothing more is to be done for it here."""

    ready: bool | None
    settled: bool
    reason: Reason
    message: str
    stuck: bool = False
    """Somebody has to do something first; it is looked at again all the same."""


HANDED_OVER: Final = OrganizationStatus(
    None, True, Reason.HANDED_OVER, "Handed over by the event order.placed: the operator makes no Organizations here."
)


class Organizations:
    """Organizations of one cluster; `keep` is for how many seconds the presence of their CRD is taken as known.

    Without `wanted` every order is handed over by its event, whatever the cluster has.
    """

    def __init__(self, api: KubeApi, keep: float, *, wanted: bool = True) -> None:
        self._kube = api
        self._keep = keep
        self._wanted = wanted
        self._known: tuple[float, Body | None] | None = None

    async def ensure(self, purchase: Purchase) -> OrganizationStatus:
        """Create the Organization of a completed order, or take the one that is there; say how it stands.

        Idempotent. A failure is an OrganizationStatus, too: it is reported beside the payment, and retried.
        """
        try:
            try:
                return await self._ensure(purchase)
            except (ConflictError, NotFoundError):
                # Somebody else has just created it, or the CRD has just gone: both are seen when it is read again.
                self._known = None
                return await self._ensure(purchase)
        except (ForbiddenError, InvalidError) as error:
            return _refused(purchase, error)
        except ApiError as error:
            message = (
                f"Organization {purchase.subdomain} cannot be made yet: {_why(purchase, error)}. It is tried again."
            )
            return OrganizationStatus(None, False, Reason.ORGANIZATION_NOT_READY, message)

    async def _ensure(self, purchase: Purchase) -> OrganizationStatus:
        served = await self._served()
        if served is None:
            return HANDED_OVER
        return _standing(purchase, await self._live(purchase, served))

    async def is_taken(self, namespace: str | None, name: str, tenant_id: str) -> bool:
        """Whether an Organization of another tenant has this name; no, when that cannot be seen.

        An order of `namespace` asks before it takes anything: `ensure` can only say so when it is paid.
        """
        try:
            served = await self._served()
            live = None if served is None else await self._kube.read(f"{_collection(namespace, served)}/{name}")
        except ApiError:
            return False
        return live is not None and _tenant(live) != tenant_id

    async def _served(self) -> Body | None:
        if not self._wanted:
            return None
        now = asyncio.get_running_loop().time()
        if self._known is None or now >= self._known[0]:
            self._known = (now + self._keep, await self._kube.resource(API_VERSION, PLURAL))
        return self._known[1]

    async def _live(self, purchase: Purchase, served: Body) -> Body:
        """Read it or create it; raises ApiError."""
        where = _collection(purchase.key.namespace, served)
        live = await self._kube.read(f"{where}/{purchase.subdomain}")
        if live is None:
            async with failpoint(Step.ORGANIZATION):
                live = await self._kube.create(where, _body(purchase))
        return live


def _collection(namespace: str | None, served: Body) -> str:
    return f"/apis/{API_VERSION}/{f'namespaces/{namespace}/' if served['namespaced'] else ''}{PLURAL}"


def _tenant(live: Body) -> str:
    """Say whose it is: as we have noted, as its spec says, or else as it is called. Nobody's is nobody's to take."""
    noted = (live["metadata"].get("annotations") or {}).get(TENANT)
    return str(noted or (live.get("spec") or {}).get("tenantID") or live["metadata"]["name"])


def _body(purchase: Purchase) -> Body:
    return {
        "apiVersion": API_VERSION,
        "kind": "Organization",
        "metadata": {
            "name": purchase.subdomain,
            "labels": {"app.kubernetes.io/managed-by": "voucher-operator", ORDER: purchase.order_id},
            "annotations": {TENANT: purchase.tenant_id, REDEMPTION: purchase.key},
        },
        "spec": {
            "slug": purchase.subdomain,
            "tenantID": purchase.tenant_id,
            "owner": {"userID": purchase.user_id, "email": purchase.email},
            "planID": purchase.plan_id,
            "apps": list(purchase.apps),
            "addons": list(purchase.addons),
        },
    }


def _standing(purchase: Purchase, live: Body) -> OrganizationStatus:
    name, metadata = purchase.subdomain, live["metadata"]
    if _tenant(live) != purchase.tenant_id:
        message = (
            f"Organization {name} belongs to another tenant: the sovereign-admin has to remove it, to give it to this "
            f"tenant by the annotation {TENANT}, or to refund the order."
        )
        return OrganizationStatus(False, False, Reason.ORGANIZATION_REFUSED, message, stuck=True)
    ready = _ready(live)
    if ready.get("status") == "True" and "deletionTimestamp" not in metadata:
        return OrganizationStatus(True, True, Reason.ORGANIZATION_CREATED, f"Organization {name} is ready.")
    said = f" ({ready['reason']})" if ready.get("reason") else ""
    message = f"Organization {name} is not ready yet{said}: look at its conditions."
    return OrganizationStatus(
        None if ready.get("status") == "Unknown" else False, False, Reason.ORGANIZATION_NOT_READY, message
    )


def _ready(live: Body) -> dict[str, Any]:
    """Return its condition Ready, if it speaks of the present spec."""
    status = live.get("status") or {}
    if status.get("observedGeneration", live["metadata"].get("generation")) != live["metadata"].get("generation"):
        return {}
    return next((one for one in status.get("conditions") or () if one.get("type") == READY), {})


def _why(purchase: Purchase, error: ApiError) -> str:
    namespace = purchase.key.split("/")[0]
    match error:
        case NamespaceTerminatingError():
            return f"namespace {namespace} is being deleted"
        case NotFoundError():
            return f"namespace {namespace} does not exist"
        case ConflictError():
            return "it is created and deleted at the same time"
        case _:
            return str(error)


def _refused(purchase: Purchase, error: ResponseError) -> OrganizationStatus:
    message = f"Organization {purchase.subdomain} was refused: {error.detail or error}"
    return OrganizationStatus(False, False, Reason.ORGANIZATION_REFUSED, message)
