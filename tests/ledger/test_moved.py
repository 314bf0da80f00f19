"""Which Vouchers have changed since a mark: no change is missed, in whatever order transactions commit."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from testbed.postgres import Database
from tests.ledger.helpers import issue, open_ledger, redeem_request, rows, terms
from voucher_operator.ledger.api import Ledger
from voucher_operator.ledger.types import LedgerMark, VoucherOwner

LIMIT = 10


@pytest.fixture
async def marked(ledger: Ledger) -> tuple[Ledger, LedgerMark]:
    """A ledger with two Vouchers, `one` and `two`, and a mark after they were issued."""
    for n, uid in enumerate(("one", "two"), 1):
        await ledger.put(terms(f"CODE-{n}", uid=uid, name=uid))
    mark, nothing = await ledger.moved(None, LIMIT)
    assert nothing is None
    return ledger, mark


async def test_nothing_has_moved_after_a_mark(marked: tuple[Ledger, LedgerMark]) -> None:
    ledger, mark = marked
    assert (await ledger.moved(mark, LIMIT))[1] == []


async def test_redemption_moves_its_voucher_alone_and_once(marked: tuple[Ledger, LedgerMark]) -> None:
    ledger, mark = marked
    await ledger.redeem(redeem_request("CODE-2"))
    later, moved = await ledger.moved(mark, LIMIT)
    assert moved == ["two"]
    assert (await ledger.moved(later, LIMIT))[1] == []


@pytest.mark.parametrize(
    "query",
    [
        "UPDATE promo_codes SET times_redeemed = times_redeemed + 1 WHERE code = 'CODE-1'",
        "UPDATE promo_codes SET active = false WHERE code = 'CODE-1'",
        "INSERT INTO promo_codes (code, credit_omr) VALUES (' code-1', 10)",
        "UPDATE vouchers.terms SET generation = 2 WHERE code = 'CODE-1'",
    ],
    ids=["used", "edited", "another spelling", "terms"],
)
async def test_change_by_anybody_moves_the_voucher(
    marked: tuple[Ledger, LedgerMark], database: Database, query: str
) -> None:
    ledger, mark = marked
    await rows(database, query)
    assert (await ledger.moved(mark, LIMIT))[1] == ["one"]
    await rows(database, "DELETE FROM promo_codes WHERE code = ' code-1'")
    await rows(database, "UPDATE promo_codes SET times_redeemed = 0")


@pytest.mark.parametrize("begin", ["SELECT 1", "SAVEPOINT nested"], ids=["transaction", "savepoint"])
async def test_transaction_that_commits_after_a_later_one_is_not_missed(
    marked: tuple[Ledger, LedgerMark], database: Database, begin: str
) -> None:
    ledger, mark = marked
    async with await psycopg.AsyncConnection.connect(database.admin_url) as slow:
        await slow.execute(begin.encode())
        await slow.execute("UPDATE promo_codes SET description = 'slow' WHERE code = 'CODE-1'")
        await ledger.redeem(redeem_request("CODE-2"))
        mark, moved = await ledger.moved(mark, LIMIT)
        assert moved == ["two"]
        mark, _ = await ledger.moved(mark, LIMIT)
        await slow.commit()
    mark, moved = await ledger.moved(mark, LIMIT)
    assert moved is not None
    assert "one" in moved
    assert (await ledger.moved(mark, LIMIT))[1] == []


@pytest.mark.parametrize("limit", ["valid_from", "valid_until"])
async def test_time_moves_a_voucher_with_a_window(marked: tuple[Ledger, LedgerMark], limit: str) -> None:
    ledger, mark = marked
    passed = datetime.now(UTC) - timedelta(minutes=1)
    await ledger.put(terms("CODE-1", uid="one", name="one", generation=2, **{limit: passed}))
    mark, _ = await ledger.moved(mark, LIMIT)
    assert (await ledger.moved(mark, LIMIT))[1] == []
    before = replace(mark, at=mark.at - timedelta(minutes=2))
    assert (await ledger.moved(before, LIMIT))[1] == ["one"]


async def test_all_must_be_read_for_another_server_a_clock_set_back_and_too_many(
    marked: tuple[Ledger, LedgerMark],
) -> None:
    ledger, mark = marked
    hour = timedelta(hours=1)
    for other in (
        replace(mark, server=mark.server - hour),
        replace(mark, at=mark.at + hour),
        replace(mark, xid=1 << 40),
    ):
        assert (await ledger.moved(other, LIMIT))[1] is None
    await ledger.redeem(redeem_request("CODE-1"))
    await ledger.redeem(redeem_request("CODE-2"))
    assert (await ledger.moved(mark, 1))[1] is None
    assert sorted((await ledger.moved(mark, 2))[1] or []) == ["one", "two"]


async def test_revoked_voucher_and_code_without_one_do_not_move(
    marked: tuple[Ledger, LedgerMark], database: Database
) -> None:
    ledger, mark = marked
    await ledger.revoke(VoucherOwner("one", "billing", "one"))
    await issue(database, "NOBODYS")
    await ledger.redeem(redeem_request("NOBODYS"))
    assert (await ledger.moved(mark, LIMIT))[1] == []


async def test_pages_have_every_live_voucher_once(database18: Database) -> None:
    async with open_ledger(database18.runtime_url) as ledger:
        for n in range(7):
            await ledger.put(terms(f"CODE-{n}", uid=f"uid-{n}", name=f"v-{n}"))
        await ledger.revoke(VoucherOwner("uid-3", "billing", "v-3"))
        found: list[str] = []
        while page := await ledger.counters_page(found[-1] if found else "", 4):
            found += [one.uid for one in page]
        assert found == [f"uid-{n}" for n in range(7) if n != 3]
