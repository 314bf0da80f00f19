"""Leader election when a leader stops, is killed, freezes or loses its Lease: two leaders at once do no harm."""

import asyncio
import json
from datetime import UTC, datetime
from typing import Any

import pytest

from testbed.operator_process import OperatorProcess
from tests.cluster.chaos import SLOW_API_LOG, ChaosContext
from tests.cluster.chaos_client import until
from tests.conftest import Operators
from voucher_operator.ledger.admin.verify import verify

BRISK = {
    "VOUCHER_OPERATOR_LEASE_DURATION": "4",
    "VOUCHER_OPERATOR_RENEW_DEADLINE": "3",
    "VOUCHER_OPERATOR_RETRY_PERIOD": "1.1",
}
LONGER = BRISK | {"VOUCHER_OPERATOR_LEASE_DURATION": "10"}
"""A standby that is stopped for some seconds holds its Lease."""
NEVER_EXPIRES = {"VOUCHER_OPERATOR_LEASE_DURATION": "3600"}
EXPIRED = "Lease has expired"
TAKEOVER = 15.0
"""Seconds within which a standby must have taken over, with the default settings."""
REQUESTS = 120


def _path(context: ChaosContext) -> str:
    return f"/apis/coordination.k8s.io/v1/namespaces/{context.namespace}/leases/voucher-operator"


async def holder(context: ChaosContext) -> str | None:
    lease = await context.admin.find(_path(context))
    return None if lease is None else str(lease["spec"].get("holderIdentity", ""))


async def leads(operator: OperatorProcess, wanted: bool = True, within: float = 60.0) -> None:
    """Wait until a replica says that it leads, or that it does not, in /readyz and in its metrics."""

    async def reason_is_set() -> bool:
        answer = await asyncio.to_thread(operator.ready)
        return answer.get("leader") is wanted

    await until(reason_is_set, f"leader={wanted} of {operator.pod_name}", within)
    assert (await asyncio.to_thread(operator.metrics))["voucher_operator_leader"] == wanted


async def pair(
    context: ChaosContext, operators: Operators, env: dict[str, str]
) -> tuple[OperatorProcess, OperatorProcess]:
    """Start a leader and a standby, and issue a Voucher."""
    operators.allow.append(SLOW_API_LOG)
    leader = operators.start("leader", env)
    await leads(leader)
    standby = operators.start("standby", env)
    await asyncio.to_thread(standby.wait_ready)
    assert not standby.ready()["leader"]
    await context.voucher()
    await context.voucher_is(Ready="Issued")
    return leader, standby


async def some_granted(context: ChaosContext) -> None:
    async def any_granted() -> bool:
        return await context.granted() > 0

    await until(any_granted, "first grant")


async def test_leader_that_stops_releases_the_lease_at_once(context: ChaosContext, operators: Operators) -> None:
    """SIGTERM under load: exit code 0, the Lease is given back; no waiting for it to expire would be short enough."""
    leader, standby = await pair(context, operators, NEVER_EXPIRES)
    feeding = asyncio.create_task(context.redeem(f"r{n}" for n in range(REQUESTS)))
    await some_granted(context)
    await asyncio.to_thread(leader.stop)
    await leads(standby)
    await feeding
    await context.finished()
    await context.assert_statuses_match_ledger()
    assert await context.granted() == REQUESTS
    await context.counters_agree()

    await asyncio.to_thread(standby.stop)
    assert await holder(context) == ""
    leader.start()
    await leads(leader)


async def test_standby_takes_over_from_a_killed_leader(context: ChaosContext, operators: Operators) -> None:
    """SIGKILL under load, default settings."""
    leader, standby = await pair(context, operators, {})
    feeding = asyncio.create_task(context.redeem(f"r{n}" for n in range(REQUESTS)))
    await some_granted(context)
    leader.kill()
    await leads(standby, within=TAKEOVER)
    assert await holder(context) == "standby"
    await feeding
    await context.finished()
    await context.assert_statuses_match_ledger()
    assert await context.granted() == REQUESTS


async def test_frozen_leader_changes_nothing_after_it_continues(context: ChaosContext, operators: Operators) -> None:
    """SIGSTOP in the middle of work for longer than the Lease: the standby finishes all, the frozen one steps down."""
    leader, standby = await pair(context, operators, BRISK)
    feeding = asyncio.create_task(context.redeem(f"r{n}" for n in range(REQUESTS)))
    await some_granted(context)
    leader.sigstop()
    await leads(standby)
    await feeding
    await context.finished()
    before = {name: body["metadata"]["resourceVersion"] for name, body in (await context.redemptions()).items()}
    await context.counters_agree()

    leader.sigcont()
    await leads(leader, False)
    after = await context.assert_statuses_match_ledger()
    assert {name: body["metadata"]["resourceVersion"] for name, body in after.items()} == before
    assert await context.granted() == REQUESTS
    assert await holder(context) == "standby"
    # The leader may have been stopped in the midst of a transaction.
    ended = "ended sessions of the operator"
    assert standby.unexpected(["the API server cannot be used", ended]) == []
    operators.allow += ["the API server cannot be used", "the ledger cannot be used", ended]


@pytest.mark.long
async def test_continued_leader_writes_nothing_although_nobody_else_works(
    context: ChaosContext, operators: Operators
) -> None:
    """Its watches show it new work before it knows that another one leads, and that one is stopped meanwhile."""
    operators.allow += ["the API server cannot be used", "the ledger cannot be used"]
    leader, standby = await pair(context, operators, LONGER)
    await context.voucher("deleted", "CHAOS-20")
    await context.voucher_is("deleted", Ready="Issued")
    leader.sigstop()
    await leads(standby)
    standby.sigstop()
    names = [f"r{n}" for n in range(20)]
    await context.redeem(names)
    await context.delete("vouchers", "deleted")
    edit = {"spec": {"maxRedemptions": 20}}
    await context.admin.call("PATCH", context.path("vouchers", "chaos"), edit)
    before = {name: body["metadata"]["resourceVersion"] for name, body in (await context.redemptions()).items()}

    leader.sigcont()
    await leads(leader, False)
    assert await context.granted() == 0
    terms = "SELECT code, max_redemptions, revoked_at IS NULL FROM vouchers.terms ORDER BY code"
    assert await context.sql(terms) == [("CHAOS-10", 0, True), ("CHAOS-20", 0, True)]
    found = await context.redemptions()
    assert {name: body["metadata"]["resourceVersion"] for name, body in found.items()} == before
    assert (await context.get("vouchers", "chaos"))["status"]["observedGeneration"] == 1
    assert await verify(context.database.admin_url) == []
    assert await holder(context) == "standby"
    assert [record for record in leader.records() if EXPIRED in json.dumps(record)], "it had work"

    standby.sigcont()
    await context.finished()
    await context.assert_statuses_match_ledger()
    assert await context.granted() == 20
    await context.voucher_is(timesRedeemed=20, state="Exhausted")


async def test_leader_survives_a_deleted_and_a_taken_lease(context: ChaosContext, operators: Operators) -> None:
    """A deleted Lease is made again; from one that somebody else holds the leader steps down until it is free."""
    operator = operators.start("leader", BRISK)
    await leads(operator)
    await context.voucher()
    await context.admin.call("DELETE", _path(context))

    async def is_back() -> bool:
        return await holder(context) == "leader"

    await until(is_back, "new Lease")
    assert operator.ready()["leader"]

    await _take(context, "thief")
    await leads(operator, False)
    await context.redeem(["while-nobody-leads"])
    assert operator.ready()["ready"], "a standby is ready, too"
    await _take(context, "")
    await leads(operator)
    await context.finished()
    await context.assert_statuses_match_ledger()


async def _take(context: ChaosContext, who: str) -> None:
    """Write a holder into the Lease, for longer than the test lasts; an empty one gives it back."""
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    spec: dict[str, Any] = {"holderIdentity": who, "leaseDurationSeconds": 3600, "renewTime": now, "acquireTime": now}
    await context.admin.call("PATCH", _path(context), {"spec": spec})
