"""What is done in namespaces that are not served: what other operators and other clusters have is left as it is.

See also: tests/cluster/test_unserved_namespaces.py on the real API server and ledger.
"""

from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest

from voucher_operator.controllers.kinds import VOUCHER
from voucher_operator.controllers.unserved import UnservedNamespaces
from voucher_operator.controllers.voucher.controller import FINALIZER
from voucher_operator.kube.errors import InvalidError
from voucher_operator.ledger.errors import LedgerBusyError
from voucher_operator.ledger.types import UnservedNamespace, VoucherOwner
from voucher_operator.resources.errors import LedgerUnavailableError
from voucher_operator.services.code_index import CodeIndex
from voucher_operator.services.issue import IssueService
from voucher_operator.settings import Settings
from voucher_operator.settings.cluster import UnservedVouchers

DROPPED = datetime(2026, 12, 1, tzinfo=UTC)
BEFORE, AFTER = DROPPED - timedelta(days=1), DROPPED + timedelta(hours=1)
KEEP, REVOKE = UnservedVouchers.KEEP, UnservedVouchers.REVOKE
DELETED = {"deletionTimestamp": "2026-12-02T00:00:00Z"}


class World:
    """The API server and the ledger; `sales` is dropped."""

    def __init__(self) -> None:
        self.cluster = "one"
        self.bodies: dict[str, dict[str, Any]] = {}
        self.owners_: list[VoucherOwner] = []
        self.found = [UnservedNamespace("sales", 1, True, DROPPED)]
        self.names: list[str] = []
        self.cleared: list[str] = []
        self.faults: dict[str, Exception] = {}
        """By the name of a Voucher: with what each write of it fails."""
        self.writes: list[str] = []

    def add(self, name: str, *, created: datetime = BEFORE, code: bool = True, deleted: bool = False) -> None:
        self.bodies[name] = {
            "metadata": {
                "name": name,
                "namespace": "sales",
                "uid": f"uid-{name}",
                "resourceVersion": "1",
                "generation": 1,
                "creationTimestamp": created.isoformat(),
                "finalizers": [FINALIZER],
                **(DELETED if deleted else {}),
            },
            "spec": {"code": name.upper(), "credit": {"amount": 1, "currency": "OMR"}},
            "status": {},
        }
        if code:
            self.owners_.append(VoucherOwner(f"uid-{name}", "sales", name))

    def operator(self, unserved: UnservedVouchers = KEEP) -> UnservedNamespaces:
        settings = Settings(unserved_vouchers=unserved)
        kube, ledger = cast("Any", self), cast("Any", self)
        return UnservedNamespaces(ledger, kube, IssueService(ledger, CodeIndex()), cast("Any", self), settings)

    def others_write(self, name: str) -> None:
        """What another operator makes of a Voucher that it serves."""
        body = self.bodies[name]
        body["metadata"]["finalizers"] = [FINALIZER]
        body["status"] = {"conditions": [{"type": "Ready", "status": "True", "reason": "Issued"}]}

    def reason(self, name: str) -> str | None:
        ready = [one for one in self.bodies[name]["status"].get("conditions", ()) if one["type"] == "Ready"]
        return str(ready[0]["reason"]) if ready else None

    def has_finalizer(self, name: str) -> bool:
        return FINALIZER in self.bodies[name]["metadata"]["finalizers"]

    @property
    def codes(self) -> list[str]:
        return [owner.name for owner in self.owners_]

    def _write(self, kind: str, name: str) -> None:
        if (fault := self.faults.get(name)) is not None:
            raise fault
        self.writes.append(f"{kind} {name}")

    # The API server.
    async def metadata(self, path: str) -> dict[str, Any]:
        assert path == VOUCHER.crd_path
        return {"uid": self.cluster}

    async def pages(self, _: object, namespace: str) -> AsyncIterator[list[dict[str, Any]]]:
        assert namespace == "sales"
        yield list(self.bodies.values())

    async def patch_status(self, _: object, body: Mapping[str, Any], status: Mapping[str, Any]) -> None:
        self._write("status", body["metadata"]["name"])
        self.bodies[body["metadata"]["name"]]["status"] = dict(status)

    async def remove_finalizer(self, _: object, body: Mapping[str, Any], finalizer: str) -> None:
        self._write("finalizer", body["metadata"]["name"])
        self.bodies[body["metadata"]["name"]]["metadata"]["finalizers"].remove(finalizer)

    # The ledger.
    async def report_namespaces(self, operator: str, _: object) -> list[UnservedNamespace]:
        self.names.append(operator)
        return self.found

    async def owners(self) -> list[VoucherOwner]:
        return list(self.owners_)

    async def record_cleared(self, namespaces: list[str]) -> None:
        self.cleared += namespaces

    async def revoke(self, owner: VoucherOwner) -> bool:
        self._write("revoke", owner.name)
        self.owners_.remove(owner)
        return True

    async def revoke_orphan(self, owner: VoucherOwner) -> None:
        await self.revoke(owner)


@pytest.fixture
def world() -> World:
    return World()


async def test_releases_of_one_template_in_two_clusters_report_under_different_names(world: World) -> None:
    """As if the other cluster dropped what it never had, otherwise."""
    await world.operator().check()
    world.cluster = "two"
    await world.operator().check()
    assert world.names == ["one/billing/voucher-operator", "two/billing/voucher-operator"]


@pytest.mark.parametrize(("unserved", "left"), [(KEEP, ["first"]), (REVOKE, [])])
async def test_codes_of_a_namespace_without_any_voucher_are_kept_by_default(
    world: World, unserved: UnservedVouchers, left: list[str]
) -> None:
    world.add("first")
    world.bodies.clear()
    await world.operator(unserved).check()
    assert world.codes == left
    assert world.cleared == ([] if left else ["sales"])


async def test_code_of_an_absent_voucher_is_revoked_where_others_exist(world: World) -> None:
    world.add("gone")
    world.add("there")
    del world.bodies["gone"]
    await world.operator().check()
    assert world.codes == ["there"]


@pytest.mark.parametrize("unserved", [KEEP, REVOKE])
@pytest.mark.parametrize("deleted", [False, True])
async def test_voucher_that_another_operator_issued_after_the_drop_is_left_as_it_is(
    world: World, unserved: UnservedVouchers, deleted: bool
) -> None:
    world.add("new", created=AFTER, code=False, deleted=deleted)
    await world.operator(unserved).check()
    assert (world.writes, world.has_finalizer("new")) == ([], True)
    assert world.cleared == ["sales"]


async def test_finalizer_and_status_that_another_operator_writes_again_are_not_written_twice(world: World) -> None:
    """Its codes are revoked, so nothing is left, although the Vouchers there have the finalizer."""
    world.add("moved")
    operator = world.operator(REVOKE)
    await operator.check()
    assert (world.codes, world.writes) == ([], ["revoke moved", "finalizer moved"])
    world.others_write("moved")
    await operator.check()
    assert len(world.writes) == 2
    assert world.cleared == ["sales"]


async def test_status_that_another_operator_writes_again_is_not_written_twice(world: World) -> None:
    """Nor is its finalizer removed; the code on this ledger is revoked when the Voucher is deleted."""
    world.add("moved")
    operator = world.operator()
    await operator.check()
    assert world.reason("moved") == "NamespaceNotServed"
    world.others_write("moved")
    await operator.check()
    assert (world.reason("moved"), world.cleared) == ("Issued", [])
    world.bodies["moved"]["metadata"] |= DELETED
    await operator.check()
    assert (world.codes, world.has_finalizer("moved"), world.cleared) == ([], True, ["sales"])


async def test_deletion_of_a_voucher_that_never_had_a_code_ends(world: World) -> None:
    """One with a conflict, for example: its finalizer is that of the operator that has dropped the namespace."""
    world.add("conflict", code=False, deleted=True)
    await world.operator().check()
    assert not world.has_finalizer("conflict")


async def test_finalizer_of_a_restored_voucher_is_removed_after_a_failure(world: World) -> None:
    """It is newer than the drop, has the code of its name, and lost that in the run that failed."""
    world.add("restored", created=AFTER, deleted=True)
    world.bodies["restored"]["metadata"]["uid"] = "uid-of-the-new-one"
    operator = world.operator()
    revoke = world.revoke

    async def revoke_and_fail(owner: VoucherOwner) -> bool:
        await revoke(owner)
        world.faults["restored"] = InvalidError("refused")
        return True

    world.revoke = revoke_and_fail  # type: ignore[method-assign]
    await operator.check()
    assert (world.codes, world.has_finalizer("restored")) == ([], True)
    world.faults.clear()
    await operator.check()
    assert not world.has_finalizer("restored")


@pytest.mark.parametrize("fault", [LedgerBusyError("locked"), InvalidError("refused")])
async def test_voucher_that_fails_does_not_stop_the_others(world: World, fault: Exception) -> None:
    for name in ("fails", "second"):
        world.add(name, deleted=True)
    world.add("absent")
    world.add("gone")
    del world.bodies["absent"], world.bodies["gone"]
    world.faults = {"fails": fault, "absent": fault}
    operator = world.operator()
    await operator.check()
    assert (world.codes, world.has_finalizer("second"), world.cleared) == (["fails", "absent"], False, [])
    world.faults.clear()
    await operator.check()
    assert (world.codes, world.has_finalizer("fails")) == ([], False)


async def test_ledger_that_is_unavailable_ends_the_run(world: World) -> None:
    """Each Voucher would wait for it otherwise."""
    for name in ("first", "second"):
        world.add(name, deleted=True)
    world.faults["first"] = LedgerUnavailableError("unavailable")
    operator = world.operator()
    with pytest.raises(LedgerUnavailableError):
        await operator.check()
    assert world.writes == []
    await operator.release()
