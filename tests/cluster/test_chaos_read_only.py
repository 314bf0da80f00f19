"""PostgreSQL takes no writes for a while: no replica says that it is ready, and the log says it once."""

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from testbed.cluster import migrate
from testbed.operator_process import OperatorProcess
from testbed.postgres import PostgresServer
from tests.cluster.chaos import ChaosContext, wait_for_problem
from tests.cluster.chaos_client import until
from tests.cluster.test_chaos_ledger import LEDGER_DOWN, QUICK, ready, wait_for_ledger
from tests.conftest import Operators
from tests.ledger.test_read_only import make_read_only

pytestmark = [pytest.mark.long, pytest.mark.xdist_group("chaos-read-only")]

UP = "voucher_operator_ledger_up"


@pytest.fixture(scope="module")
def postgres18() -> Iterator[PostgresServer]:
    """A server that becomes read-only."""
    with PostgresServer(18) as server:
        yield server


@pytest.fixture(scope="module")
def template18(postgres18: PostgresServer) -> str:
    template = postgres18.database("migrated")
    with ThreadPoolExecutor(1) as other:
        other.submit(migrate, template).result()
    return template.name


def ledger_messages(operator: OperatorProcess) -> list[str]:
    return [one["message"] for one in operator.records() if "the ledger can" in str(one.get("message"))]


async def test_replicas_are_not_ready_while_postgresql_is_read_only(
    context: ChaosContext, postgres18: PostgresServer, operators: Operators
) -> None:
    """The leader and its standby; a Redemption of that time is decided afterwards, on sessions of before."""
    leader = operators.start(env=QUICK)
    await ready(leader)
    standby = operators.start(env=QUICK)
    await asyncio.to_thread(standby.wait_ready)
    await context.voucher()
    await context.redeem(["before"])
    await context.finished()
    await asyncio.to_thread(make_read_only, postgres18, True)
    try:
        for operator in (leader, standby):
            await wait_for_problem(operator, "ledger", "read-only")
            assert (await asyncio.to_thread(operator.metrics))[UP] == 0
        await context.redeem(["meanwhile", "second"])
        await wait_for_ledger(context, "meanwhile", "second")
        for _ in range(5):
            assert not leader.ready()["ready"]
            assert (await asyncio.to_thread(leader.metrics))[UP] == 0
    finally:
        await asyncio.to_thread(make_read_only, postgres18, False)
    await context.finished()
    for operator in (leader, standby):
        await asyncio.to_thread(operator.wait_ready)
        assert (await asyncio.to_thread(operator.metrics))[UP] == 1
    assert len(ledger_messages(standby)) == 2

    async def is_said() -> bool:
        return len(ledger_messages(leader)) == 2

    await until(is_said, "end of the outage in the log")
    await context.assert_statuses_match_ledger()
    operators.allow.append(LEDGER_DOWN)
