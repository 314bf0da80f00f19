"""A replica freezes while it holds a voucher's row: the one that leads ends its session, and serves everybody."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from testbed.control_plane import ControlPlane
from testbed.postgres import Database
from tests.cluster.chaos import CODE, Scene, scene, until
from tests.conftest import Operators
from tests.ledger.drive import frozen_session, lives


@pytest.fixture
async def here(control_plane: ControlPlane, namespace: str, database18: Database) -> AsyncIterator[Scene]:
    async with scene(control_plane, namespace, database18) as opened:
        yield opened


async def test_ended_by_the_leader(here: Scene, operators: Operators, database18: Database) -> None:
    await here.voucher()
    operator = operators.start()
    await here.voucher_is(Ready="Issued")
    async with frozen_session(database18, CODE) as pid:
        await here.redeem(["waits"])

        async def says_so() -> bool:
            return await here.all_say("redemptions", ["waits"], "LedgerUnavailable")

        await until(says_so, "word of the lock")
        assert lives(database18, pid)
        await here.finished()
        assert not lives(database18, pid)
    await here.assert_told_as_it_was()
    assert await here.granted() == 1
    await asyncio.to_thread(operator.wait_ready)
    operators.allow.append("ended sessions of the operator")
