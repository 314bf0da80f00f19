"""The chart's migration on a ledger with rows of the Go service."""

from collections.abc import Callable

import pytest

from tests.e2e.ledger import Server
from tests.e2e.objects import condition, redemption, voucher
from tests.e2e.release import Release
from tests.ledger.go_service import GoService, RedemptionRefused


async def test_ledger_of_the_go_service_is_migrated_and_adopted(
    prepare: Callable[[str], Release], server: Server
) -> None:
    release = prepare("legacy")
    kind, namespace = release.kind, release.namespace
    with server.forwarded(release.owner) as url:
        async with GoService.connect(url) as go:
            await go.start()
            ali, omar = await go.customer("ali"), await go.customer("omar")
            for code, credit, cap in (("summer-10", 10, 3), ("  Winter-5 ", 5, 0), ("   ", 7, 0), ("EID-20", 20, 0)):
                await go.issue(code, credit, max_redemptions=cap)
            for code in ("summer-10", "EID-20"):
                await go.redeem(ali, code)
            await go.spend(ali, 12)
            before = server.sql("SELECT * FROM credit_ledger ORDER BY id", release.database)

            release.install({"replicas": 1})
            release.await_ready()
            _adopts(release)
            kept = server.sql("SELECT id FROM credit_ledger ORDER BY id", release.database)
            assert {line.partition("|")[0] for line in before.splitlines()} <= set(kept.splitlines())

            await go.start()
            shown = await go.preview("summer-10")
            assert shown is not None
            assert (shown.times_redeemed, shown.max_redemptions) == (2, 3)
            await go.redeem(omar, "summer-10")
            kind.wait("voucher/summer", "jsonpath={.status.state}=Exhausted", namespace)
            with pytest.raises(RedemptionRefused):
                await go.redeem(await go.customer("late"), "summer-10")
            assert await go.balance(ali) == 18
    assert release.verify() == "the ledger is consistent"
    assert release.restarts() == 0


def _adopts(release: Release) -> None:
    """The Voucher takes the row over as it is spelt; a code without a Voucher is redeemed all the same."""
    kind, namespace = release.kind, release.namespace
    credit = {"amount": 10, "currency": "OMR"}
    kind.apply(voucher("summer", "SUMMER-10", credit=credit, maxRedemptions=3), namespace=namespace)
    kind.wait("voucher/summer", "jsonpath={.status.redeemed}=1/3", namespace)
    wishes = {"salma": "Summer-10", "salma-winter": "WINTER-5", "ali-again": "SUMMER-10"}
    documents = [redemption(name, name.partition("-")[0], code=code) for name, code in wishes.items()]
    kind.apply(*documents, namespace=namespace)
    reasons = []
    for name in wishes:
        kind.wait(f"redemption/{name}", "jsonpath={.status.finished}=true", namespace)
        reasons.append(condition(kind.get("redemption", name, namespace), "Ready")["reason"])
    assert reasons == ["Redeemed", "Redeemed", "AlreadyRedeemed"]
