"""A code is revoked while customers redeem it: whoever came before has it, whoever came after has not."""

import asyncio

from testbed.control_plane import ControlPlane
from testbed.postgres import Database
from tests.cluster.chaos import STARVED, scene, until
from tests.conftest import Operators

REQUESTS = 300
LATE = 30


async def test_revoked_while_redeeming_and_applied_again(
    control_plane: ControlPlane, namespace: str, operators: Operators, database18: Database
) -> None:
    """Grants, then refusals, with nothing between; the counter is theirs, and comes back with the Voucher."""
    operators.start(env={"VOUCHER_OPERATOR_NOT_FOUND_GRACE": "0.5"})
    async with scene(control_plane, namespace, database18) as here:
        await here.voucher()
        await here.voucher_is(Ready="Issued")
        feeding = asyncio.create_task(here.redeem(f"r{n}" for n in range(REQUESTS)))

        async def some_granted() -> bool:
            return await here.granted() >= 20

        await until(some_granted, "first grants")
        await here.delete("vouchers", "chaos")
        await until(lambda: here.gone("vouchers", "chaos"), "end of the Voucher")
        await here.redeem(f"late{n}" for n in range(LATE))
        await feeding
        await here.finished()

        found = await here.assert_told_as_it_was()
        told = [(body["status"]["state"], body["status"]["conditions"][0]["reason"]) for body in found.values()]
        granted = told.count(("Redeemed", "Redeemed"))
        assert told.count(("Rejected", "VoucherNotFound")) == REQUESTS + LATE - granted >= LATE
        ((last_grant, first_refusal),) = await here.sql(
            "SELECT max(decided_at) FILTER (WHERE outcome = 'redeemed'), "
            "min(decided_at) FILTER (WHERE outcome = 'refused') FROM vouchers.redemption"
        )
        assert last_grant < first_refusal
        assert await here.granted() == granted

        await here.voucher()
        await here.voucher_is(Ready="Issued", Redeemable="Active", timesRedeemed=granted)
        await here.redeem(["afterwards"])
        await here.finished()
        await here.voucher_is(timesRedeemed=granted + 1)
        await here.assert_told_as_it_was()
    operators.allow.append(STARVED)
