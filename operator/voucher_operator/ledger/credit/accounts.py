"""What is on a customer's account, and which redemptions another writer has undone.

See also: `redeem` puts the credit there; `purchases` undoes a redemption when it compensates an order.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

import psycopg
from psycopg.rows import class_row, dict_row, scalar_row

from voucher_operator.ledger.connector import Connection
from voucher_operator.ledger.errors import schema_missing
from voucher_operator.ledger.fetch import fetch_all, fetch_one
from voucher_operator.ledger.statements import statement
from voucher_operator.ledger.types import Entry, LedgerInfo
from voucher_operator.resources.keys import Key

_INFO: Final = statement("ledger_info")
_BALANCE: Final = statement("account_balance")
_ENTRIES: Final = statement("account_entries")
_UNDO_UNREPORTED: Final = statement("undo_unreported")
_UNDO_REPORTED: Final = statement("undo_reported")


async def info(conn: Connection) -> LedgerInfo:
    """Read the ledger's identity. Raises psycopg's errors and LedgerUnavailableError."""
    found, _ = await _info(conn)
    return found


async def check(conn: Connection) -> LedgerInfo:
    """Read the same from a session that may write.

    It asks, and writes nothing: the answer is that of any write, on a standby and under a read-only default, needs no
    right and no table, and leaves no dead row behind, however many replicas are probed. A server that takes no write
    for another reason (a full disk) says so at the write.

    Raises psycopg's errors (ReadOnlySqlTransaction: the session may not write) and LedgerUnavailableError.
    """
    found, read_only = await _info(conn)
    if read_only:
        raise psycopg.errors.ReadOnlySqlTransaction("the session is read-only")
    return found


async def _info(conn: Connection) -> tuple[LedgerInfo, bool]:
    asked = datetime.now(UTC)
    row = await fetch_one(conn, _INFO, rows=dict_row)
    answered = datetime.now(UTC)
    if row is None:
        raise schema_missing()
    offset = row["now"] - (asked + (answered - asked) / 2)
    return LedgerInfo(row["currency"], row["minor_digits"], row["now"], offset), row["read_only"]


async def balance(conn: Connection, user_id: str) -> int:
    """Return the sum of a customer's entries, in minor units. Raises psycopg's errors."""
    return int(await fetch_one(conn, _BALANCE, {"user": user_id}, rows=scalar_row) or 0)


async def entries(conn: Connection, user_id: str, limit: int) -> list[Entry]:
    """List a customer's newest entries, the newest first. Raises psycopg's errors."""
    return await fetch_all(conn, _ENTRIES, {"user": user_id, "limit": limit}, rows=class_row(Entry))


async def undone_elsewhere(
    conn: Connection, namespaces: Sequence[str], older_than_seconds: float, limit: int
) -> dict[Key, datetime]:
    """Take keys whose redemption another writer has undone, and when; each is now checked. Raises psycopg's errors."""
    values = {"namespaces": list(namespaces), "seconds": older_than_seconds, "limit": limit}
    cursor = await conn.execute(_UNDO_UNREPORTED, values)
    return {Key(key): undone_at for key, undone_at in await cursor.fetchall()}


async def record_undo_reported(conn: Connection, keys: Sequence[Key]) -> None:
    """Record that these undone redemptions are reported. Idempotent. Raises psycopg's errors."""
    await conn.execute(_UNDO_REPORTED, {"keys": list(keys)})
