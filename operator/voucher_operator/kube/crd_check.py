"""Whether the CRDs in the cluster are there, and no older than this version of the operator.

An older CRD drops from a status what it does not know, without a word, and refuses a watch by a field that it cannot
select by. Asked of the API server's description of itself, which every account may read, as no right to CRDs is
needed for that. See also: `kube` asks; `process.run` does not start to work on such a cluster, and is not ready.
"""

import time
from collections.abc import Iterator, Mapping
from typing import Any

from voucher_operator.kube import client as kube
from voucher_operator.kube.client import KubeApi
from voucher_operator.resources.base import Model
from voucher_operator.resources.errors import ApiError
from voucher_operator.resources.redemption import RedemptionSpec, RedemptionStatus
from voucher_operator.resources.voucher import VoucherSpec, VoucherStatus

_KEPT = 30.0
"""Seconds for which CRDs that were right are taken to be right."""
_ABSENT = "The CRDs vouchers and redemptions of billing.openova.io are not installed."
_PARTS: Mapping[str, Mapping[str, type[Model]]] = {
    "Voucher": {"spec": VoucherSpec, "status": VoucherStatus},
    "Redemption": {"spec": RedemptionSpec, "status": RedemptionStatus},
}
_SELECTED = {"Voucher": (), "Redemption": ("status.finished", "status.state", "spec.ttlSecondsAfterFinished")}


class CRDCheck:
    """The CRDs of one cluster."""

    def __init__(self, api: KubeApi) -> None:
        self._kube = api
        self._right_until = 0.0

    async def fault(self) -> str | None:
        """Return in one line what is wrong with the CRDs, None when nothing is; raises ApiError."""
        if not await self._kube.served():
            return _ABSENT
        if time.monotonic() < self._right_until:
            return None
        if lacking := list(lacks(await self._schemas())):
            return f"The CRDs are older than the operator: {', '.join(lacking)} missing. Apply those of its version."
        self._right_until = time.monotonic() + _KEPT
        return None

    async def _schemas(self) -> Mapping[str, Any]:
        """Nothing when there is no description: for a moment after the CRDs, or for want of a right."""
        try:
            schemas: dict[str, Any] = (await self._kube.description())["components"]["schemas"]
        except (ApiError, KeyError):
            return {}
        return schemas


def lacks(schemas: Mapping[str, Any]) -> Iterator[str]:
    """Yield each field that this version reads, writes or selects by and that the CRDs do not have."""
    for schema in schemas.values():
        for one in schema.get("x-kubernetes-group-version-kind", ()):
            if (one["group"], one["version"]) == (kube.GROUP, kube.VERSION) and one["kind"] in _PARTS:
                yield from _lacks(one["kind"], schema)


def _lacks(kind: str, schema: Mapping[str, Any]) -> Iterator[str]:
    for part, model in _PARTS[kind].items():
        there = schema.get("properties", {}).get(part, {}).get("properties", {})
        wanted = (field.alias or name for name, field in model.model_fields.items())
        yield from (f"{kind}.{part}.{name}" for name in wanted if name not in there)
    selectable = {field["fieldPath"].lstrip(".") for field in schema.get("x-kubernetes-selectable-fields", ())}
    yield from (f"selectable field {kind}.{path}" for path in _SELECTED[kind] if path not in selectable)
