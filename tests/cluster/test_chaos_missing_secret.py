"""Objects that wait do not block others, however many wait."""

import asyncio

from testbed.control_plane import ControlPlane
from testbed.postgres import Database
from tests.cluster.chaos import SLOW_PROCESS_LOG, open_context
from tests.cluster.chaos_client import until
from tests.conftest import Operators

MANY = 70
"""More than kopf has workers for one kind, and more than the queues have."""
QUICK = {
    "VOUCHER_OPERATOR_SECRET_INTERVAL": "1",
    "VOUCHER_OPERATOR_BACKOFF_MAX": "1",
    # The codes of all Vouchers and Redemptions come at once, on a busy machine in any order.
    "VOUCHER_OPERATOR_NOT_FOUND_GRACE": "60",
}


async def test_objects_that_wait_for_a_secret_do_not_block_others(
    control_plane: ControlPlane, namespace: str, operators: Operators, database18: Database
) -> None:
    """Seventy Vouchers and seventy Redemptions lack their Secret: others are served, and then it comes."""
    operators.start(env=QUICK)
    async with open_context(control_plane, namespace, database18) as context:
        waiting = [f"waits{n}" for n in range(MANY)]
        sources = {name: {"secretKeyRef": {"name": "late", "key": name}} for name in waiting}
        await asyncio.gather(*(context.voucher(name, None, codeFrom=sources[name]) for name in waiting))
        await asyncio.gather(*(context.redeem([name], None, codeFrom=sources[name]) for name in waiting))
        await until(lambda: context.all_have_reason("vouchers", waiting, "SecretNotFound"), "Vouchers that wait")
        await until(lambda: context.all_have_reason("redemptions", waiting, "SecretNotFound"), "Redemptions that wait")

        passing = [f"passes{n}" for n in range(MANY)]
        await context.voucher(maxRedemptions=MANY - 1)
        await context.redeem(passing)
        for name in passing:
            assert (await context.redemption_is(name, finished=True))["status"]["state"] in ("Redeemed", "Rejected")
        await context.voucher_is(Ready="Issued", state="Exhausted")
        assert await context.unfinished() == MANY

        await context.secret("late", {name: f"LATE-{name.upper()}" for name in waiting})
        await context.finished()
        await until(lambda: context.all_have_reason("vouchers", waiting, "Issued"), "issue of all")
        found = await context.assert_statuses_match_ledger()
        assert {found[name]["status"]["state"] for name in waiting} == {"Redeemed"}
    operators.allow.append(SLOW_PROCESS_LOG)
