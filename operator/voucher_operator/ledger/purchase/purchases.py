"""One purchase after it was placed: read it, record what the payment processor created for it, compensate it.

See also: `locks` has the order of a compensation's locks; `batch` places purchases; `payments` settles them under the
same locks.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from psycopg.rows import dict_row, scalar_row

from voucher_operator.ledger.connector import Connection
from voucher_operator.ledger.fetch import fetch_all, fetch_one
from voucher_operator.ledger.purchase.rows import UNDERSTOOD, purchase_from, understood
from voucher_operator.ledger.purchase.types import Purchase
from voucher_operator.ledger.statements import statement
from voucher_operator.resources.errors import RequestRejectedError
from voucher_operator.resources.keys import Key
from voucher_operator.resources.reasons import Reason

_READ: Final = statement("purchase_read")
_OPEN: Final = statement("purchase_open")
_UNDELIVERED: Final = statement("purchase_undelivered")
_NEWER: Final = statement("purchase_newer")
_DELIVERED: Final = statement("purchase_delivered")
_RECORD_CUSTOMER: Final = statement("purchase_record_customer")
_RECORD_SESSION: Final = statement("purchase_record_session")
_COMPENSATE_READ: Final = statement("purchase_compensate_read")
_LOCK_PROMO: Final = statement("undo_lock_promo")
_LOCK_CUSTOMER: Final = statement("customer_lock")
_LOCK: Final = statement("purchase_lock")
_RELEASE: Final = statement("purchase_release")
_UNDO: Final = statement("undo")
_ANNOUNCE: Final = statement("purchase_announce_rollback")


async def read(conn: Connection, keys: Sequence[str]) -> list[Purchase]:
    """Read the purchases that these keys made, the oldest first, but none that only a newer version understands.

    Raises psycopg's errors.
    """
    return understood(await fetch_all(conn, _READ, {"keys": list(keys)}, rows=dict_row))


async def read_one(conn: Connection, key: Key) -> Purchase | None:
    """Read the purchase that a key made, if it made one. Raises psycopg's errors and NewerVersionError."""
    row = await fetch_one(conn, _READ, {"keys": [key]}, rows=dict_row)
    return None if row is None else purchase_from(row)


async def pending(conn: Connection, limit: int) -> list[Purchase]:
    """Read the oldest purchases whose customer has no checkout URL yet. Raises as `read`."""
    return await read(conn, await _keys(conn, _OPEN, {"limit": limit}))


async def undelivered(
    conn: Connection, namespaces: Sequence[str], older_than_seconds: float, limit: int
) -> list[Purchase]:
    """Take ended purchases whose end is not delivered yet; each now counts as checked. Raises as `read`."""
    values = {"namespaces": list(namespaces), "seconds": older_than_seconds, "limit": limit}
    return await read(conn, await _keys(conn, _UNDELIVERED, values))


async def of_newer_version(conn: Connection, limit: int) -> list[Key]:
    """Return the keys of up to `limit` purchases that are not finished and that only a newer version understands.

    No periodic task takes them or marks them as checked. Raises psycopg's errors.
    """
    return await _keys(conn, _NEWER, {"limit": limit})


async def _keys(conn: Connection, query: bytes, values: Mapping[str, Any]) -> list[Key]:
    return [Key(key) for key in await fetch_all(conn, query, {**values, **UNDERSTOOD}, rows=scalar_row)]


async def record_delivered(conn: Connection, ends: Mapping[Key, datetime]) -> None:
    """Record which ends are delivered, by key and `settled_at`. Raises psycopg's errors."""
    await conn.execute(_DELIVERED, {"keys": list(ends), "ends": list(ends.values())})


async def record_customer(conn: Connection, key: Key, stripe_customer_id: str) -> None:
    """Record the payment processor's customer. Idempotent. Raises psycopg's errors."""
    await conn.execute(_RECORD_CUSTOMER, {"key": key, "customer": stripe_customer_id})


async def record_session(conn: Connection, key: Key, session_id: str, url: str, expires_at: datetime) -> Purchase:
    """Record the checkout of a pending purchase, which becomes AWAITING_PAYMENT; any other stays as it is.

    Raises as `read`, and RequestRejectedError for a key that bought nothing.
    """
    values = {"key": key, "session": session_id, "url": url, "expires_at": expires_at}
    async with conn.transaction():
        await conn.execute(_RECORD_SESSION, values)
        purchase = await read_one(conn, key)
    if purchase is None:
        raise RequestRejectedError("The ledger has no purchase of this Redemption: no checkout can be recorded for it.")
    return purchase


async def compensate(conn: Connection, key: Key, reason: Reason) -> Purchase | None:
    """Roll a pending purchase back; any other stays as it is; None when there is none. Raises as `read_one`."""
    async with conn.transaction():
        found = await fetch_one(conn, _COMPENSATE_READ, {"key": key}, rows=dict_row)
        if found is not None:
            await _roll_back(conn, key, reason, **found)
        return await read_one(conn, key)


async def _roll_back(conn: Connection, key: Key, reason: Reason, *, code: str | None, customer_id: str) -> None:
    await conn.execute(_LOCK_PROMO, {"code": code})
    await conn.execute(_LOCK_CUSTOMER, {"customer": customer_id})
    if await fetch_one(conn, _LOCK, {"key": key}, rows=scalar_row) is None:
        return
    await conn.execute(_RELEASE, {"key": key, "reason": reason.value})
    # Each statement sees what the one before it wrote. An undo that the balance does not cover changes nothing.
    await conn.execute(_UNDO, {"key": key})
    await conn.execute(_ANNOUNCE, {"key": key})
