"""The operator is killed at any line: nothing is lost, nothing is granted twice, every status is written."""

import asyncio
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from testbed.cluster import Installation
from testbed.control_plane import ControlPlane
from testbed.postgres import Database
from tests.cluster.chaos import CODE, SLOW_API_LOG, ChaosContext, chaos_seed, open_context
from tests.cluster.chaos_client import until
from tests.cluster.proxy import Proxy
from tests.conftest import Operators
from tests.ledger.helpers import holding

RUNS = 7
EACH = 28
API_DOWN = r"the API server cannot be used"


async def _granted_without_status(context: ChaosContext) -> int:
    """How many were granted and have no final status yet."""
    finished = [body for body in (await context.redemptions()).values() if body["status"].get("finished")]
    return await context.granted() - len(finished)


async def test_operator_killed_at_random_moments_grants_each_request_once(
    control_plane: ControlPlane, namespace: str, operators: Operators, database18: Database
) -> None:
    """SIGKILL seven times, soon after the first commit of each run, when most status patches are still to come."""
    rng = random.Random(chaos_seed())
    unreported = []
    async with open_context(control_plane, namespace, database18) as context:
        await context.voucher()
        operator = operators.start("restarted")
        await context.voucher_is(Ready="Issued")
        operator.kill()
        for run in range(RUNS):
            await context.redeem(f"r{run}-{n}" for n in range(EACH))
            before = await context.granted()

            async def has_begun(before: int = before) -> bool:
                return await context.granted() > before

            operator.start()
            await until(has_begun, "grant in this run")
            await asyncio.sleep(rng.uniform(0, 0.12))
            operator.kill()
            unreported.append(await _granted_without_status(context))
        operator.start()
        await context.finished()

        assert any(unreported), f"no kill between commit and status: {unreported}"
        print(f"granted without a status at each kill: {unreported}")
        found = await context.assert_statuses_match_ledger()
        assert {body["status"]["state"] for body in found.values()} == {"Redeemed"}
        assert await context.granted() == RUNS * EACH
        await context.counters_agree()
        await asyncio.to_thread(operator.wait_ready)
    operators.allow.append(SLOW_API_LOG)


@pytest.fixture
def proxy(control_plane: ControlPlane, tmp_path: Path) -> Iterator[Proxy]:
    """The operator's own way to the API server."""
    with Proxy(control_plane.url.removeprefix("https://"), tmp_path) as proxy:
        yield proxy


@pytest.fixture
def installation(installation: Installation, proxy: Proxy) -> Installation:
    return replace(installation, kubeconfig=proxy.kubeconfig(installation.kubeconfig))


async def test_operator_killed_between_commit_and_status_reports_the_grant(
    control_plane: ControlPlane, namespace: str, operators: Operators, database18: Database, proxy: Proxy
) -> None:
    """The commit happens while no patch can arrive, then the operator is killed: the next one writes the status."""
    names = [f"r{n}" for n in range(40)]
    async with open_context(control_plane, namespace, database18) as context:
        await context.voucher(maxRedemptions=30)
        # The Lease must outlast the cut: who has lost it decides nothing more.
        operator = operators.start(
            env={"VOUCHER_OPERATOR_LEASE_DURATION": "600", "VOUCHER_OPERATOR_RENEW_DEADLINE": "300"}
        )
        await context.voucher_is(Ready="Issued")

        async def all_wait() -> bool:
            queues = (await asyncio.to_thread(operator.ready))["queues"]
            return bool(queues["Redemption"] == len(names)) and await _waits_for_lock(context)

        async with holding(database18, "SELECT FROM promo_codes WHERE code = %s FOR UPDATE", CODE):
            await context.redeem(names)
            await until(all_wait, "redemptions that wait for the lock")
            proxy.cut()

        async def all_decided() -> bool:
            return bool((await context.sql("SELECT count(*) FROM vouchers.redemption"))[0][0] == len(names))

        await until(all_decided, "decision about all")
        operator.kill()
        assert await context.unfinished() == len(names), "a status arrived in spite of the cut"
        decided = await context.sql("SELECT * FROM vouchers.redemption ORDER BY key")

        proxy.restore()
        operator.start()
        await context.finished()
        await context.assert_statuses_match_ledger()
        assert await context.sql("SELECT * FROM vouchers.redemption ORDER BY key") == decided
        assert await context.granted() == 30
        await context.counters_agree()
    operators.allow.append(API_DOWN)


async def _waits_for_lock(context: ChaosContext) -> bool:
    rows = await context.sql(
        "SELECT count(*) FROM pg_stat_activity "
        "WHERE application_name = 'voucher-operator' AND wait_event_type = 'Lock' AND datname = current_database()"
    )
    return bool(rows[0][0])
