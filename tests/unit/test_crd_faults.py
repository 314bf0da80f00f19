"""What is wrong with the CRDs, by what the API server says of them."""

from typing import Any

import pytest

from voucher_operator.controllers.kinds import EXPECTED_CRDS
from voucher_operator.kube.client import KubeApi
from voucher_operator.kube.crd_check import CRDCheck, CRDFault
from voucher_operator.kube.errors import ForbiddenError

PLURALS = ("vouchers", "redemptions")
ALL = ("delete", "deletecollection", "get", "list", "patch", "create", "update", "watch")
TERMINATING = ("delete", "deletecollection", "get", "list", "watch")


class Cluster:
    """What the API server says."""

    def __init__(self) -> None:
        self.verbs: dict[str, tuple[str, ...]] = {
            **dict.fromkeys(PLURALS, ALL),
            **{f"{plural}/status": ("get", "patch", "update") for plural in PLURALS},
        }
        self.crds: dict[str, dict[str, Any]] = {plural: {"uid": plural, "generation": 1} for plural in PLURALS}
        self.readable = True
        self.check = CRDCheck(self._api(), EXPECTED_CRDS)

    def _api(self) -> KubeApi:
        api = KubeApi()
        for name in ("resources", "metadata", "description"):
            setattr(api, name, getattr(self, f"_{name}"))
        return api

    async def _resources(self, _: str) -> dict[str, dict[str, Any]]:
        return {name: {"name": name, "verbs": list(verbs)} for name, verbs in self.verbs.items()}

    async def _metadata(self, path: str) -> dict[str, Any] | None:
        if not self.readable:
            raise ForbiddenError("403")
        return self.crds.get(path.rpartition("/")[2].partition(".")[0])

    async def _description(self, _: str) -> dict[str, Any]:
        return {}

    def terminate(self, plural: str) -> None:
        self.verbs[plural] = TERMINATING
        self.crds[plural]["deletionTimestamp"] = "2026-12-01T00:00:00Z"

    def remove(self, plural: str) -> None:
        del self.verbs[plural], self.verbs[f"{plural}/status"], self.crds[plural]

    async def fault(self, readable: bool = True) -> CRDFault | None:
        self.readable = readable
        return await self.check.fault()


DELETED = "The CRD vouchers is being deleted with all its resources: apply it again when it is gone."
ABSENT = "The CRDs redemptions of billing.openova.io/v1alpha1 are not installed: apply them."


@pytest.mark.parametrize("readable", [True, False])
async def test_whole_crds_have_no_fault(readable: bool) -> None:
    assert await Cluster().fault(readable) is None


@pytest.mark.parametrize("readable", [True, False])
async def test_crd_that_is_being_deleted_is_seen_without_its_metadata_too(readable: bool) -> None:
    cluster = Cluster()
    cluster.terminate("vouchers")
    assert await cluster.fault(readable) == CRDFault(DELETED, terminating=True)
    cluster.remove("redemptions")
    assert await cluster.fault(readable) == CRDFault(f"{DELETED} {ABSENT}", terminating=True)


@pytest.mark.parametrize("readable", [True, False])
async def test_absent_crds_are_named_together(readable: bool) -> None:
    cluster = Cluster()
    for plural in PLURALS:
        cluster.remove(plural)
    named = ABSENT.replace("redemptions", "vouchers and redemptions")
    assert await cluster.fault(readable) == CRDFault(named)


async def test_missing_verb_version_and_subresource_are_named() -> None:
    cluster = Cluster()
    cluster.verbs["vouchers"] = tuple(verb for verb in ALL if verb not in ("watch", "patch"))
    said = "The API server does not serve watch, patch of vouchers: apply the CRD again."
    assert await cluster.fault() == CRDFault(said)
    del cluster.verbs["vouchers"]
    said = "The CRD vouchers does not serve v1alpha1 now: apply that of the operator's version."
    assert await cluster.fault() == CRDFault(said)
    cluster.verbs["vouchers"] = ALL
    cluster.verbs["vouchers/status"] = ("get",)
    said = "The CRDs are older than the operator: subresource status of vouchers missing. Apply those of its version."
    assert await cluster.fault() == CRDFault(said)


async def test_replaced_crd_is_a_fault_only_while_the_former_is_in_use() -> None:
    cluster = Cluster()
    assert await cluster.fault() is None
    cluster.check.use()
    assert await cluster.fault() is None
    cluster.crds["redemptions"]["uid"] = "another"
    said = "The CRD redemptions was replaced: the controllers start again."
    assert await cluster.fault() == CRDFault(said)
    assert await cluster.fault(readable=False) is None, "unknown"
    assert await cluster.fault() == CRDFault(said)
    cluster.check.release()
    assert await cluster.fault() is None
    cluster.check.use()
    assert await cluster.fault() is None
