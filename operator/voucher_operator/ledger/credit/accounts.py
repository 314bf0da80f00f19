"""What is on a customer's account, and taking a redemption back.

Locks of an undo: promo_codes, then customers, the one order for all. See also: `redeem` puts the credit there.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from psycopg.rows import class_row, scalar_row

from voucher_operator.ledger.errors import schema_missing
from voucher_operator.ledger.fetch import fetch_all, fetch_one
from voucher_operator.ledger.pool import Connection
from voucher_operator.ledger.statements import statement
from voucher_operator.ledger.types import Entry, LedgerInfo, UndoResult
from voucher_operator.resources.errors import CreditSpentError
from voucher_operator.resources.keys import Key

_INFO: Final = statement("ledger_info")
_BALANCE: Final = statement("account_balance")
_ENTRIES: Final = statement("account_entries")
_UNDO_READ: Final = statement("undo_read")
_UNDO_LOCK_PROMO: Final = statement("undo_lock_promo")
_UNDO_LOCK_CUSTOMER: Final = statement("customer_lock")
_UNDO: Final = statement("undo")
_UNDO_UNREPORTED: Final = statement("undo_unreported")
_UNDO_REPORTED: Final = statement("undo_reported")


async def info(conn: Connection) -> LedgerInfo:
    """Read the ledger's identity. Raises psycopg's errors and LedgerUnavailableError."""
    found = await fetch_one(conn, _INFO, rows=class_row(LedgerInfo))
    if found is None:
        raise schema_missing()
    return found


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


async def undo(conn: Connection, key: Key) -> UndoResult:
    """Take back the redemption of `key`. Raises psycopg's errors, and CreditSpentError: then nothing has changed."""
    async with conn.transaction():
        found = await (await conn.execute(_UNDO_READ, {"key": key})).fetchone()
        if found is None:
            return UndoResult(False)
        await conn.execute(_UNDO_LOCK_PROMO, {"code": found[0]})
        await conn.execute(_UNDO_LOCK_CUSTOMER, {"customer": found[1]})
        row = await (await conn.execute(_UNDO, {"key": key})).fetchone()
        if row is None:
            return UndoResult(False)
        covered, standing, amount = row
        if not covered:
            raise CreditSpentError("The customer has spent this credit: the redemption cannot be undone.")
    return UndoResult(standing, amount)
