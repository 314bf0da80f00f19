"""Every invariant: a sound ledger passes, and each way to break it is found and named, without a secret code."""

from dataclasses import dataclass

import pytest
from psycopg import AsyncConnection

from testbed.postgres import Database
from tests.ledger.go_service import GoService
from tests.ledger.ledger_rows import FIRST, SECOND, SECRET, fill
from tests.ledger.purchase_breaks import BREAKS as PURCHASE_BREAKS
from voucher_operator.ledger.admin.verify import EXPLANATIONS, Invariant, ungranted, verify
from voucher_operator.ledger.statements import statement
from voucher_operator.ledger.types import Violation
from voucher_operator.resources.errors import LedgerUnavailableError


@dataclass(frozen=True)
class Break:
    """One way to break the ledger: the SQL that does it, and what `verify` says of it."""

    sql: str
    invariant: Invariant
    subject: str
    detail: str


ENTRY = "INSERT INTO credit_ledger (customer_id, amount_omr, amount_minor, reason) VALUES"
BREAKS = [
    Break(
        "UPDATE promo_codes SET times_redeemed = 3 WHERE code = 'OURS'",
        Invariant.COUNTER,
        "code 'OURS'",
        "times_redeemed is 3, but there are 1 redemption rows",
    ),
    Break(
        f"UPDATE promo_codes SET times_redeemed = 0 WHERE code = '{SECRET}'",
        Invariant.COUNTER,
        "code <secret billing/quiet>",
        "times_redeemed is 0, but there are 1 redemption rows",
    ),
    Break(
        "UPDATE promo_codes SET times_redeemed = 6 WHERE code = 'OURS'",
        Invariant.CAP,
        "code 'OURS'",
        "times_redeemed is 6, the cap is 5, and it was set when 0 were redeemed",
    ),
    Break(
        "INSERT INTO promo_codes (code, credit_omr) VALUES (' ours', 1); "
        f"INSERT INTO promo_redemptions VALUES ('{FIRST}', ' ours')",
        Invariant.ONCE_PER_CUSTOMER,
        f"code ' ours', customer {FIRST}",
        "2 redemption rows of codes with one normal form",
    ),
    Break(
        "INSERT INTO vouchers.redemption (key, request_hash, uid, outcome, code, customer_id) "
        f"VALUES ('shop/again', '', '', 'redeemed', '{SECRET}', '{FIRST}')",
        Invariant.ONCE_PER_CUSTOMER,
        f"redemption shop/again, code <secret billing/quiet>, customer {FIRST}",
        "2 requests were granted the same code",
    ),
    Break(
        "ALTER TABLE credit_ledger DISABLE TRIGGER vouchers_after_delete; "
        f"DELETE FROM credit_ledger WHERE amount_minor = 25500 AND customer_id = '{FIRST}'",
        Invariant.GRANT,
        f"redemption shop/one, code 'OURS', customer {FIRST}",
        "its grant entry is missing",
    ),
    Break(
        f"UPDATE credit_ledger SET customer_id = '{SECOND}' WHERE amount_minor = 25500",
        Invariant.GRANT,
        f"redemption shop/one, code 'OURS', customer {FIRST}",
        "its grant entry is another customer's",
    ),
    Break(
        "UPDATE credit_ledger SET reason = 'gift' WHERE amount_minor = 25500",
        Invariant.GRANT,
        f"redemption shop/one, code 'OURS', customer {FIRST}",
        "its grant entry has another reason",
    ),
    Break(
        "UPDATE credit_ledger SET amount_minor = 25000 WHERE amount_minor = 25500",
        Invariant.GRANT,
        f"redemption shop/one, code 'OURS', customer {FIRST}",
        "its grant entry has 25000 minor units instead of 25500",
    ),
    Break(
        "DELETE FROM promo_redemptions WHERE code = 'OURS'",
        Invariant.GRANT,
        f"redemption shop/one, code 'OURS', customer {FIRST}",
        "its redemption row is missing",
    ),
    Break(
        "UPDATE vouchers.redemption SET grant_entry_id = '00000000-0000-4000-8000-00000000000a' WHERE key = 'shop/two'",
        Invariant.GRANT,
        "redemption shop/one, code <secret billing/quiet>",
        "2 requests share one grant entry",
    ),
    Break(
        f"{ENTRY} ('{FIRST}', 25, 25500, 'promo:OURS')",
        Invariant.ENTRIES,
        f"code 'OURS', customer {FIRST}",
        "2 grants stand for one redemption row",
    ),
    Break(
        "DELETE FROM credit_ledger WHERE reason = 'promo:go-code'",
        Invariant.ENTRIES,
        f"code 'go-code', customer {FIRST}",
        "0 grants stand for one redemption row",
    ),
    Break(
        "DELETE FROM credit_ledger WHERE amount_minor = -25500",
        Invariant.ENTRIES,
        f"code 'OURS', customer {SECOND}",
        "1 grants stand without a redemption row",
    ),
    Break(
        "DELETE FROM credit_ledger WHERE amount_minor = -25500",
        Invariant.REVERSAL,
        f"redemption shop/three, code 'OURS', customer {SECOND}",
        "its grant stands without a reversal",
    ),
    Break(
        f"DELETE FROM credit_ledger WHERE amount_minor = 25500 AND customer_id = '{SECOND}'",
        Invariant.REVERSAL,
        f"redemption shop/three, code 'OURS', customer {SECOND}",
        "its reversal stands without its grant",
    ),
    Break(
        "UPDATE credit_ledger SET amount_minor = -25501 WHERE amount_minor = -25500",
        Invariant.REVERSAL,
        f"redemption shop/three, code 'OURS', customer {SECOND}",
        "its reversal does not negate its grant",
    ),
    Break(
        f"{ENTRY} ('{SECOND}', -1, -1, 'order-payment')",
        Invariant.BALANCE,
        f"customer {SECOND}",
        "the balance is -1 minor units",
    ),
    Break(
        f"UPDATE promo_codes SET granted_minor = 5 WHERE code = '{SECRET}'",
        Invariant.GRANTED,
        "code <secret billing/quiet>",
        "granted_minor is 5, but its entries add up to 1250",
    ),
    Break(
        "SET session_replication_role = replica; UPDATE promo_codes SET credit_omr = 24 WHERE code = 'OURS'",
        Invariant.COLUMNS,
        "code 'OURS'",
        "credit_omr is 24, but credit_minor is 25500",
    ),
    Break(
        f"UPDATE vouchers.account SET balance_minor = 1 WHERE customer_id = '{FIRST}'",
        Invariant.ACCOUNTS,
        f"customer {FIRST}",
        "the account has 1 minor units, but its entries add up to 6750",
    ),
    Break(
        "SET session_replication_role = replica; UPDATE credit_ledger SET amount_omr = 0 WHERE amount_minor = 1250",
        Invariant.ACCOUNTS,
        f"customer {FIRST}",
        "the major units add up to 5, but the exact balance is 6750 minor units",
    ),
    Break(
        "INSERT INTO vouchers.account VALUES ('00000000-0000-4000-8000-00000000ffff', 5)",
        Invariant.ACCOUNTS,
        "customer 00000000-0000-4000-8000-00000000ffff",
        "the account has 5 minor units, but there is no entry",
    ),
    Break(
        f"SET session_replication_role = replica; DELETE FROM promo_codes WHERE code = '{SECRET}'",
        Invariant.TERMS,
        "code <secret billing/quiet>",
        "voucher billing/quiet is live, but has no row in promo_codes",
    ),
    Break(
        "INSERT INTO vouchers.served_namespace VALUES ('billing', 'one', now(), '2026-03-01 00:00:00+00')",
        Invariant.NAMESPACES,
        "code <secret billing/quiet>",
        "voucher billing/quiet is live, but no operator serves its namespace (dropped on 2026-03-01T00:00:00Z): "
        "serve it again, or delete the voucher",
    ),
    Break(
        f"INSERT INTO promo_codes (code, credit_omr) VALUES ('{SECRET.lower()} ', 1)",
        Invariant.SPELLING,
        "code <secret billing/quiet>",
        "2 rows have the normal form of this code, which is not spelled so: only the row that is can be redeemed",
    ),
]


async def break_it(database: Database, sql: str) -> None:
    async with await AsyncConnection.connect(database.admin_url, autocommit=True) as admin:
        await admin.execute(sql.encode())


async def test_consistent_ledger_has_no_violations(database: Database) -> None:
    assert await verify(database.runtime_url) == []
    await fill(database)
    assert await verify(database.runtime_url) == []


@pytest.mark.parametrize("case", BREAKS, ids=[f"{n}-{case.invariant}" for n, case in enumerate(BREAKS)])
async def test_each_break_is_reported(database18: Database, case: Break) -> None:
    await fill(database18)
    await break_it(database18, case.sql)
    found = await verify(database18.runtime_url)
    assert Violation(case.invariant.value, case.subject, case.detail) in found
    assert SECRET not in str(found).upper()


def test_every_invariant_has_a_break_and_an_explanation() -> None:
    assert {case.invariant for case in BREAKS} | {case.invariant for case in PURCHASE_BREAKS} == set(Invariant)
    assert set(EXPLANATIONS) == set(Invariant)
    assert all(statement(f"verify_{invariant}") for invariant in Invariant)


async def test_cap_lowered_below_use_is_no_violation(database: Database) -> None:
    async with GoService.connect(database.owner_url) as go:
        await go.issue("a", 1, max_redemptions=3)
        for user in ("1", "2", "3"):
            await go.redeem(await go.customer(user), "a")
        await go.issue("a", 1, max_redemptions=2)
        assert await verify(database.runtime_url) == []
        await break_it(database, "UPDATE promo_codes SET times_redeemed = 4")
        assert Invariant.CAP in {violation.invariant for violation in await verify(database.runtime_url)}


async def test_negative_balance_is_reported(database: Database) -> None:
    await fill(database)
    async with GoService.connect(database.owner_url) as go:
        assert await go.balance(FIRST) == 6
        await go.spend(FIRST, 6)
        assert await verify(database.runtime_url) == []
        await go.spend(FIRST, 6)
    assert [(found.invariant, found.subject) for found in await verify(database.runtime_url)] == [
        ("balance", f"customer {FIRST}")
    ]


async def test_verify_takes_no_locks_and_stops_at_its_limit(database: Database) -> None:
    """Another session may hold any row, and a table lock keeps it no longer than its limit."""
    await fill(database)
    async with await AsyncConnection.connect(database.owner_url) as owner:
        await owner.execute("SELECT FROM promo_codes FOR UPDATE")
        assert await verify(database.runtime_url) == []
        await owner.rollback()
        await owner.execute("LOCK TABLE credit_ledger")
        with pytest.raises(LedgerUnavailableError):
            await verify(database.runtime_url, statement_limit=0.1)


async def test_verify_of_an_unmigrated_ledger_is_an_error(empty_database: Database) -> None:
    with pytest.raises(LedgerUnavailableError, match="voucher-operator migrate"):
        await verify(empty_database.owner_url)


async def test_redemption_resource_without_grant_is_reported(database18: Database) -> None:
    await fill(database18)
    async with await AsyncConnection.connect(database18.owner_url) as conn:
        rows = await (await conn.execute("SELECT key, outcome FROM vouchers.redemption")).fetchall()
    granted = [key for key, outcome in rows if outcome == "redeemed"]
    others = [key for key, outcome in rows if outcome != "redeemed"]
    assert granted
    assert others
    found = await ungranted(database18.runtime_url, [*granted, *others, "billing/never-seen"])
    assert [one.subject for one in found] == [f"redemption {key}" for key in sorted([*others, "billing/never-seen"])]
    assert {one.invariant for one in found} == {"resource"}
