"""A ledger with a history: what `verify`, `export` and the periodic reads cost. `benchmarks` has the method.

See also: `testbed.large_ledger` writes the ledgers; `tests.ledger.test_plans` counts rows on a small one.
"""

import asyncio
import time
from collections.abc import Mapping
from statistics import median
from typing import Any, Final

import psycopg

from benchmarks.report import line, ratios, title
from testbed.cluster import migrate
from testbed.large_ledger import BUSY, SERVED, Size, fill
from testbed.postgres import Database, PostgresServer, Version
from voucher_operator.ledger.admin.verify import Invariant
from voucher_operator.ledger.api import Ledger
from voucher_operator.ledger.purchase.rows import UNDERSTOOD
from voucher_operator.ledger.session import OPERATOR, SESSION
from voucher_operator.ledger.statements import statement

_SMALLER: Final = 100
_FLOOR: Final = b"SELECT count(*), sum(amount_omr), max(reason) FROM credit_ledger"
_AGE: Final = "UPDATE vouchers.outbox SET published_at = published_at - interval '60 days'"
_EXPORTS: Final = ("vouchers", "redemptions", "entries", "purchases")
_READS: Final[Mapping[str, Mapping[str, Any]]] = {
    "payment_stale": {"seconds": 3600.0, "limit": 100, **UNDERSTOOD},
    "purchase_undelivered": {"namespaces": [SERVED, "shop"], "seconds": 300.0, "limit": 500, **UNDERSTOOD},
    "outbox_purge": {"after": None, "limit": 2000},
    "webhook_event_purge": {"after": None, "limit": 2000},
    "outbox_backlog": {},
    "outbox_pending": {"without": [], "limit": 500},
    "account_entries": {"user": BUSY, "limit": 20},
    "account_balance": {"user": BUSY},
}


def measure(version: Version, rounds: int, redemptions: int) -> None:
    """Write a ledger of so many redemptions and one of a hundredth, measure both, and print it."""
    with PostgresServer(version, fsync=True) as server:
        small, large = (_ledger(server, n) for n in (redemptions // _SMALLER, redemptions))
        size = Size.of(redemptions)
        title(
            f"size: PostgreSQL {version}, {size.redemptions:,} redemptions, {size.entries:,} entries, one customer "
            f"with {size.busy:,}; the other ledger has a hundredth of all"
        )
        _print_commands(large, rounds)
        _print_reads(small, large, rounds)
        _print_purge(large, size)


def _ledger(server: PostgresServer, redemptions: int) -> Database:
    database = server.database(f"of_{redemptions}")
    migrate(database)
    fill(database, Size.of(redemptions))
    return database


def _print_commands(large: Database, rounds: int) -> None:
    """Each query of `verify` and `export`, beside one pass over the entries: seconds, and how many passes that is."""
    with psycopg.connect(large.runtime_url, autocommit=True) as conn:
        floor = [_timed(conn, _FLOOR) for _ in range(rounds)]
        line("one pass over the entries", floor, "s", 2)
        for name in (f"verify_{invariant}" for invariant in Invariant):
            times = [_timed(conn, statement(name)) for _ in range(rounds)]
            line(f"{name}", times, "s", 2)
            line("    to the pass", ratios(times, floor), "times", 1)
        for what in _EXPORTS:
            times = [_gathered(conn, what) for _ in range(rounds)]
            line(f"export {what}, until the first row", times, "s", 2)
            line("    to the pass", ratios(times, floor), "times", 1)


def _print_reads(small: Database, large: Database, rounds: int) -> None:
    """Each periodic read on both ledgers: milliseconds, and what a hundred times the history makes of it."""
    for name, values in _READS.items():
        few, many = ([_read(one, name, values) for _ in range(rounds)] for one in (small, large))
        line(f"{name}", many, "ms", 2)
        line("    to that of the small ledger", ratios(many, few), "times", 1)


def _print_purge(large: Database, size: Size) -> None:
    with psycopg.connect(large.admin_url, autocommit=True) as admin:
        admin.execute(_AGE)
    took = asyncio.run(_tidied(large))
    line("purge, all events old", [size.events / took], "/s")


async def _tidied(large: Database) -> float:
    ledger = Ledger(lambda: large.runtime_url)
    await ledger.open()
    try:
        began = time.perf_counter()
        await ledger.purge(3600)
        return time.perf_counter() - began
    finally:
        await ledger.close()


def _timed(conn: psycopg.Connection[Any], query: bytes) -> float:
    began = time.perf_counter()
    conn.execute(query).fetchall()
    return time.perf_counter() - began


def _gathered(conn: psycopg.Connection[Any], what: str) -> float:
    began = time.perf_counter()
    with conn.cursor("export", withhold=True) as cursor:
        cursor.execute(statement(f"export_{what}"))
        cursor.fetchone()
        return time.perf_counter() - began


def _read(database: Database, name: str, values: Mapping[str, Any]) -> float:
    """Return the median time of a statement in a session of the operator, prepared, in milliseconds; nothing stays."""
    times: list[float] = []
    with psycopg.connect(database.runtime_url, autocommit=True, prepare_threshold=0) as conn:
        conn.execute(SESSION, OPERATOR)
        for _ in range(20):
            with conn.transaction(force_rollback=True):
                began = time.perf_counter()
                conn.execute(statement(name), values)
                times.append(1e3 * (time.perf_counter() - began))
    return median(times)
