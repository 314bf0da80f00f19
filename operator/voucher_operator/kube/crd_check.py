"""Checks that the CRDs are installed and not older than this version of the operator.

With an older CRD the API server drops unknown fields of a status without an error, and refuses a watch by a field that
is not selectable. The check reads the API server's OpenAPI document, which every account may read; it needs no
permission on CRDs. See also: `client`; `process.run` starts no controller and reports not ready while the check fails.
"""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from pydantic import BaseModel

from voucher_operator.kube.client import KubeApi
from voucher_operator.kube.kinds import ResourceKind
from voucher_operator.resources.errors import ApiError

_VALID_SECONDS: Final = 30.0
"""How long a successful check is reused."""


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
        self._valid_until = 0.0

    async def fault(self) -> str | None:
        """Return one line that says what is wrong with the CRDs, or None; raises ApiError."""
        if absent := [kind.plural for kind in self._expected if not await self._is_served(kind)]:
            return f"The CRDs {' and '.join(absent)} of {self._api_version} are not installed: apply them."
        if time.monotonic() < self._valid_until:
            return None
        if missing := list(missing_fields(self._expected, await self._schemas())):
            return f"The CRDs are older than the operator: {', '.join(missing)} missing. Apply those of its version."
        self._valid_until = time.monotonic() + _VALID_SECONDS
        return None

    async def _is_served(self, kind: ResourceKind) -> bool:
        return await self._kube.resource(kind.api_version, kind.plural) is not None

    async def _schemas(self) -> Mapping[str, Any]:
        """Read the schemas; empty when there is no document: just after the CRDs are applied, or without permission."""
        try:
            schemas: dict[str, Any] = (await self._kube.description(self._api_version))["components"]["schemas"]
        except (ApiError, KeyError):
            return {}
        return schemas


def missing_fields(expected: Mapping[ResourceKind, ExpectedCRD], schemas: Mapping[str, Any]) -> Iterator[str]:
    """Yield each field that this version reads, writes or selects by, and that the CRDs do not have."""
    kinds = {(kind.group, kind.version, kind.kind): crd for kind, crd in expected.items()}
    for schema in schemas.values():
        for one in schema.get("x-kubernetes-group-version-kind", ()):
            if (crd := kinds.get((one["group"], one["version"], one["kind"]))) is not None:
                yield from _missing(one["kind"], crd, schema)


def _missing(kind: str, crd: ExpectedCRD, schema: Mapping[str, Any]) -> Iterator[str]:
    for part, model in crd.parts.items():
        present = schema.get("properties", {}).get(part, {}).get("properties", {})
        wanted = (field.alias or name for name, field in model.model_fields.items())
        yield from (f"{kind}.{part}.{name}" for name in wanted if name not in present)
    selectable = {field["fieldPath"].lstrip(".") for field in schema.get("x-kubernetes-selectable-fields", ())}
    yield from (f"selectable field {kind}.{path}" for path in crd.selectable if path not in selectable)
