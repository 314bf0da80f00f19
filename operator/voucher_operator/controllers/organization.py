"""The Organization of a completed order: created, or used unchanged when it exists; never deleted.

Its CRD belongs to the platform. It may be absent, may be namespaced or cluster-scoped, and may require other fields
than those known here. Where it is absent the event order.placed delegates the Organization to the platform; when it is
refused, the condition says so and the operator retries. See also: `purchase.controller` calls it,
`purchase.periodic` for an order whose Redemption was deleted; `purchase.status` writes the condition.
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
    """The state of an Organization: `ready` None is unknown; `settled`: nothing is left to do for it here."""

    ready: bool | None
    settled: bool
    reason: Reason
    message: str
    stalled: bool = False
    """A person must act first; the operator still checks it again."""


DELEGATED: Final = OrganizationStatus(
    None,
    True,
    Reason.DELEGATED,
    "The event order.placed requests the Organization: the operator creates no Organizations in this cluster.",
)


class Organizations:
    """Organizations of one cluster; the presence of their CRD is checked again after `keep` seconds.

    With `wanted` False every order is delegated to the platform by its event, also where the CRD exists.
    """

    def __init__(self, api: KubeApi, keep: float, *, namespace: str, wanted: bool = True) -> None:
        """`namespace` is that of the Organizations of orders over HTTP, which come from none."""
        self._namespace = namespace
        self._kube = api
        self._keep = keep
        self._wanted = wanted
        self._known: tuple[float, Body | None] | None = None

    async def ensure(self, purchase: Purchase) -> OrganizationStatus:
        """Create the Organization of a completed order, or read the existing one; return its state.

        Idempotent. A failure is also an OrganizationStatus: it is reported beside the payment, and retried.
        """
        try:
            try:
                return await self._ensure(purchase)
            except (ConflictError, NotFoundError):
                # It was created, or the CRD was deleted, at the same time: the next read shows which.
                self._known = None
                return await self._ensure(purchase)
        except (ForbiddenError, InvalidError) as error:
            return _refused(purchase, error)
        except ApiError as error:
            cause = _cause(purchase.key.namespace or self._namespace, error)
            message = f"Organization {purchase.subdomain} cannot be created: {cause}. This is retried."
            return OrganizationStatus(None, False, Reason.ORGANIZATION_NOT_READY, message)

    async def _ensure(self, purchase: Purchase) -> OrganizationStatus:
        served = await self._served()
        if served is None:
            return DELEGATED
        return _status(purchase, await self._live(purchase, served))

    async def is_taken(self, namespace: str | None, name: str, tenant_id: str) -> bool:
        """Whether an Organization of another tenant has this name; False when that cannot be read.

        An order of `namespace` asks this before it is placed: `ensure` could only report it after the payment.
        """
        try:
            served = await self._served()
            live = None if served is None else await self._kube.read(f"{self._collection(namespace, served)}/{name}")
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
        """Read the Organization, or create it; raises ApiError."""
        where = self._collection(purchase.key.namespace, served)
        live = await self._kube.read(f"{where}/{purchase.subdomain}")
        if live is None:
            async with failpoint(Step.ORGANIZATION):
                live = await self._kube.create(where, _body(purchase))
        return live

    def _collection(self, namespace: str | None, served: Body) -> str:
        scope = f"namespaces/{namespace or self._namespace}/" if served["namespaced"] else ""
        return f"/apis/{API_VERSION}/{scope}{PLURAL}"


def _tenant(live: Body) -> str:
    """Return its tenant: from our annotation, else from its spec, else its name."""
    annotated = (live["metadata"].get("annotations") or {}).get(TENANT)
    return str(annotated or (live.get("spec") or {}).get("tenantID") or live["metadata"]["name"])


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


def _status(purchase: Purchase, live: Body) -> OrganizationStatus:
    name, metadata = purchase.subdomain, live["metadata"]
    if _tenant(live) != purchase.tenant_id:
        message = (
            f"Organization {name} belongs to another tenant: the sovereign-admin must delete it, assign it to this "
            f"tenant by the annotation {TENANT}, or refund the order."
        )
        return OrganizationStatus(False, False, Reason.ORGANIZATION_REFUSED, message, stalled=True)
    ready = _ready(live)
    if ready.get("status") == "True" and "deletionTimestamp" not in metadata:
        return OrganizationStatus(True, True, Reason.ORGANIZATION_CREATED, f"Organization {name} is ready.")
    cause = f" ({ready['reason']})" if ready.get("reason") else ""
    message = f"Organization {name} is not ready yet{cause}: see its conditions."
    return OrganizationStatus(
        None if ready.get("status") == "Unknown" else False, False, Reason.ORGANIZATION_NOT_READY, message
    )


def _ready(live: Body) -> dict[str, Any]:
    """Return its condition Ready, if it was observed for the current generation; else an empty dict."""
    status = live.get("status") or {}
    if status.get("observedGeneration", live["metadata"].get("generation")) != live["metadata"].get("generation"):
        return {}
    return next((one for one in status.get("conditions") or () if one.get("type") == READY), {})


def _cause(namespace: str, error: ApiError) -> str:
    match error:
        case NamespaceTerminatingError():
            return f"namespace {namespace} is being deleted"
        case NotFoundError():
            return f"namespace {namespace} does not exist"
        case ConflictError():
            return "it is being created and deleted at the same time"
        case _:
            return str(error)


def _refused(purchase: Purchase, error: ResponseError) -> OrganizationStatus:
    message = f"Organization {purchase.subdomain} was refused: {error.detail or error}"
    return OrganizationStatus(False, False, Reason.ORGANIZATION_REFUSED, message)
