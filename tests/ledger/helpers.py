"""Helpers to call the ledger and to read its rows. Fixtures are in `conftest`."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from testbed.postgres import Database
from voucher_operator.ledger.api import Ledger
from voucher_operator.ledger.redemption.redeem import NO_LIMIT, redeem_batch
from voucher_operator.ledger.session import OPERATOR, SESSION, Pooler
from voucher_operator.ledger.types import AttemptLimit, RedeemRequest, RedeemResult, VoucherTerms
from voucher_operator.resources.keys import Key

_numbers = itertools.count(1)

ON_POSTGRESQL_16 = pytest.mark.parametrize("postgres", [16], ids=["pg16"], indirect=True)
"""For what both versions do alike: other tests run the same statements on both. The Go service's version is 16."""


def redeem_request(code: str = "CODE", user: str | None = None, **changes: Any) -> RedeemRequest:
    """Make a request with a key, and unless given a user, of its own."""
    n = next(_numbers)
    asked = RedeemRequest(
        key=Key(f"billing/r{n}"),
        request_hash=f"hash-{n}",
        uid=f"uid-{n}",
        code=code,
        user_id=user or f"user-{n}",
        tenant_id="tenant",
        email="someone@example.com",
    )
    return replace(asked, **changes)


def terms(code: str = "CODE", **changes: Any) -> VoucherTerms:
    """Make a Voucher's terms: 25.500 OMR, no cap, no window."""
    made = VoucherTerms(
        uid="voucher-1",
        namespace="billing",
        name="first",
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
        generation=1,
        code=code,
        from_secret=False,
        credit_minor=25_500,
        currency="OMR",
        description="a voucher",
        active=True,
        max_redemptions=0,
        valid_from=None,
        valid_until=None,
    )
    return replace(made, **changes)


def redeem_outcome(result: RedeemResult) -> str:
    """Return the refusal of a request, or its outcome."""
    return str(result.refusal or result.outcome)


async def rows(database: Database, query: str, *values: Any) -> list[tuple[Any, ...]]:
    """Run one statement as superuser; its rows, if it has any."""
    assert "SELECT FROM" not in query, "psycopg cannot count rows without columns"
    async with await psycopg.AsyncConnection.connect(database.admin_url, autocommit=True) as admin:
        cursor = await admin.execute(query.encode(), values)
        return await cursor.fetchall() if cursor.description else []


async def issue(database: Database, code: str = "CODE", credit_omr: int = 10, **columns: Any) -> None:
    """Insert a row as somebody without a Voucher does."""
    names = ["code", "credit_omr", *columns]
    query = f"INSERT INTO promo_codes ({', '.join(names)}) VALUES ({', '.join(['%s'] * len(names))})"
    await rows(database, query, code, credit_omr, *columns.values())


async def in_one_batch(
    ledger: Ledger, requests: Sequence[RedeemRequest], limit: AttemptLimit = NO_LIMIT
) -> list[RedeemResult]:
    """Redeem requests in one statement; returns the results that this version knows."""
    results = await ledger._pool.run(lambda conn: redeem_batch(conn, requests, limit))
    return [result for result in results if isinstance(result, RedeemResult)]


@asynccontextmanager
async def open_ledger(
    url: str | Callable[[], str], sovereign: str = "", attempts: AttemptLimit = NO_LIMIT, pooler: Pooler = "auto"
) -> AsyncIterator[Ledger]:
    """Open a ledger and close it in the end: one that is left open keeps the test's event loop from ending."""
    ledger = Ledger(url if callable(url) else lambda: url, sovereign=sovereign, attempts=attempts, pooler=pooler)
    await ledger.open()
    try:
        yield ledger
    finally:
        await ledger.close()


@asynccontextmanager
async def holding(database: Database, query: str, *values: Any) -> AsyncIterator[psycopg.AsyncConnection[Any]]:
    """Run a statement as superuser and keep its transaction, and its locks, open."""
    async with await psycopg.AsyncConnection.connect(database.admin_url) as other:
        await other.execute(query.encode(), values)
        yield other
        await other.rollback()


async def until(condition: Callable[[], bool]) -> None:
    """Poll a condition in this process. Raises TimeoutError after 20 seconds."""
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - there is no event to wait for
            await asyncio.sleep(0.01)


async def session(database: Database) -> psycopg.AsyncConnection[Any]:
    """Open one as a replica does, with its limits; but it may be idle in a transaction for a moment only."""
    conninfo = make_conninfo(database.runtime_url, application_name="voucher-operator")
    conn = await psycopg.AsyncConnection.connect(conninfo, autocommit=True)
    await conn.execute(SESSION, OPERATOR)
    await conn.execute("SET idle_in_transaction_session_timeout = '1ms'")
    return conn


@asynccontextmanager
async def frozen_session(database: Database, code: str) -> AsyncIterator[int]:
    """Have a replica that has locked a code and freezes before it ends its pipeline; the process id of its session."""
    conn = await session(database)
    pid = conn.info.backend_pid
    try:
        conn.pgconn.enter_pipeline_mode()
        lock = b"SELECT 1 FROM public.promo_codes WHERE code = $1 FOR NO KEY UPDATE"
        conn.pgconn.send_query_params(lock, [code.encode()])
        conn.pgconn.send_flush_request()
        conn.pgconn.flush()
        await until(lambda: session_exists(database, pid, "AND xact_start IS NOT NULL AND wait_event = 'ClientRead'"))
        yield pid
    finally:
        conn.pgconn.finish()


def session_exists(database: Database, pid: int, more: str = "") -> bool:
    """Whether a session is there, in a state that `more` says in SQL."""
    query = f"SELECT 1 FROM pg_stat_activity WHERE pid = {pid} {more}"
    with psycopg.connect(database.admin_url) as admin:
        return admin.execute(query.encode()).fetchone() is not None
