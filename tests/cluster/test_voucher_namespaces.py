"""One code in two namespaces: it stays with the namespace that issued it first, until somebody releases it.

See also: test_voucher_conflict.py for one namespace, tests/ledger/test_ownership.py for the ledger.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
from kubernetes.client import ApiClient

from testbed.cluster import Installation, command, install_rights
from testbed.control_plane import ControlPlane
from testbed.fork_server import ForkServer
from testbed.postgres import Database
from tests.cluster.ledger_reader import LedgerReader, wait_for_full_passes
from tests.cluster.resources import (
    FAST,
    CustomObject,
    Object,
    ResourceClient,
    condition,
    ready,
    stalled,
    unique,
    waiting,
)
from tests.cluster.resources import until as wait_for
from tests.conftest import Operators

GRANTED = ("Redeemed", "Redeemed")


@dataclass
class TwoNamespaces:
    """Two namespaces that one operator serves, and its ledger."""

    owner: ResourceClient
    other: ResourceClient
    ledger: LedgerReader


@pytest.fixture
def two(
    control_plane: ControlPlane,
    installation: Installation,
    admin: ApiClient,
    api: ResourceClient,
    ledger: LedgerReader,
    database18: Database,
    tmp_path: Path,
    fork_server: ForkServer,
) -> Iterator[TwoNamespaces]:
    """The operator runs with the chart's rights in both."""
    name = control_plane.namespace(unique("tenant"))
    both = install_rights(control_plane, [*installation.namespaces, name])
    operators = Operators(both, database18, tmp_path, fork_server)
    operator = operators.start(env=FAST)
    yield TwoNamespaces(api, ResourceClient(admin, name), ledger)
    operator.stop()
    assert operator.unexpected([]) == []


def from_secret(name: str) -> Object:
    return {"codeFrom": {"secretKeyRef": {"name": name, "key": "code"}}}


def older(two: TwoNamespaces, secret: str) -> CustomObject:
    """Create a Voucher that waits for its Secret, so long ago that whatever follows is newer by its timestamp."""
    voucher = two.other.voucher(credit={"amount": 1_000_000, "currency": "OMR"}, **from_secret(secret))
    created = datetime.fromisoformat(voucher.wait(waiting("SecretNotFound"))["metadata"]["creationTimestamp"])
    wait_for(lambda: (datetime.now(UTC) - created).total_seconds() >= 1, "next second")
    return voucher


def says_nothing_of(api: ResourceClient, voucher: CustomObject, code: str, body: object) -> None:
    """No status or event holds the code or a name of the other namespace."""
    for secret in (api.namespace, voucher.name, code):
        assert secret not in str(body)


def test_older_voucher_of_another_namespace_does_not_take_an_issued_code(two: TwoNamespaces) -> None:
    """Its Secret, and with it the code, comes after the code was issued elsewhere."""
    code, late = unique("VICTIM").upper(), unique("late")
    attacker = older(two, late)
    two.owner.secret("code", code=code)
    owner = two.owner.voucher(**from_secret("code"))
    owner.wait(ready("Issued"))
    two.other.secret(late, code=code)
    body = attacker.wait(stalled("CodeConflict"))
    assert body["status"]["state"] == "Conflict"
    says_nothing_of(two.owner, owner, code, body["status"])
    note = attacker.wait_event("CodeConflict")["note"]
    says_nothing_of(two.owner, owner, code, note)
    note = owner.wait_event("CodeContested")["note"]
    assert note == "A Voucher of another namespace has the same code and was refused."
    wait_for_full_passes(two.owner, two.ledger, 2)
    assert ready("Issued")(owner.body())
    assert two.owner.redeem(code, user="customer").result() == GRANTED
    assert two.ledger.balance("customer") == 10_000
    assert [event["reason"] for event in owner.events()].count("CodeContested") == 1


def test_code_of_a_deleted_voucher_stays_with_its_namespace(two: TwoNamespaces) -> None:
    holder = two.owner.voucher()
    holder.wait(ready("Issued"))
    foreign = two.other.voucher(code=holder.code)
    foreign.wait(stalled("CodeConflict"))
    holder.delete()
    holder.wait_gone()
    body = foreign.wait(stalled("CodeReserved"))
    assert (body["status"]["state"], condition(body, "Redeemable")["reason"]) == ("Conflict", "NotIssued")
    says_nothing_of(two.owner, holder, holder.code, body["status"])
    foreign.wait_event("CodeReserved")
    wait_for_full_passes(two.owner, two.ledger, 2)
    assert two.owner.redeem(holder.code).result() == ("Rejected", "VoucherNotFound")
    renamed = two.owner.voucher(code=holder.code)
    renamed.wait(ready("Issued"))
    foreign.wait(stalled("CodeConflict"))
    assert two.owner.redeem(holder.code).result() == GRANTED


def test_released_code_moves_to_the_other_namespace_with_its_counter(two: TwoNamespaces) -> None:
    """As somebody who may run commands in the operator's pod does, when a Voucher moves."""
    holder = two.owner.voucher()
    holder.wait(ready("Issued"))
    assert two.owner.redeem(holder.code, user="customer").result() == GRANTED
    moved = two.other.voucher(holder.name, code=holder.code)
    moved.wait(stalled("CodeConflict"))
    holder.delete()
    holder.wait_gone()
    moved.wait(stalled("CodeReserved"))
    name = f"{two.owner.namespace}/{holder.name}"
    assert command(two.ledger.database.runtime_url, "release", name, "--to", two.other.namespace).strip() == (
        f"a Voucher in namespace {two.other.namespace} can now issue the code of {name}"
    )
    moved.wait(lambda body: ready("Issued")(body) and body["status"]["timesRedeemed"] == 1)
    assert two.owner.redeem(holder.code, user="customer").result() == ("Rejected", "AlreadyRedeemed")
