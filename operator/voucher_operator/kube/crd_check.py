"""Checks that the CRDs are installed, served in full, and not older than this version of the operator.

With an older CRD the API server drops unknown fields of a status without an error, and refuses a watch by a field that
is not selectable. While a CRD is being deleted the API server still lists its resources, but kopf does not watch
them. Discovery and OpenAPI document can be read by every account; for the metadata of the CRDs the chart grants `get`,
without which a deletion is seen by the missing verbs, and a replacement is not seen.
See also: `client`; `process.crds` starts no controller, and `process.readiness` reports not ready, while there is a
fault.
"""

import asyncio
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from pydantic import BaseModel

from voucher_operator.kube.client import Body, KubeApi
from voucher_operator.kube.errors import ResponseError
from voucher_operator.kube.kinds import ResourceKind
from voucher_operator.resources.errors import ApiError

_VALID_SECONDS: Final = 30.0
"""How long a successful check of the fields is reused."""
_VERBS: Final = ("get", "list", "watch", "create", "update", "patch", "delete")
_STATUS_VERBS: Final = ("get", "patch")


@dataclass(frozen=True, slots=True)
class ExpectedCRD:
    """What this version needs of a CRD: the fields of each part (`spec`, `status`), and the selectable fields."""

    parts: Mapping[str, type[BaseModel]]
    selectable: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class CRDFault:
    """What is wrong with the CRDs, in one line; whether one of them is being deleted, with all of its resources."""

    message: str
    terminating: bool = False


class CRDCheck:
    """The CRDs of one cluster; all of one group and version."""

    def __init__(self, api: KubeApi, expected: Mapping[ResourceKind, ExpectedCRD]) -> None:
        self._kube = api
        self._expected = expected
        self._api_version = next(iter(expected)).api_version
        self._valid_until = 0.0
        self._valid_for: Mapping[str, Any] = {}
        self._uids: Mapping[str, str] = {}
        self._used: Mapping[str, str] = {}

    def use(self) -> None:
        """Remember that the controllers work with the CRDs of the last check: other ones are a fault from now on."""
        self._used = self._uids

    def release(self) -> None:
        """Forget `use`: the controllers have stopped."""
        self._used = {}

    async def fault(self) -> CRDFault | None:
        """Return what is wrong with the CRDs, or None; raises ApiError."""
        served, metadata = await asyncio.gather(self._kube.resources(self._api_version), self._metadata())
        self._uids = {plural: one["uid"] for plural, one in metadata.items()}
        terminating = {kind.plural for kind in self._expected if _is_terminating(kind.plural, served, metadata)}
        lines = [*self._unserved(served, metadata, terminating), *self._replaced()]
        if not lines and (missing := await self._missing(served, metadata)):
            lines = [f"The CRDs are older than the operator: {', '.join(missing)} missing. Apply those of its version."]
        return CRDFault(" ".join(lines), bool(terminating)) if lines else None

    async def _metadata(self) -> dict[str, Body]:
        """Read the metadata of each CRD that exists, by plural name; empty without the permission."""
        crds = {kind.plural: kind.crd_path for kind in self._expected}
        try:
            found = await asyncio.gather(*(self._kube.metadata(path) for path in crds.values()))
        except ResponseError:
            return {}
        return {plural: one for plural, one in zip(crds, found, strict=True) if one is not None}

    def _unserved(
        self, served: Mapping[str, Body], metadata: Mapping[str, Body], terminating: set[str]
    ) -> Iterator[str]:
        absent = []
        for kind in self._expected:
            name = kind.plural
            if name in terminating:
                yield f"The CRD {name} is being deleted with all its resources: apply it again when it is gone."
            elif name not in served and name in metadata:
                yield f"The CRD {name} does not serve {kind.version} now: apply that of the operator's version."
            elif name not in served:
                absent.append(name)
            elif lacking := [verb for verb in _VERBS if verb not in served[name]["verbs"]]:
                yield f"The API server does not serve {', '.join(lacking)} of {name}: apply the CRD again."
        if absent:
            yield f"The CRDs {' and '.join(absent)} of {self._api_version} are not installed: apply them."

    def _replaced(self) -> Iterator[str]:
        for name, uid in self._used.items():
            if self._uids.get(name, uid) != uid:
                yield f"The CRD {name} was replaced: the controllers start again."

    async def _missing(self, served: Mapping[str, Body], metadata: Mapping[str, Body]) -> list[str]:
        """Return what the CRDs lack; not read again for a while, unless a CRD has changed."""
        status = [kind.plural for kind in self._expected if not _has_status(kind.plural, served)]
        if status:
            return [f"subresource status of {name}" for name in status]
        versions = {name: (one["uid"], one["generation"]) for name, one in metadata.items()}
        if time.monotonic() < self._valid_until and versions == self._valid_for:
            return []
        missing = list(missing_fields(self._expected, await self._schemas()))
        if not missing:
            self._valid_until, self._valid_for = time.monotonic() + _VALID_SECONDS, versions
        return missing

    async def _schemas(self) -> Mapping[str, Any]:
        """Read the schemas; empty when there is no document: just after the CRDs are applied, or without permission."""
        try:
            schemas: dict[str, Any] = (await self._kube.description(self._api_version))["components"]["schemas"]
        except (ApiError, KeyError):
            return {}
        return schemas


def _is_terminating(name: str, served: Mapping[str, Body], metadata: Mapping[str, Body]) -> bool:
    """Whether a CRD is being deleted: by its metadata, or without them by the verbs that it then lacks."""
    if name in metadata:
        return "deletionTimestamp" in metadata[name]
    verbs = served.get(name, {}).get("verbs", ())
    return "list" in verbs and "create" not in verbs


def _has_status(name: str, served: Mapping[str, Body]) -> bool:
    verbs = served.get(f"{name}/status", {}).get("verbs", ())
    return all(verb in verbs for verb in _STATUS_VERBS)


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
