"""A code is revoked while customers redeem it: earlier requests are granted, later ones refused."""

import asyncio

from testbed.control_plane import ControlPlane
from testbed.postgres import Database
from tests.cluster.chaos import SLOW_PROCESS_LOG, open_context
from tests.cluster.chaos_client import until
from tests.conftest import Operators

REQUESTS = 300
LATE = 30


async def test_revoke_during_load_refuses_later_requests_and_keeps_the_counter(
    control_plane: ControlPlane, namespace: str, operators: Operators, database18: Database
) -> None:
    """Grants, then refusals, with nothing between; the counter is theirs, and comes back with the Voucher."""
    operators.start(env={"VOUCHER_OPERATOR_NOT_FOUND_GRACE": "0.5"})
    async with open_context(control_plane, namespace, database18) as context:
        await context.voucher()
        await context.voucher_is(Ready="Issued")
        feeding = asyncio.create_task(context.redeem(f"r{n}" for n in range(REQUESTS)))

        async def some_granted() -> bool:
            return await context.granted() >= 20

        await until(some_granted, "first grants")
        await context.delete("vouchers", "chaos")
        await until(lambda: context.gone("vouchers", "chaos"), "end of the Voucher")
        await context.redeem(f"late{n}" for n in range(LATE))
        await feeding
        await context.finished()

        found = await context.assert_statuses_match_ledger()
        states = [(body["status"]["state"], body["status"]["conditions"][0]["reason"]) for body in found.values()]
        granted = states.count(("Redeemed", "Redeemed"))
        assert states.count(("Rejected", "VoucherNotFound")) == REQUESTS + LATE - granted >= LATE
        ((last_grant, first_refusal),) = await context.sql(
            "SELECT max(decided_at) FILTER (WHERE outcome = 'redeemed'), "
            "min(decided_at) FILTER (WHERE outcome = 'refused') FROM vouchers.redemption"
        )
        assert last_grant < first_refusal
        assert await context.granted() == granted

        await context.voucher()
        await context.voucher_is(Ready="Issued", Redeemable="Active", timesRedeemed=granted)
        await context.redeem(["afterwards"])
        await context.finished()
        await context.voucher_is(timesRedeemed=granted + 1)
        await context.assert_statuses_match_ledger()
    operators.allow.append(SLOW_PROCESS_LOG)
