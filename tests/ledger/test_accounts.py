"""Accounts under every way to write entries: imports, corrections, restores, hostile readers.

See also: `test_fractions` for what the Go service writes; migrations/0012.entries-in-balance.sql.
"""

import asyncio
import secrets
from collections.abc import Iterator
from uuid import uuid4

import psycopg
import pytest
from psycopg import errors

from testbed.postgres import OWNER, RUNTIME, Database
from tests.ledger.backfill_helpers import SLOW_INDEX
from tests.ledger.go_service import GoService
from tests.ledger.helpers import issue, open_ledger, redeem_outcome, redeem_request, rows
from voucher_operator.ledger.admin.verify import verify
from voucher_operator.ledger.api import Ledger
from voucher_operator.ledger.schema import session as migrate_session
from voucher_operator.ledger.schema.migrate import migrate
from voucher_operator.ledger.schema.session import MigrationError
from voucher_operator.resources.keys import Key

SUMS = (
    "SELECT a.balance_minor, coalesce(sum(e.amount_minor), 0)::bigint, coalesce(sum(e.amount_omr), 0)::bigint "
    "FROM vouchers.account AS a LEFT JOIN credit_ledger AS e USING (customer_id) GROUP BY a.customer_id"
)


async def customer(database: Database, user: str = "u") -> str:
    async with GoService.connect(database.owner_url) as go:
        return str(await go.customer(user))


@pytest.mark.parametrize("instead", ["NOTHING", "UPDATE SET amount_omr = excluded.amount_omr"])
async def test_insert_with_conflict_leaves_account_and_counter_unchanged(
    ledger: Ledger, database: Database, instead: str
) -> None:
    await issue(database, credit_omr=10)
    values, one = await customer(database), str(uuid4())
    insert = "INSERT INTO credit_ledger (id, customer_id, amount_omr, reason) VALUES (%s, %s, 10, 'promo:CODE')"
    await rows(database, "INSERT INTO promo_redemptions (customer_id, code) VALUES (%s, 'CODE')", values)
    await rows(database, "UPDATE promo_codes SET times_redeemed = 1")
    for _ in range(3):
        await rows(database, f"{insert} ON CONFLICT (id) DO {instead}", one, values)
    assert await rows(database, SUMS) == [(10_000, 10_000, 10)]
    assert await rows(database, "SELECT granted_minor FROM promo_codes") == [(10_000,)]
    assert await ledger.balance("u") == 10_000


async def test_correction_of_whole_units_changes_the_exact_amount(ledger: Ledger, database: Database) -> None:
    insert = "INSERT INTO credit_ledger (customer_id, amount_omr, reason) VALUES (%s, 100, 'typo')"
    await rows(database, insert, await customer(database))
    await rows(database, "UPDATE credit_ledger SET amount_omr = 10")
    assert await rows(database, SUMS) == [(10_000, 10_000, 10)]
    assert await ledger.balance("u") == 10_000


async def test_truncated_ledger_sets_balance_to_zero(ledger: Ledger, database: Database) -> None:
    insert = "INSERT INTO credit_ledger (customer_id, amount_omr, reason) VALUES (%s, 5, 'gift')"
    await rows(database, insert, await customer(database))
    await rows(database, "TRUNCATE credit_ledger")
    assert await ledger.balance("u") == 0


async def test_account_restored_without_triggers_is_reported_and_recomputed(database: Database) -> None:
    """As after a restore of data alone: entries have their balances, accounts do not."""
    insert = (
        "INSERT INTO credit_ledger (customer_id, amount_omr, amount_minor, balance_minor, reason) "
        "VALUES (%s, 0, 900, 900, 'gift'), (%s, 0, 900, 1800, 'gift')"
    )
    who = await customer(database)
    await rows(database, insert, who, who)
    assert {v.invariant for v in await verify(database.admin_url)} == {"accounts"}
    async with await psycopg.AsyncConnection.connect(database.owner_url, autocommit=True) as owner:
        await owner.execute("SELECT vouchers.recompute_account(customer_id) FROM vouchers.account")
    assert await rows(database, SUMS) == [(1_800, 1_800, 1)]
    assert await verify(database.admin_url) == []


async def test_account_is_not_opened_in_repeatable_read(database: Database) -> None:
    who = await customer(database)
    await rows(database, "DELETE FROM vouchers.account")
    insert = "INSERT INTO credit_ledger (customer_id, amount_omr, reason) VALUES (%s, 5, 'gift')"
    async with await psycopg.AsyncConnection.connect(database.owner_url) as other:
        await other.set_isolation_level(psycopg.IsolationLevel.REPEATABLE_READ)
        with pytest.raises(errors.SerializationFailure, match="READ COMMITTED"):
            await other.execute(insert, (who,))
    await rows(database, insert, who)
    async with await psycopg.AsyncConnection.connect(database.owner_url) as other:
        await other.set_isolation_level(psycopg.IsolationLevel.REPEATABLE_READ)
        await other.execute(insert, (who,))
    assert await rows(database, SUMS) == [(10_000, 10_000, 10)]


TRAP = """
CREATE FUNCTION public.{0}({1}, {2}) RETURNS {3} LANGUAGE plpgsql AS $$ BEGIN RAISE 'ran as %', current_user; END $$;
CREATE OPERATOR public.{4} (LEFTARG = {1}, RIGHTARG = {2}, FUNCTION = public.{0});
"""
IS_LATE = """
CREATE FUNCTION public.is_late() RETURNS boolean LANGUAGE sql RETURN to_regclass('vouchers.dispute') IS NOT NULL
"""


@pytest.fixture
def reader(database: Database) -> Iterator[str]:
    """A role that may read, and may create in schema public as everybody could before PostgreSQL 15."""
    name = f"r{secrets.token_hex(6)}"
    with psycopg.connect(database.admin_url, autocommit=True) as admin:
        admin.execute(f"CREATE ROLE {name}".encode())
        admin.execute(f"GRANT USAGE ON SCHEMA vouchers TO {name}; GRANT ALL ON SCHEMA public TO {name}".encode())
        yield name
        admin.execute(f"DROP OWNED BY {name} CASCADE; DROP ROLE {name}".encode())


async def test_sql_operator_of_a_reader_does_not_run_as_owner(ledger: Ledger, database: Database, reader: str) -> None:
    """Mixed types have no exact operator in pg_catalog: a search_path with public in it would find the reader's."""
    with psycopg.connect(database.admin_url, autocommit=True) as admin:
        admin.execute(f"SET ROLE {reader}".encode())
        for name, left, right, answer in (
            ("-", "bigint", "numeric", "numeric"),
            ("+", "bigint", "numeric", "numeric"),
            ("<>", "numeric", "integer", "boolean"),
            ("*", "integer", "bigint", "bigint"),
        ):
            function = f"trap_{secrets.token_hex(4)}"
            admin.execute(TRAP.format(function, left, right, answer, name).encode())
    await issue(database)
    assert redeem_outcome(await ledger.redeem(redeem_request(user="u"))) == "redeemed"
    async with GoService.connect(database.owner_url) as go:
        gina = await go.customer("gina")
        await go.redeem(gina, "CODE")
        assert await go.undo(gina, "CODE")
        assert await go.undo(await go.customer("u"), "CODE")


async def test_stopped_migration_leaves_no_security_definer_function_executable(
    empty_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(migrate_session._SESSION, "statement_timeout", "1s")
    with psycopg.connect(empty_database.owner_url, autocommit=True) as owner:
        owner.execute(IS_LATE)
    with psycopg.connect(empty_database.admin_url, autocommit=True) as admin:
        admin.execute(SLOW_INDEX.replace("BEGIN", "BEGIN IF NOT public.is_late() THEN RETURN; END IF;", 1))
        with pytest.raises(MigrationError, match="took longer"):
            await migrate(empty_database.owner_url, currency="OMR", runtime_role=RUNTIME)
        found = admin.execute(
            "SELECT p.oid::regprocedure::text FROM pg_proc AS p WHERE p.pronamespace = 'vouchers'::regnamespace "
            "AND p.prosecdef AND has_function_privilege('public', p.oid, 'EXECUTE')"
        ).fetchall()
    assert found == []


async def test_undone_requests_are_listed_in_turn(ledger: Ledger, database: Database) -> None:
    await issue(database)
    keys = [f"billing/u{n}" for n in range(3)]
    async with open_ledger(database.runtime_url) as other, GoService.connect(database.owner_url) as go:
        for key in keys:
            await other.redeem(redeem_request(user=key, key=key))
            assert await go.undo(await go.customer(key), "CODE")
    seen = [await ledger.undone_elsewhere(["billing"], 0.0, 1) for _ in range(6)]
    assert [one for page in seen for one in page] == keys * 2
    assert await rows(database, "SELECT DISTINCT undone_by FROM vouchers.redemption") == [(OWNER,)]
    await asyncio.gather(*(ledger.record_undo_reported([Key(key)]) for key in keys))
