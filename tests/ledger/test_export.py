"""What `export` writes: every row once, in two formats, without a secret code, in memory that stays flat."""

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import AsyncConnection

from testbed.postgres import Database
from tests.ledger.go_service import GoService
from tests.ledger.ledger_rows import FIRST, SECOND, SECRET, fill
from tests.ledger.purchase_rows import place
from voucher_operator.ledger.admin.export import Format, What, export
from voucher_operator.ledger.purchase.types import PurchaseState
from voucher_operator.resources.errors import LedgerUnavailableError

ROOT = Path(__file__).parents[2]
WHATS: tuple[What, ...] = ("vouchers", "redemptions", "entries")
ALL: tuple[What, ...] = (*WHATS, "purchases")


async def text(database: Database, what: What, fmt: Format) -> str:
    out = io.StringIO()
    number = await export(database.runtime_url, what, fmt, out)
    assert number == out.getvalue().count("\n") - (fmt == "csv")
    return out.getvalue()


async def records(database: Database, what: What) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (await text(database, what, "jsonl")).splitlines()]


async def table(database: Database, what: What) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(await text(database, what, "csv"))))


async def test_export_writes_vouchers_without_secret_codes(database: Database) -> None:
    await fill(database)
    ours, secret, legacy = await records(database, "vouchers")
    assert ours == {
        "code": "OURS",
        "namespace": "billing",
        "name": "ours",
        "from_secret": False,
        "description": '+1 "launch", für alle',
        "credit": "25.500",
        "credit_minor": 25500,
        "active": True,
        "max_redemptions": 5,
        "times_redeemed": 1,
        "granted": "25.500",
        "granted_minor": 25500,
        "valid_from": None,
        "valid_until": "2027-01-01T00:00:00Z",
        "created_at": "2026-01-01T00:00:00.500000Z",
        "last_redeemed_at": "2026-02-01T00:00:00Z",
        "revoked_at": None,
        "currency": "OMR",
    }
    assert (secret["code"], secret["credit"]) == ("<secret billing/quiet>", "1.250")
    assert (legacy["code"], legacy["name"], legacy["credit_minor"]) == ("go-code", None, 10_000)


async def test_export_writes_all_redemptions(database: Database) -> None:
    await fill(database)
    one, two, three, four, legacy = await records(database, "redemptions")
    assert one == {
        "key": "shop/one",
        "outcome": "redeemed",
        "reason": None,
        "code": "OURS",
        "user_id": "=first",
        "customer_id": str(FIRST),
        "credit": "25.500",
        "credit_minor": 25500,
        "decided_at": "2026-02-01T00:00:00Z",
        "undone_at": None,
        "currency": "OMR",
    }
    assert two["code"] == "<secret billing/quiet>"
    assert (three["outcome"], three["undone_at"]) == ("undone", "2026-02-04T00:00:00Z")
    assert (four["outcome"], four["reason"], four["credit"]) == ("refused", "AlreadyRedeemed", "0.000")
    assert (legacy["key"], legacy["code"], legacy["credit"]) == (None, "go-code", "10.000")


async def test_export_writes_all_entries(database: Database) -> None:
    await fill(database)
    entries = await records(database, "entries")
    assert [(entry["reason"], entry["amount"]) for entry in entries] == [
        ("promo:OURS", "25.500"),
        ("promo:<secret billing/quiet>", "1.250"),
        ("promo:OURS", "25.500"),
        ("promo:OURS", "-25.500"),
        ("promo:go-code", "10.000"),
        ("order-payment", "-30.000"),
    ]
    assert sum(entry["amount_minor"] for entry in entries if entry["customer_id"] == str(FIRST)) == 6_750
    assert entries[3]["customer_id"] == str(SECOND)
    assert [bool(entry["order_id"]) for entry in entries] == [False] * 5 + [True]


async def test_export_writes_all_purchases(database18: Database) -> None:
    placed = await place(database18, PurchaseState.CANCELLED)
    (found,) = await records(database18, "purchases")
    times = {name: found.pop(name) for name in ("placed_at", "settled_at")}
    assert found == {
        "key": placed.key,
        "state": "cancelled",
        "reason": None,
        "order_id": placed.order,
        "user_id": "ahmed",
        "customer_id": placed.customer,
        "tenant_id": "kestrel-pharmacy",
        "plan_id": "l",
        "addons": "waf",
        "subdomain": "kestrel",
        "total": "50.000",
        "total_minor": 50_000,
        "held": "10.500",
        "held_minor": 10_500,
        "due": "39.500",
        "due_minor": 39_500,
        "granted": "0.000",
        "granted_minor": 0,
        "session_id": placed.session,
        "subscription_id": None,
        "currency": "OMR",
    }
    assert times["placed_at"].endswith("Z")


@pytest.mark.parametrize("what", ALL)
async def test_csv_and_jsonl_have_the_same_values(database18: Database, what: What) -> None:
    await fill(database18)
    await place(database18)
    assert await records(database18, what)
    for record, row in zip(await records(database18, what), await table(database18, what), strict=True):
        assert list(record) == list(row)
        for name, value in record.items():
            plain = "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
            assert row[name] in (plain, f"'{plain}")


async def test_csv_escapes_formulas(database18: Database) -> None:
    await fill(database18)
    async with await AsyncConnection.connect(database18.owner_url, autocommit=True) as owner:
        await owner.execute("INSERT INTO promo_codes (code, credit_omr, description) VALUES ('-1+CMD', 1, '@SUM(1)')")
    rows = await table(database18, "vouchers")
    assert [row["description"] for row in rows if row["code"] == "'-1+CMD"] == ["'@SUM(1)"]
    entries = await table(database18, "entries")
    assert {entry["user_id"] for entry in entries} == {"'=first", "second"}
    # Amounts are numbers, and stay so.
    assert {entry["amount"] for entry in entries} >= {"-25.500", "-30.000"}


@pytest.mark.parametrize("fmt", ["jsonl", "csv"])
@pytest.mark.parametrize("what", WHATS)
async def test_export_contains_no_secret_code(database18: Database, what: What, fmt: Format) -> None:
    await fill(database18)
    async with GoService.connect(database18.owner_url) as go:
        padded = f" {SECRET.lower()}\n"
        await go.issue(padded, 1)
        await go.redeem(SECOND, padded)
    written = await text(database18, what, fmt)
    assert SECRET not in written.upper()
    assert written.count("<secret billing/quiet>") == 2


async def test_export_of_an_empty_ledger_has_no_rows(database: Database) -> None:
    for what in ALL:
        assert await text(database, what, "jsonl") == ""
        assert len((await text(database, what, "csv")).splitlines()) == 1


async def test_export_of_an_unmigrated_ledger_is_an_error(empty_database: Database) -> None:
    with pytest.raises(LedgerUnavailableError, match="voucher-operator migrate"):
        await export(empty_database.owner_url, "entries", "csv", io.StringIO())


async def test_slow_reader_holds_no_table_lock(database: Database) -> None:
    """The reader of the lines may be slow: the Go service still gets its table locks."""
    await fill(database)

    class Reader(io.StringIO):
        def write(self, line: str) -> int:
            with psycopg.connect(database.owner_url) as owner:
                owner.execute("SET LOCAL lock_timeout = '1s'")
                owner.execute("LOCK TABLE promo_codes, credit_ledger, customers, promo_redemptions")
            return super().write(line)

    for what in WHATS:
        assert await export(database.runtime_url, what, "jsonl", Reader()) > 2


SLOW_SCALE = """
CREATE OR REPLACE FUNCTION vouchers.scale() RETURNS bigint LANGUAGE plpgsql STABLE AS
    'BEGIN PERFORM pg_sleep(600); RETURN 1000; END'
"""


async def test_export_query_is_cancelled_at_the_statement_limit(database: Database) -> None:
    """PostgreSQL's own limit does not stop what it does at the end of a transaction. No lock stays."""
    await fill(database)
    with psycopg.connect(database.admin_url, autocommit=True) as admin:
        admin.execute("UPDATE credit_ledger SET amount_minor = NULL WHERE amount_omr < 0")
        admin.execute(SLOW_SCALE)
        out = io.StringIO()
        with pytest.raises(LedgerUnavailableError, match=r"longer than 0\.5 s and was stopped: .*--statement-limit"):
            await export(database.runtime_url, "entries", "jsonl", out, statement_limit=0.5)
        assert out.getvalue() == ""
        admin.execute("SET lock_timeout = '5s'")
        admin.execute("ALTER TABLE credit_ledger ADD COLUMN IF NOT EXISTS status text")


MEASURE = """
import asyncio, resource, sys
from voucher_operator.ledger.admin.export import export
with open("/dev/null", "w") as out:
    print(asyncio.run(export(sys.argv[1], "entries", "csv", out)))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""
MANY = f"""
INSERT INTO credit_ledger (customer_id, amount_omr, amount_minor, balance_minor, reason)
SELECT '{FIRST}', 1, 1000, 1000 * n, 'gift number ' || n FROM generate_series(1, 100000) AS n
"""


def peak(database: Database) -> tuple[int, int]:
    """Rows written by an export in a process of its own, and the most memory that the process had, in KiB."""
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, database.runtime_url],
        env={**os.environ, "PYTHONPATH": str(ROOT / "operator")},
        capture_output=True,
        text=True,
        check=True,
    )
    rows, memory = map(int, done.stdout.split())
    return rows, memory


async def test_memory_does_not_grow_with_the_rows(database18: Database) -> None:
    await fill(database18)
    few, small = peak(database18)
    async with await AsyncConnection.connect(database18.owner_url, autocommit=True) as owner:
        await owner.execute(MANY.encode())
    many, large = peak(database18)
    assert many == few + 100_000
    assert large < small + 8 * 1024
