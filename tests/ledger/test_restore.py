"""A cluster is restored from a backup: all objects are new, and each Voucher keeps its code, in any order.

See also: test_ownership.py for two namespaces, test_put.py for what a put writes.
"""

import itertools
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

import pytest

from testbed.postgres import Database
from tests.ledger.helpers import ON_POSTGRESQL_16, redeem_request, rows, terms
from voucher_operator.ledger.admin.commands import release
from voucher_operator.ledger.api import Ledger
from voucher_operator.ledger.types import PutOutcome, VoucherOwner, VoucherTerms
from voucher_operator.resources.errors import CodeConflictError, CodeReservedError

pytestmark = ON_POSTGRESQL_16

FIRST: Final = VoucherOwner("voucher-1", "billing", "first")
RESTORED_AT: Final = datetime(2026, 6, 1, tzinfo=UTC)
NAMES: Final = ("a-other", "first", "z-other")
"""Vouchers with one code; `first` had it before the restore."""


def restored(name: str, order: Sequence[str]) -> VoucherTerms:
    """Make the terms of a Voucher as the restore creates it: with a new uid, and as old as its place in the order."""
    created_at = RESTORED_AT + timedelta(seconds=order.index(name))
    return terms(uid=f"restored-{name}", name=name, created_at=created_at)


async def put_all(ledger: Ledger, order: Sequence[str]) -> None:
    """Put all in their order, twice, as the operator does; only `first` is not refused."""
    for name in [*order, *order]:
        try:
            await ledger.put(restored(name, order))
        except CodeConflictError:
            assert name != "first", order


@pytest.mark.parametrize("order", list(itertools.permutations(NAMES)), ids="-".join)
@pytest.mark.parametrize("revoked", [False, True], ids=["live", "revoked while absent"])
async def test_restored_voucher_keeps_its_code_in_any_order(
    ledger: Ledger, order: Sequence[str], revoked: bool
) -> None:
    await ledger.put(terms())
    await ledger.redeem(redeem_request(user="ahmed"))
    if revoked:
        assert await ledger.revoke(FIRST, absent=True)
    await put_all(ledger, order)
    assert await ledger.owners() == [VoucherOwner("restored-first", "billing", "first")]
    (counted,) = await ledger.counters()
    assert counted.times_redeemed == 1


async def test_owners_of_a_name_are_the_live_ones(ledger: Ledger) -> None:
    await ledger.put(terms())
    await ledger.put(terms("OTHER", uid="voucher-2"))
    await ledger.put(terms("SECOND", uid="voucher-3", name="second"))
    await ledger.put(terms("SALES", uid="voucher-4", namespace="sales"))
    assert await ledger.owners_named("billing", "first") == [FIRST, VoucherOwner("voucher-2", "billing", "first")]
    await ledger.revoke(FIRST)
    assert await ledger.owners_named("billing", "first") == [VoucherOwner("voucher-2", "billing", "first")]


async def test_owners_have_their_code(ledger: Ledger) -> None:
    await ledger.put(terms())
    (owner,) = await ledger.owners()
    assert owner.code == "CODE"
    assert "CODE" not in repr(owner)


async def test_code_of_an_absent_voucher_is_free_for_others_after_an_hour(ledger: Ledger, database: Database) -> None:
    await ledger.put(terms())
    await ledger.revoke(FIRST, absent=True)
    other = terms(uid="voucher-2", name="second")
    with pytest.raises(CodeConflictError, match="billing/first, which disappeared"):
        await ledger.put(other)
    await rows(
        database,
        "UPDATE vouchers.terms SET revoked_at = revoked_at - interval '61 min', "
        "absent_at = absent_at - interval '61 min'",
    )
    assert (await ledger.put(other)).outcome is PutOutcome.ISSUED


async def test_code_of_an_absent_voucher_can_be_released_at_once(ledger: Ledger, database: Database) -> None:
    await ledger.put(terms())
    await ledger.revoke(FIRST, absent=True)
    assert await release(database.runtime_url, "billing", "first", "billing") == 1
    assert (await ledger.put(terms(uid="voucher-2", name="second"))).outcome is PutOutcome.ISSUED


async def test_code_of_an_absent_voucher_of_another_namespace_stays_reserved(ledger: Ledger) -> None:
    """And the message does not name it."""
    await ledger.put(terms())
    await ledger.revoke(FIRST, absent=True)
    with pytest.raises(CodeReservedError) as error:
        await ledger.put(terms(uid="voucher-2", namespace="sales", name="second"))
    assert "first" not in error.value.message


async def test_revocation_by_the_version_before_is_not_one_of_an_absent_voucher(
    ledger: Ledger, database: Database
) -> None:
    """It leaves the time of an earlier absence as it is."""
    await ledger.put(terms())
    await ledger.revoke(FIRST, absent=True)
    await rows(database, "UPDATE vouchers.terms SET revoked_at = NULL")
    await rows(database, "UPDATE vouchers.terms SET revoked_at = clock_timestamp()")
    assert (await ledger.put(terms(uid="voucher-2", name="second"))).outcome is PutOutcome.ISSUED
