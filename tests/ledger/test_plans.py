"""What the statements read on a ledger with a history: as much as they return, and a command each row a few times.

Rows are counted, not time: on a ledger of this size a wrong plan reads thousands too many. `benchmarks.size` has the
times at full size. See also: `testbed.large_ledger` writes the ledger.
"""

import json
import re
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest
from psycopg import sql

from testbed.large_ledger import BUSY, SERVED, UNSERVED, Size, fill
from testbed.postgres import Database
from voucher_operator.ledger.admin.verify import Invariant, verify
from voucher_operator.ledger.purchase.rows import UNDERSTOOD
from voucher_operator.ledger.statements import statement

SIZE = Size.of(10_000)
LIMIT = 10
COMMANDS = [f"verify_{invariant}" for invariant in Invariant] + [
    f"export_{what}" for what in ("vouchers", "redemptions", "entries", "purchases")
]
TYPES = {
    "seconds": "float8",
    "limit": "int8",
    "namespaces": "text[]",
    "after": "timestamptz",
    "user": "text",
    "uids": "text[]",
    "without": "text[]",
    **dict.fromkeys(UNDERSTOOD, "text[]"),
}

pytestmark = pytest.mark.xdist_group("large-ledger")


@pytest.fixture(scope="module", params=[16, 18], ids=["pg16", "pg18"])
def large(request: pytest.FixtureRequest) -> Iterator[Database]:
    """A ledger with a history, on each version. Nobody changes it: tests roll back."""
    server = request.getfixturevalue(f"postgres{request.param}")
    database = server.database(f"t{secrets.token_hex(6)}", request.getfixturevalue(f"template{request.param}"))
    fill(database, SIZE)
    yield database
    server.drop(database)


@pytest.fixture
def conn(large: Database) -> Iterator[psycopg.Connection[Any]]:
    """A session with the operator's settings, and rights to set the stage; what it does is rolled back."""
    with psycopg.connect(large.admin_url, autocommit=True) as admin:
        admin.execute(statement("session"))
        with admin.transaction(force_rollback=True):
            yield admin


@dataclass(frozen=True)
class StatementRun:
    """What a statement returned and read."""

    returned: int
    read: int


def run(conn: psycopg.Connection[Any], name: str, **values: Any) -> StatementRun:
    """Run a statement as a session of the operator does, prepared, and count the rows that its scans have read."""
    given = statement(name).decode()
    names = list(dict.fromkeys(re.findall(r"%\((\w+)\)s", given)))
    text = re.sub(r"%\((\w+)\)s", lambda found: f"${names.index(found[1]) + 1}", given).replace("%%", "%")
    types = f"({', '.join(TYPES[one] for one in names)})" if names else ""
    values = UNDERSTOOD | values
    arguments = sql.SQL(", ").join(sql.SQL("{}::" + TYPES[one]).format(values[one]) for one in names)
    conn.execute("DEALLOCATE ALL")
    conn.execute(f"PREPARE tried {types} AS {text}".encode())
    call = sql.SQL("EXECUTE tried({})").format(arguments) if names else sql.SQL("EXECUTE tried")
    return explained(conn, call)


def explained(conn: psycopg.Connection[Any], query: sql.Composable) -> StatementRun:
    row = conn.execute(sql.SQL("EXPLAIN (ANALYZE, FORMAT JSON) {}").format(query)).fetchone()
    assert row is not None
    plan = row[0][0]["Plan"]
    return StatementRun(
        round(plan["Actual Rows"] * plan["Actual Loops"]), round(sum(_read(node) for node in _nodes(plan)))
    )


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for part in plan.get("Plans", []):
        yield from _nodes(part)


def _read(node: dict[str, Any]) -> float:
    if "Scan" not in node["Node Type"] or "Relation Name" not in node:
        return 0
    dropped = node.get("Rows Removed by Filter", 0) + node.get("Rows Removed by Index Recheck", 0)
    return float((node["Actual Rows"] + dropped) * node["Actual Loops"])


def test_ledger_has_the_given_size(conn: psycopg.Connection[Any]) -> None:
    counted = {
        table: conn.execute(f"SELECT count(*) FROM {table}".encode()).fetchone()
        for table in ("vouchers.redemption", "credit_ledger", "vouchers.outbox", "vouchers.webhook_event")
    }
    assert [row and row[0] for row in counted.values()] == [
        SIZE.redemptions,
        SIZE.entries,
        SIZE.events,
        SIZE.webhook_events,
    ]


async def test_verify_finds_nothing(large: Database) -> None:
    assert await verify(large.runtime_url) == []


QUIET = [
    ("payment_stale", {"seconds": 3600.0, "limit": 100}),
    ("purchase_undelivered", {"namespaces": [SERVED, "shop"], "seconds": 300.0, "limit": 500}),
    ("purchase_open", {"limit": 1000}),
    ("outbox_purge", {"after": None, "limit": 2000}),
    ("webhook_event_purge", {"after": None, "limit": 2000}),
    ("outbox_pending", {"without": ["tenant"], "limit": 500}),
    ("outbox_backlog", {}),
]


@pytest.mark.parametrize(("name", "values"), QUIET, ids=[name for name, _ in QUIET])
def test_statement_without_result_reads_no_rows(
    conn: psycopg.Connection[Any], name: str, values: dict[str, Any]
) -> None:
    assert run(conn, name, **values).read == 0


def test_payment_lookup_reads_up_to_the_limit(conn: psycopg.Connection[Any]) -> None:
    """Thousands are due, of both kinds: each is found, locked and written."""
    conn.execute("UPDATE vouchers.purchase SET look_at = now() - interval '1 day' WHERE state = 'completed'")
    conn.execute("UPDATE vouchers.purchase SET checked_at = placed_at WHERE state = 'awaiting_payment'")
    ran = run(conn, "payment_stale", seconds=-3600.0, limit=LIMIT)
    assert ran.returned == 2 * LIMIT
    assert ran.read <= 2 * 2 * LIMIT


def test_delivery_reads_up_to_the_limit(conn: psycopg.Connection[Any]) -> None:
    ran = run(conn, "purchase_undelivered", namespaces=[SERVED, UNSERVED], seconds=300.0, limit=LIMIT)
    assert ran.returned == LIMIT
    assert ran.read <= 3 * LIMIT


def test_delivery_does_not_read_paused_purchases(conn: psycopg.Connection[Any]) -> None:
    """Thousands of ends cannot be delivered; one is new."""
    conn.execute(
        "UPDATE vouchers.purchase SET checked_at = clock_timestamp() WHERE key LIKE %s AND settled_at IS NOT NULL",
        (f"{UNSERVED}/%",),
    )
    conn.execute(
        "UPDATE vouchers.purchase SET settled_at = clock_timestamp() "
        "WHERE key = (SELECT max(key) FROM vouchers.purchase WHERE key LIKE %s)",
        (f"{UNSERVED}/%",),
    )
    ran = run(conn, "purchase_undelivered", namespaces=[UNSERVED], seconds=300.0, limit=LIMIT)
    assert ran.returned == 1
    assert ran.read <= 3


OLDER = """
SELECT p.key FROM vouchers.purchase AS p
WHERE p.state NOT IN ('pending', 'awaiting_payment') AND p.delivered_at IS DISTINCT FROM p.settled_at
  AND split_part(p.key, '/', 1) = ANY (ARRAY['billing', 'shop'])
ORDER BY greatest(p.checked_at, p.placed_at) LIMIT 500 FOR NO KEY UPDATE SKIP LOCKED
"""
OLD = [
    ("outbox_purge", "vouchers.outbox", "published_at"),
    ("webhook_event_purge", "vouchers.webhook_event", "received_at"),
]


def test_statement_of_an_older_operator_uses_the_new_index(conn: psycopg.Connection[Any]) -> None:
    """Its index was dropped, and it finds what it looks for in the new one."""
    assert explained(conn, sql.SQL(OLDER)) == StatementRun(0, 0)


@pytest.mark.parametrize(("name", "table", "column"), OLD, ids=[name for name, _, _ in OLD])
def test_purge_reads_up_to_the_limit(conn: psycopg.Connection[Any], name: str, table: str, column: str) -> None:
    conn.execute(f"UPDATE {table} SET {column} = {column} - interval '85 days'".encode())
    ran = run(conn, name, after=None, limit=LIMIT)
    assert ran.read <= 2 * LIMIT
    left = conn.execute(f"SELECT count(*) FROM {table}".encode()).fetchone()
    assert left == (SIZE.events - LIMIT,)


def test_newest_entries_are_read_by_index(conn: psycopg.Connection[Any]) -> None:
    ran = run(conn, "account_entries", user=BUSY, limit=LIMIT)
    assert ran.returned == LIMIT
    assert ran.read <= 3 * LIMIT


def test_counters_read_no_redemptions(conn: psycopg.Connection[Any]) -> None:
    codes = conn.execute("SELECT count(*) FROM promo_codes").fetchone()
    assert codes is not None
    ran = run(conn, "voucher_counters", uids=None)
    assert ran.returned == codes[0]
    assert ran.read <= 4 * codes[0]


@pytest.mark.parametrize("name", COMMANDS)
def test_commands_call_the_scale_function_at_most_ten_times(large: Database, name: str) -> None:
    """Not for each row. These sessions have the server's own settings for plans."""
    with psycopg.connect(large.admin_url) as conn:
        conn.execute("SET track_functions = 'all'")
        conn.execute(statement(name))
        calls = conn.execute(
            "SELECT coalesce(sum(calls), 0)::integer FROM pg_stat_xact_user_functions "
            "WHERE schemaname = 'vouchers' AND funcname IN ('scale', 'whole')"
        ).fetchone()
    assert calls is not None
    assert calls[0] <= 10


@pytest.mark.parametrize("writer", ["operator", "Go service"])
@pytest.mark.parametrize("name", COMMANDS)
def test_commands_read_each_row_at_most_twice(large: Database, name: str, writer: str) -> None:
    """Whoever made the redemptions: those of the Go service have no row of ours."""
    with psycopg.connect(large.admin_url) as conn:
        if writer == "Go service":
            conn.execute("DELETE FROM vouchers.redemption")
        # Each version shows the rows of parallel workers in another way.
        conn.execute("SET LOCAL max_parallel_workers_per_gather = 0")
        ran = explained(conn, sql.SQL(statement(name).decode()))
        conn.rollback()
    rows = SIZE.entries + 2 * SIZE.redemptions + 2 * (SIZE.purchases + SIZE.awaiting + SIZE.unserved)
    assert ran.read <= 2 * rows


def test_plan_parser_counts_filtered_rows_and_loops() -> None:
    """Rows that a filter drops count; so does each turn of a loop."""
    plan = json.loads(
        '{"Node Type": "Nested Loop", "Actual Rows": 1, "Actual Loops": 1, "Plans": [{"Node Type": "Index Scan", '
        '"Relation Name": "t", "Actual Rows": 2, "Actual Loops": 3, "Rows Removed by Filter": 5}]}'
    )
    assert sum(_read(node) for node in _nodes(plan)) == 21
