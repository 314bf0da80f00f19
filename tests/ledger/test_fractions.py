"""Fractions beside the Go service, which knows whole units alone: one exact balance, and its whole units are its floor.

See also: migrations/0012.entries-in-balance.sql; `verify`'s invariant `accounts`.
"""

import asyncio
import itertools
from uuid import UUID

import psycopg
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from testbed.postgres import RUNTIME, Database
from tests.ledger.go_service import STARTUP, GoService, RedemptionRefused
from tests.ledger.helpers import issue, open_ledger, redeem_outcome, redeem_request, rows, terms
from tests.ledger.purchase_helpers import place_purchase, purchase_request
from voucher_operator.ledger.admin.verify import verify
from voucher_operator.ledger.api import Ledger
from voucher_operator.ledger.schema.account_backfill import open_accounts
from voucher_operator.ledger.schema.migrate import migrate
from voucher_operator.ledger.schema.session import Plan
from voucher_operator.resources.reasons import Reason


async def test_grant_by_the_go_service_has_the_exact_credit_of_the_terms(ledger: Ledger, database: Database) -> None:
    await ledger.put(terms("HALF", credit_minor=25_500))
    await ledger.put(terms("SMALL", uid="v2", name="small", credit_minor=900))
    async with GoService.connect(database.owner_url) as go:
        gina = await go.customer("gina")
        await go.redeem(gina, "HALF")
        await go.redeem(gina, "SMALL")
        assert await go.balance(gina) == 26
    await ledger.redeem(redeem_request("HALF", "olga"))
    await ledger.redeem(redeem_request("SMALL", "olga"))
    assert await ledger.balance("gina") == await ledger.balance("olga") == 26_400
    assert [c.granted_minor for c in await ledger.counters()] == [51_000, 1_800]


async def test_fractions_granted_in_one_batch_show_the_floor_of_their_sum(ledger: Ledger, database: Database) -> None:
    for n in range(10):
        await ledger.put(terms(f"CODE-{n}", uid=f"v{n}", name=f"v{n}", credit_minor=900))
    assert {
        redeem_outcome(r)
        for r in await asyncio.gather(*(ledger.redeem(redeem_request(f"CODE-{n}", "u")) for n in range(10)))
    } == {"redeemed"}
    async with GoService.connect(database.owner_url) as go:
        customer = await go.customer("u")
        assert (await go.balance(customer), await ledger.balance("u")) == (9, 9_000)
        await go.spend(customer, 9)
        assert (await go.balance(customer), await ledger.balance("u")) == (0, 0)


async def test_spending_ten_fractions_leaves_zero_in_both_columns(ledger: Ledger, database: Database) -> None:
    for n in range(10):
        await ledger.put(terms(f"CODE-{n}", uid=f"v{n}", name=f"v{n}", credit_minor=900))
        await ledger.redeem(redeem_request(f"CODE-{n}", "u"))
    await place_purchase(ledger, purchase_request(9_000, user="u"))
    async with GoService.connect(database.owner_url) as go:
        assert (await go.balance(await go.customer("u")), await ledger.balance("u")) == (0, 0)


async def test_grant_of_another_amount_than_the_terms_keeps_its_amount(ledger: Ledger, database: Database) -> None:
    """Somebody grants 7 by hand under the name of a code that gives 25.500."""
    await ledger.put(terms())
    async with GoService.connect(database.owner_url) as go:
        customer = await go.customer("u")
    await rows(
        database,
        "INSERT INTO credit_ledger (customer_id, amount_omr, reason, order_id) VALUES (%s, 7, 'promo:CODE', 'by hand')",
        customer,
    )
    await rows(database, "INSERT INTO credit_ledger (customer_id, amount_omr, reason) VALUES (%s, 2, 'gift')", customer)
    assert await ledger.balance("u") == 9_000


async def test_manual_change_of_an_entry_updates_the_account(ledger: Ledger, database: Database) -> None:
    async with GoService.connect(database.owner_url) as go:
        one, two = await go.customer("one"), await go.customer("two")
    insert = "INSERT INTO credit_ledger (customer_id, amount_omr, amount_minor, reason) VALUES (%s, 5, 5600, 'gift')"
    await rows(database, insert, one)
    await rows(database, "UPDATE credit_ledger SET status = 'tenant_deleted'")
    await rows(database, "UPDATE credit_ledger SET amount_minor = 5400, amount_omr = 5")
    assert await ledger.balance("one") == 5_400
    await rows(database, "UPDATE credit_ledger SET customer_id = %s", two)
    assert (await ledger.balance("one"), await ledger.balance("two")) == (0, 5_400)


async def test_migration_reconciles_whole_units_of_0_1_0_with_exact_sums(empty_database: Database) -> None:
    """A ledger of 0.1.0: ten grants of 0.900 written as 0 whole units each, spent at once."""
    with psycopg.connect(empty_database.owner_url, autocommit=True) as owner:
        for command in STARTUP:
            owner.execute(command.encode())
        owner.execute("ALTER TABLE credit_ledger ADD COLUMN amount_minor bigint")
        owner.execute("INSERT INTO customers (user_id, tenant_id, email) VALUES ('u', 't', 'e'), ('v', 't', 'e')")
        owner.execute(
            "INSERT INTO credit_ledger (customer_id, amount_omr, amount_minor, reason) "
            "SELECT id, 0, 900, 'gift' FROM customers, generate_series(1, 10) WHERE user_id = 'u' "
            "UNION ALL SELECT id, -9, -9000, 'order-payment' FROM customers WHERE user_id = 'u'"
        )
    await migrate(empty_database.owner_url, currency="OMR", runtime_role=RUNTIME)
    query = "SELECT sum(amount_omr), sum(amount_minor) FROM credit_ledger GROUP BY customer_id"
    assert await rows(empty_database, query) == [(0, 0)]
    assert await rows(empty_database, "SELECT count(*) FROM vouchers.account") == [(2,)]
    assert await verify(empty_database.admin_url) == []


async def test_missing_account_is_opened_by_any_writer(ledger: Ledger, database: Database) -> None:
    await issue(database)
    async with GoService.connect(database.owner_url) as go:
        for user in ("redeems", "buys", "spends", "undoes", "nobody"):
            await go.customer(user)
        await rows(
            database,
            "INSERT INTO credit_ledger (customer_id, amount_omr, reason) SELECT id, 3, 'gift' FROM customers",
        )
        await rows(database, "DELETE FROM vouchers.account")
        assert await ledger.balance("redeems") == 3_000
        assert redeem_outcome(await ledger.redeem(redeem_request(user="redeems"))) == "redeemed"
        await place_purchase(ledger, purchase_request(2_000, user="buys"))
        await go.spend(await go.customer("spends"), 1)
        await rows(database, "DELETE FROM vouchers.account WHERE true")
        await go.undo(await go.customer("redeems"), "CODE")
    plan = Plan(database.owner_url, "OMR", 3, RUNTIME, 60)
    await rows(database, "UPDATE vouchers.account_backfill SET finished = false, upto = %s", str(UUID(int=0)))
    await asyncio.to_thread(open_accounts, plan, portion=2)
    assert {await ledger.balance(user) for user in ("redeems", "undoes", "nobody")} == {3_000}
    assert (await ledger.balance("buys"), await ledger.balance("spends")) == (1_000, 2_000)
    assert await rows(database, "SELECT count(*) FROM vouchers.account") == [(5,)]


async def test_concurrent_writers_keep_both_sums_equal(ledger: Ledger, database: Database) -> None:
    """Two operators and the Go service grant, spend and undo fractions of a few customers at the same moment."""
    users = [f"user-{n}" for n in range(4)]
    codes = [f"CODE-{n}" for n in range(8)]
    for n, code in enumerate(codes):
        await ledger.put(terms(code, uid=f"v{n}", name=f"v{n}", credit_minor=300 + 137 * n))

    async def go_works(some: list[tuple[str, str]]) -> None:
        async with GoService.connect(database.owner_url) as go:
            for user, code in some:
                customer = await go.customer(user)
                try:
                    await go.redeem(customer, code)
                except RedemptionRefused:
                    await go.undo(customer, code)

    async with open_ledger(database.runtime_url) as other:
        ledgers = itertools.cycle((ledger, other))
        pairs = [(user, code) for user in users for code in codes]
        await asyncio.gather(
            go_works(pairs),
            go_works(pairs[::-1]),
            *(next(ledgers).redeem(redeem_request(code, user)) for user, code in pairs * 2),
            *(next(ledgers).purchase(purchase_request(400, user=user, payable=False)) for user in users * 3),
        )
    async with GoService.connect(database.owner_url) as go:
        for user in users:
            exact = await ledger.balance(user)
            assert await go.balance(await go.customer(user)) == exact // 1000
    # The Go service's undo does not ask whether the credit is spent.
    await rows(
        database,
        "INSERT INTO credit_ledger (customer_id, amount_omr, reason) "
        "SELECT customer_id, 100, 'gift' FROM vouchers.account WHERE balance_minor < 0",
    )


amounts = st.integers(-3_000, 3_000)
writes = st.lists(st.tuples(st.sampled_from("ubd"), amounts), min_size=1, max_size=12)


def test_whole_units_are_the_floor_of_the_exact_sum_after_every_write(database18: Database) -> None:
    """Any history of exact entries, whole entries and deletions."""
    with psycopg.connect(database18.owner_url, autocommit=True) as owner:
        row = owner.execute(
            "INSERT INTO customers (user_id, tenant_id, email) VALUES ('h', 't', 'e') RETURNING id"
        ).fetchone()
        assert row is not None

        @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck), database=None)
        @given(writes)
        def follows(history: list[tuple[str, int]]) -> None:
            for kind, amount in history:
                if kind == "u":
                    owner.execute(
                        "INSERT INTO credit_ledger (customer_id, amount_omr, amount_minor, reason) "
                        "VALUES (%s, 0, %s, 'x')",
                        (row[0], amount),
                    )
                elif kind == "b":
                    owner.execute(
                        "INSERT INTO credit_ledger (customer_id, amount_omr, reason) VALUES (%s, %s, 'x')",
                        (row[0], amount // 1000),
                    )
                else:
                    owner.execute("DELETE FROM credit_ledger WHERE id IN (SELECT id FROM credit_ledger LIMIT 2)")
                sums = owner.execute(
                    "SELECT coalesce(sum(amount_omr), 0), coalesce(sum(amount_minor), 0), "
                    "(SELECT balance_minor FROM vouchers.account) FROM credit_ledger"
                ).fetchone()
                assert sums is not None
                assert (sums[0], sums[2]) == (int(sums[1]) // 1000, sums[1])

        follows()


async def test_order_beyond_the_exact_balance_is_refused(ledger: Ledger) -> None:
    await ledger.put(terms(credit_minor=900))
    await ledger.redeem(redeem_request(user="u"))
    result = await ledger.purchase(purchase_request(901, user="u", payable=False))
    assert result.refusal is Reason.PAYMENT_PROCESSOR_NOT_CONFIGURED
    await place_purchase(ledger, purchase_request(900, user="u", payable=False))
