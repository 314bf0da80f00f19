"""Who leads, when a leader leaves, dies, freezes or is robbed: one works at a time, and two at once do no harm."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest

from testbed.control_plane import ControlPlane
from testbed.operator_process import OperatorProcess
from testbed.postgres import Database
from tests.cluster.chaos import STARVED, Scene, scene, until
from tests.conftest import Operators

BRISK = {
    "VOUCHER_OPERATOR_LEASE_DURATION": "4",
    "VOUCHER_OPERATOR_RENEW_DEADLINE": "3",
    "VOUCHER_OPERATOR_RETRY_PERIOD": "1.1",
}
NEVER_EXPIRES = {"VOUCHER_OPERATOR_LEASE_DURATION": "3600"}
TAKEOVER = 15.0
"""Seconds within which a standby must have taken over, with the default settings."""
REQUESTS = 120


@pytest.fixture
async def here(control_plane: ControlPlane, namespace: str, database18: Database) -> AsyncIterator[Scene]:
    async with scene(control_plane, namespace, database18) as opened:
        yield opened


def _path(here: Scene) -> str:
    return f"/apis/coordination.k8s.io/v1/namespaces/{here.namespace}/leases/voucher-operator"


async def holder(here: Scene) -> str | None:
    lease = await here.admin.find(_path(here))
    return None if lease is None else str(lease["spec"].get("holderIdentity", ""))


async def leads(operator: OperatorProcess, wanted: bool = True, within: float = 60.0) -> None:
    """Wait until a replica says that it leads, or that it does not, in /readyz and in its metrics."""

    async def says_so() -> bool:
        answer = await asyncio.to_thread(operator.ready)
        return answer.get("leader") is wanted

    await until(says_so, f"leader={wanted} of {operator.pod_name}", within)
    assert (await asyncio.to_thread(operator.metrics))["voucher_operator_leader"] == wanted


async def pair(here: Scene, operators: Operators, env: dict[str, str]) -> tuple[OperatorProcess, OperatorProcess]:
    """Start a leader and a standby, and issue a Voucher."""
    operators.allow.append(STARVED)
    leader = operators.start("leader", env)
    await leads(leader)
    standby = operators.start("standby", env)
    await asyncio.to_thread(standby.wait_ready)
    assert not standby.ready()["leader"]
    await here.voucher()
    await here.voucher_is(Ready="Issued")
    return leader, standby


async def some_granted(here: Scene) -> None:
    async def any_granted() -> bool:
        return await here.granted() > 0

    await until(any_granted, "first grant")


async def test_leader_that_ends_in_good_order_hands_over_at_once(here: Scene, operators: Operators) -> None:
    """SIGTERM under load: exit code 0, the Lease is given back; no waiting for it to expire would be short enough."""
    leader, standby = await pair(here, operators, NEVER_EXPIRES)
    feeding = asyncio.create_task(here.redeem(f"r{n}" for n in range(REQUESTS)))
    await some_granted(here)
    await asyncio.to_thread(leader.stop)
    await leads(standby)
    await feeding
    await here.finished()
    await here.assert_told_as_it_was()
    assert await here.granted() == REQUESTS
    await here.counters_agree()

    await asyncio.to_thread(standby.stop)
    assert await holder(here) == ""
    leader.start()
    await leads(leader)


async def test_standby_takes_over_from_a_killed_leader(here: Scene, operators: Operators) -> None:
    """SIGKILL under load, default settings."""
    leader, standby = await pair(here, operators, {})
    feeding = asyncio.create_task(here.redeem(f"r{n}" for n in range(REQUESTS)))
    await some_granted(here)
    leader.kill()
    await leads(standby, within=TAKEOVER)
    assert await holder(here) == "standby"
    await feeding
    await here.finished()
    await here.assert_told_as_it_was()
    assert await here.granted() == REQUESTS


async def test_frozen_leader_wakes_up_and_changes_nothing(here: Scene, operators: Operators) -> None:
    """SIGSTOP in the middle of work for longer than the Lease: the standby finishes all, the sleeper steps down."""
    leader, standby = await pair(here, operators, BRISK)
    feeding = asyncio.create_task(here.redeem(f"r{n}" for n in range(REQUESTS)))
    await some_granted(here)
    leader.sigstop()
    await leads(standby)
    await feeding
    await here.finished()
    before = {name: body["metadata"]["resourceVersion"] for name, body in (await here.redemptions()).items()}
    await here.counters_agree()

    leader.sigcont()
    await leads(leader, False)
    after = await here.assert_told_as_it_was()
    assert {name: body["metadata"]["resourceVersion"] for name, body in after.items()} == before
    assert await here.granted() == REQUESTS
    assert await holder(here) == "standby"
    # The leader may have been stopped in the midst of a transaction.
    ended = "ended sessions of the operator"
    assert standby.unexpected(["the API server cannot be used", ended]) == []
    operators.allow += ["the API server cannot be used", "the ledger cannot be used", ended]


async def test_lease_deleted_then_stolen_then_given_back(here: Scene, operators: Operators) -> None:
    """A deleted Lease is made again; from one that somebody else holds the leader steps down until it is free."""
    operator = operators.start("leader", BRISK)
    await leads(operator)
    await here.voucher()
    await here.admin.call("DELETE", _path(here))

    async def is_back() -> bool:
        return await holder(here) == "leader"

    await until(is_back, "new Lease")
    assert operator.ready()["leader"]

    await _take(here, "thief")
    await leads(operator, False)
    await here.redeem(["while-nobody-leads"])
    assert operator.ready()["ready"], "a standby is ready, too"
    await _take(here, "")
    await leads(operator)
    await here.finished()
    await here.assert_told_as_it_was()


async def _take(here: Scene, who: str) -> None:
    """Write a holder into the Lease, for longer than the test lasts; an empty one gives it back."""
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    spec: dict[str, Any] = {"holderIdentity": who, "leaseDurationSeconds": 3600, "renewTime": now, "acquireTime": now}
    await here.admin.call("PATCH", _path(here), {"spec": spec})
