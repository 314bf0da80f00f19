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
from tests.cluster.resources import (
    FAST,
    CustomObject,
    LedgerReader,
    Object,
    ResourceClient,
    condition,
    ready,
    stalled,
    unique,
    wait_for_full_passes,
    waiting,
)
from tests.cluster.resources import until as wait_for
from tests.conftest import Operators

GRANTED = ("Redeemed", "Redeemed")


@dataclass
class Two:
    """Two namespaces that one operator serves, and its ledger."""

    victim: ResourceClient
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
) -> Iterator[Two]:
    """The operator runs with the chart's rights in both."""
    name = control_plane.namespace(unique("tenant"))
    both = install_rights(control_plane, [*installation.namespaces, name])
    operators = Operators(both, database18, tmp_path, fork_server)
    operator = operators.start(env=FAST)
    yield Two(api, ResourceClient(admin, name), ledger)
    operator.stop()
    assert operator.unexpected([]) == []


def from_secret(name: str) -> Object:
    return {"codeFrom": {"secretKeyRef": {"name": name, "key": "code"}}}


def older(two: Two, secret: str) -> CustomObject:
    """Create a Voucher that waits for its Secret, so long ago that whatever follows is newer by its timestamp."""
    voucher = two.other.voucher(credit={"amount": 1_000_000, "currency": "OMR"}, **from_secret(secret))
    created = datetime.fromisoformat(voucher.wait(waiting("SecretNotFound"))["metadata"]["creationTimestamp"])
    wait_for(lambda: (datetime.now(UTC) - created).total_seconds() >= 1, "next second")
    return voucher


def says_nothing_of(api: ResourceClient, voucher: CustomObject, code: str, body: object) -> None:
    """Whatever is told elsewhere, it holds neither the code nor a name of the other namespace."""
    for secret in (api.namespace, voucher.name, code):
        assert secret not in str(body)


def test_older_voucher_of_another_namespace_does_not_take_an_issued_code(two: Two) -> None:
    """Its Secret, and with it the code, comes after the code was issued elsewhere."""
    code, late = unique("VICTIM").upper(), unique("late")
    attacker = older(two, late)
    two.victim.secret("code", code=code)
    victim = two.victim.voucher(**from_secret("code"))
    victim.wait(ready("Issued"))
    two.other.secret(late, code=code)
    body = attacker.wait(stalled("CodeConflict"))
    assert body["status"]["state"] == "Conflict"
    says_nothing_of(two.victim, victim, code, body["status"])
    note = attacker.wait_event("CodeConflict")["note"]
    says_nothing_of(two.victim, victim, code, note)
    note = victim.wait_event("CodeContested")["note"]
    assert note == "A Voucher of another namespace has the same code and was refused."
    wait_for_full_passes(two.victim, two.ledger, 2)
    assert ready("Issued")(victim.body())
    assert two.victim.redeem(code, user="customer").result() == GRANTED
    assert two.ledger.balance("customer") == 10_000
    assert [event["reason"] for event in victim.events()].count("CodeContested") == 1


def test_code_of_a_deleted_voucher_stays_with_its_namespace(two: Two) -> None:
    holder = two.victim.voucher()
    holder.wait(ready("Issued"))
    foreign = two.other.voucher(code=holder.code)
    foreign.wait(stalled("CodeConflict"))
    holder.delete()
    holder.wait_gone()
    body = foreign.wait(stalled("CodeReserved"))
    assert (body["status"]["state"], condition(body, "Redeemable")["reason"]) == ("Conflict", "NotIssued")
    says_nothing_of(two.victim, holder, holder.code, body["status"])
    foreign.wait_event("CodeReserved")
    wait_for_full_passes(two.victim, two.ledger, 2)
    assert two.victim.redeem(holder.code).result() == ("Rejected", "VoucherNotFound")
    renamed = two.victim.voucher(code=holder.code)
    renamed.wait(ready("Issued"))
    foreign.wait(stalled("CodeConflict"))
    assert two.victim.redeem(holder.code).result() == GRANTED


def test_released_code_moves_to_the_other_namespace_with_its_counter(two: Two) -> None:
    """As somebody who may run commands in the operator's pod does, when a Voucher moves."""
    holder = two.victim.voucher()
    holder.wait(ready("Issued"))
    assert two.victim.redeem(holder.code, user="customer").result() == GRANTED
    moved = two.other.voucher(holder.name, code=holder.code)
    moved.wait(stalled("CodeConflict"))
    holder.delete()
    holder.wait_gone()
    moved.wait(stalled("CodeReserved"))
    name = f"{two.victim.namespace}/{holder.name}"
    assert command(two.ledger.database.runtime_url, "release", name, "--to", two.other.namespace).strip() == (
        f"a Voucher in namespace {two.other.namespace} may issue the code of {name} now"
    )
    moved.wait(lambda body: ready("Issued")(body) and body["status"]["timesRedeemed"] == 1)
    assert two.victim.redeem(holder.code, user="customer").result() == ("Rejected", "AlreadyRedeemed")
