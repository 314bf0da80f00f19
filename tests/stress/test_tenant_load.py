"""20,000 Redemptions of one tenant: see tests/cluster/test_tenant_load.py, which does the same with fewer."""

import asyncio
import secrets
import time

import pytest

from testbed.cluster import Installation, install_rights
from testbed.control_plane import ControlPlane
from testbed.postgres import Database
from tests.cluster.chaos import SLOW_PROCESS_LOG, open_context
from tests.cluster.tenant_load import Load, lease_transitions, most_attempts, most_reads, without_a_secret
from tests.conftest import Operators

MANY, OWN_SECRETS = 20_000, 2_000


@pytest.fixture
def installation(control_plane: ControlPlane, namespace: str) -> Installation:
    """The operator's own namespace, and another one that it serves."""
    return install_rights(control_plane, [namespace, control_plane.namespace(f"t-{secrets.token_hex(5)}")])


async def test_redemptions_that_wait_for_a_secret_cost_no_lease_and_few_reads_and_delay_no_other(
    control_plane: ControlPlane,
    installation: Installation,
    operators: Operators,
    database18: Database,
    request: pytest.FixtureRequest,
) -> None:
    operators.allow.append(SLOW_PROCESS_LOG)
    seconds = request.config.getoption("stress_seconds")
    own, other = installation.namespaces
    async with (
        open_context(control_plane, own, database18) as context,
        open_context(control_plane, other, database18) as noisy,
    ):
        start = time.monotonic()
        load = Load(operators.start())
        await context.voucher()
        await without_a_secret(noisy, MANY, OWN_SECRETS)
        await load.all_wait(MANY, 1200)
        waits: list[float] = []
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            began, name = time.monotonic(), f"good-{len(waits)}"
            await context.redeem([name])
            await context.redemption_is(name, finished=True, state="Redeemed")
            waits.append(time.monotonic() - began)
            await asyncio.sleep(1)
        reads, attempts, passed = await load.reads(), await load.attempts(), time.monotonic() - start
        print(f"{passed:.0f} s, {reads / passed:.1f} reads/s, {attempts:.0f} attempts")
        print("good ones, in seconds:", *(f"{wait:.2f}" for wait in sorted(waits)))
        assert OWN_SECRETS < reads <= most_reads(passed)
        assert attempts <= most_attempts(MANY, passed)
        assert not load.lost_the_lease()
        assert await lease_transitions(context) == 0
