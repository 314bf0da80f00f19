"""Thousands of Redemptions of one tenant cost the leader no Lease, the API server few calls, and the others no wait."""

import secrets
import time
from collections.abc import AsyncIterator

import pytest

from testbed.cluster import Installation, install_rights
from testbed.control_plane import ControlPlane
from testbed.postgres import Database
from tests.cluster.chaos import SLOW_PROCESS_LOG, ChaosContext, open_context
from tests.cluster.tenant_load import Load, lease_transitions, most_attempts, most_reads, without_a_secret
from tests.conftest import Operators

pytestmark = pytest.mark.long

WAITING, OWN_SECRETS = 2000, 400
WRONG = 3000
PATIENT = {"VOUCHER_OPERATOR_NOT_FOUND_GRACE": "3600"}


@pytest.fixture
def installation(control_plane: ControlPlane, namespace: str) -> Installation:
    """The operator's own namespace, and another one that it serves."""
    return install_rights(control_plane, [namespace, control_plane.namespace(f"t-{secrets.token_hex(5)}")])


@pytest.fixture
async def noisy(
    control_plane: ControlPlane, installation: Installation, database18: Database
) -> AsyncIterator[ChaosContext]:
    """The other namespace."""
    async with open_context(control_plane, installation.namespaces[1], database18) as opened:
        yield opened


async def test_redemptions_without_their_secret_cost_no_lease_and_few_reads(
    context: ChaosContext, noisy: ChaosContext, operators: Operators
) -> None:
    """Nor does a new leader try them all at once."""
    operators.allow.append(SLOW_PROCESS_LOG)
    start = time.monotonic()
    load = Load(operators.start())
    await without_a_secret(noisy, WAITING, OWN_SECRETS)
    await load.all_wait(WAITING)
    reads, attempts, seconds = await load.reads(), await load.attempts(), time.monotonic() - start
    assert OWN_SECRETS < reads <= most_reads(seconds)
    assert WAITING <= attempts <= most_attempts(WAITING, seconds)
    assert not load.lost_the_lease()
    assert await lease_transitions(context) == 0

    load.operator.kill()
    load.operator.start()
    await load.all_known(WAITING)
    assert await load.attempts() < WAITING * 0.75


async def test_redemption_of_another_namespace_or_customer_does_not_wait_for_thousands_of_wrong_codes(
    context: ChaosContext, noisy: ChaosContext, operators: Operators
) -> None:
    """They are there before the operator starts; each is asked of the ledger, and its status is written."""
    operators.allow.append(SLOW_PROCESS_LOG)
    customer = {"userID": "mallory", "tenantID": "mallory", "email": "mallory@example.com"}
    await noisy.redeem([f"wrong-{n}" for n in range(WRONG)], "WRONG-CODE", customer=customer)
    await context.voucher()
    load = Load(operators.start(env=PATIENT))
    await load.all_wait(20)
    await context.voucher_is(Ready="Issued")
    await context.redeem(["good"])
    await noisy.redeem(["good-too"])
    await context.redemption_is("good", finished=True, state="Redeemed")
    await noisy.redemption_is("good-too", finished=True, state="Redeemed")
    undecided = [one for one in (await noisy.redemptions()).values() if one["status"]["observedGeneration"] == -1]
    assert len(undecided) > WRONG / 2
