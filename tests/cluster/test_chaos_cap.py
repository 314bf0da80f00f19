"""The cap under a race of two active operators and the Go service, each with its own way of locking."""

import asyncio
from pathlib import Path
from uuid import UUID

import pytest

from testbed.cluster import Installation, command, install_rights
from testbed.control_plane import ControlPlane
from testbed.postgres import Database
from tests.cluster.chaos import CODE, open_context
from tests.cluster.chaos_client import until
from tests.conftest import Operators
from tests.ledger.go_service import GoService, RedemptionRefused

CAP = 100
REQUESTS = 1000


@pytest.fixture
def second(control_plane: ControlPlane, namespace: str) -> Installation:
    """A second release of the chart in the same namespace: its own Lease, so that both releases are active at once."""
    return install_rights(control_plane, [namespace], {"fullnameOverride": "second"})


async def _go_on(go: GoService, customers: list[UUID]) -> int:
    """Redeem customer by customer until the code is used up; returns how many got it."""
    for number, customer in enumerate(customers):
        try:
            await go.redeem(customer, CODE)
        except RedemptionRefused:
            return number
    return len(customers)


async def test_cap_of_100_is_exact_with_1000_requests(
    control_plane: ControlPlane,
    namespace: str,
    operators: Operators,
    second: Installation,
    database18: Database,
    tmp_path: Path,
) -> None:
    """Two operators and a client with the Go service's own transaction: exactly the cap, and right statuses."""
    others = Operators(second, database18, tmp_path)
    both = [operators.start("first"), others.start("second")]
    operators.started.extend(others.started)
    async with (
        open_context(control_plane, namespace, database18) as context,
        GoService.connect(database18.owner_url) as go,
    ):
        await context.voucher(maxRedemptions=CAP)
        for operator in both:
            await asyncio.to_thread(operator.wait_ready, leader=True)
        await context.voucher_is(Ready="Issued")
        customers = [await go.customer(f"go-{n}") for n in range(CAP)]

        async def any_granted() -> bool:
            return await context.granted() > 0

        feeding = asyncio.create_task(context.redeem(f"r{n}" for n in range(REQUESTS)))
        await until(any_granted, "first grant")
        by_go = await _go_on(go, customers)
        await feeding
        await context.finished()

        assert await context.granted() == CAP
        found = await context.assert_statuses_match_ledger()
        states = [body["status"]["state"] for body in found.values()]
        assert states.count("Redeemed") == CAP - by_go
        assert states.count("Rejected") == REQUESTS - CAP + by_go
        assert 0 < by_go < CAP, "one side was alone: no race"
        await context.voucher_is(state="Exhausted", redeemed=f"{CAP}/{CAP}", remaining=0)
        assert "consistent" in await asyncio.to_thread(command, database18.runtime_url, "verify")
    for operator in both:
        assert operator.metrics()["voucher_operator_leader"] == 1
        assert operator.metrics()['voucher_operator_status_writes_total{resource="Redemption"}'] > 0
