"""A Voucher whose terms cannot be put is deactivated: redemptions stop, and nothing else changes."""

import asyncio
from typing import Any

import pytest

from testbed.postgres import Database
from tests.ledger.helpers import ON_POSTGRESQL_16, open_ledger, redeem_outcome, redeem_request, rows, terms
from voucher_operator.ledger.api import Ledger
from voucher_operator.ledger.types import PutOutcome, VoucherOwner

pytestmark = ON_POSTGRESQL_16

FIRST = VoucherOwner("voucher-1", "billing", "first")
ROWS = (
    "SELECT p.active, t.active, p.credit_minor, p.times_redeemed FROM promo_codes p JOIN vouchers.terms t USING (code)"
)


@pytest.mark.parametrize("owner", [FIRST, VoucherOwner("restored", "billing", "first")], ids=["uid", "name"])
async def test_deactivated_code_is_refused_and_keeps_its_terms(
    ledger: Ledger, database: Database, owner: VoucherOwner
) -> None:
    """A restored Voucher has another uid."""
    await ledger.put(terms())
    await ledger.redeem(redeem_request())
    assert [await ledger.deactivate(owner) for _ in range(2)] == [True, False]
    assert redeem_outcome(await ledger.redeem(redeem_request())) == "VoucherInactive"
    assert await rows(database, ROWS) == [(False, False, 25_500, 1)]
    (counted,) = await ledger.counters()
    assert counted.drifted is False


async def test_code_that_the_go_service_activates_is_deactivated_again(ledger: Ledger, database: Database) -> None:
    await ledger.put(terms())
    await ledger.deactivate(FIRST)
    await rows(database, "UPDATE promo_codes SET active = true")
    assert await ledger.deactivate(FIRST) is True
    assert redeem_outcome(await ledger.redeem(redeem_request())) == "VoucherInactive"


@pytest.mark.parametrize(
    "other", [{"uid": "voucher-2", "name": "second"}, {"uid": "voucher-2", "namespace": "sales"}], ids=str
)
async def test_voucher_without_the_code_deactivates_nothing(
    ledger: Ledger, database: Database, other: dict[str, Any]
) -> None:
    await ledger.put(terms())
    loser = terms(**other)
    assert await ledger.deactivate(VoucherOwner(loser.uid, loser.namespace, loser.name)) is False
    assert await rows(database, ROWS) == [(True, True, 25_500, 0)]


async def test_put_activates_again(ledger: Ledger) -> None:
    """When the terms may be put again."""
    await ledger.put(terms(generation=2))
    await ledger.deactivate(FIRST)
    assert (await ledger.put(terms(generation=3))).outcome is PutOutcome.UPDATED
    assert redeem_outcome(await ledger.redeem(redeem_request())) == "redeemed"


async def test_revoked_voucher_is_not_deactivated(ledger: Ledger) -> None:
    await ledger.put(terms())
    await ledger.revoke(FIRST)
    assert await ledger.deactivate(FIRST) is False


async def test_concurrent_puts_redemptions_and_deactivations_end_without_an_error(database: Database) -> None:
    """They take their locks in one order."""
    async with open_ledger(database.runtime_url) as one, open_ledger(database.runtime_url) as two:
        await one.put(terms())
        works = [work for n in range(2, 30) for work in (one.put(terms(generation=n)), two.deactivate(FIRST))]
        await asyncio.gather(*works, *(one.redeem(redeem_request()) for _ in range(30)))
        await two.deactivate(FIRST)
        assert redeem_outcome(await one.redeem(redeem_request())) == "VoucherInactive"
