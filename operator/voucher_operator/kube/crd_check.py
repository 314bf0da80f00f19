"""Whether the CRDs in the cluster are there, and no older than this version of the operator.

An older CRD drops from a status what it does not know, without a word, and refuses a watch by a field that it cannot
select by. Asked of the API server's description of itself, which every account may read, as no right to CRDs is
needed for that. See also: `kube` asks; `process.run` does not start to work on such a cluster, and is not ready.
"""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from pydantic import BaseModel

from voucher_operator.kube.client import KubeApi
from voucher_operator.kube.kinds import ResourceKind
from voucher_operator.resources.errors import ApiError

_KEPT: Final = 30.0
"""Seconds for which CRDs that were right are taken to be right."""


@dataclass(frozen=True, slots=True)
class ExpectedCRD:
    """What this version needs of a CRD: the fields of each part (`spec`, `status`), and the selectable fields."""

    parts: Mapping[str, type[BaseModel]]
    selectable: tuple[str, ...] = ()


class CRDCheck:
    """The CRDs of one cluster; all of one group and version."""

    def __init__(self, api: KubeApi, expected: Mapping[ResourceKind, ExpectedCRD]) -> None:
        self._kube = api
        self._expected = expected
        self._api_version = next(iter(expected)).api_version
        self._right_until = 0.0

    async def fault(self) -> str | None:
        """Return in one line what is wrong with the CRDs, None when nothing is; raises ApiError."""
        if absent := [kind.plural for kind in self._expected if not await self._is_served(kind)]:
            return f"The CRDs {' and '.join(absent)} of {self._api_version} are not installed: apply them."
        if time.monotonic() < self._right_until:
            return None
        if missing := list(missing_fields(self._expected, await self._schemas())):
            return f"The CRDs are older than the operator: {', '.join(missing)} missing. Apply those of its version."
        self._right_until = time.monotonic() + _KEPT
        return None

    async def _is_served(self, kind: ResourceKind) -> bool:
        return await self._kube.resource(kind.api_version, kind.plural) is not None

    async def _schemas(self) -> Mapping[str, Any]:
        """Nothing when there is no description: for a moment after the CRDs, or for want of a right."""
        try:
            schemas: dict[str, Any] = (await self._kube.description(self._api_version))["components"]["schemas"]
        except (ApiError, KeyError):
            return {}
        return schemas


def missing_fields(expected: Mapping[ResourceKind, ExpectedCRD], schemas: Mapping[str, Any]) -> Iterator[str]:
    """Yield each field that this version reads, writes or selects by and that the CRDs do not have."""
    kinds = {(kind.group, kind.version, kind.kind): crd for kind, crd in expected.items()}
    for schema in schemas.values():
        for one in schema.get("x-kubernetes-group-version-kind", ()):
            if (crd := kinds.get((one["group"], one["version"], one["kind"]))) is not None:
                yield from _missing(one["kind"], crd, schema)


def _missing(kind: str, crd: ExpectedCRD, schema: Mapping[str, Any]) -> Iterator[str]:
    for part, model in crd.parts.items():
        there = schema.get("properties", {}).get(part, {}).get("properties", {})
        wanted = (field.alias or name for name, field in model.model_fields.items())
        yield from (f"{kind}.{part}.{name}" for name in wanted if name not in there)
    selectable = {field["fieldPath"].lstrip(".") for field in schema.get("x-kubernetes-selectable-fields", ())}
    yield from (f"selectable field {kind}.{path}" for path in crd.selectable if path not in selectable)
