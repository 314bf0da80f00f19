"""A replica freezes while it holds a voucher's row lock: the leader ends its session and redeems the code."""

import asyncio

import pytest

from testbed.postgres import Database
from tests.cluster.chaos import CODE, ChaosContext
from tests.cluster.chaos_client import until
from tests.conftest import Operators
from tests.ledger.helpers import frozen_session, session_exists

pytestmark = pytest.mark.long


async def test_leader_ends_the_session_of_a_frozen_replica(
    context: ChaosContext, operators: Operators, database18: Database
) -> None:
    await context.voucher()
    operator = operators.start()
    await context.voucher_is(Ready="Issued")
    async with frozen_session(database18, CODE) as pid:
        await context.redeem(["waits"])

        async def reason_is_set() -> bool:
            return await context.all_have_reason("redemptions", ["waits"], "LedgerUnavailable")

        await until(reason_is_set, "word of the lock")
        assert session_exists(database18, pid)
        await context.finished()
        assert not session_exists(database18, pid)
    await context.assert_statuses_match_ledger()
    assert await context.granted() == 1
    await asyncio.to_thread(operator.wait_ready)
    operators.allow.append("ended sessions of the operator")
