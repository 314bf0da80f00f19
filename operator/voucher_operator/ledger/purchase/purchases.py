"""One purchase after it was placed: read it, note what the payment processor made for it, take it back.

Locks of a compensation: promo_codes, then customers, then the purchase, the one order for all. See also:
`purchase_batch` places, `payments` settles under the same locks.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final

from voucher_operator.ledger.pool import Connection
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
_NOTE_CUSTOMER: Final = statement("purchase_record_customer")
_NOTE_SESSION: Final = statement("purchase_record_session")
_COMPENSATE_READ: Final = statement("purchase_compensate_read")
_LOCK_PROMO: Final = statement("undo_lock_promo")
_LOCK_CUSTOMER: Final = statement("customer_lock")
_LOCK_ROW: Final = statement("purchase_lock")
_RELEASE: Final = statement("purchase_release")
_UNDO: Final = statement("undo")
_ANNOUNCE: Final = statement("purchase_announce_rollback")


async def read(conn: Connection, keys: Sequence[str]) -> list[Purchase]:
    """Read the purchases that these keys made, the oldest first, but none that only a newer version understands.

    Raises psycopg's errors.
    """
    cursor = await conn.execute(_READ, {"keys": list(keys)})
    return understood(await cursor.fetchall())


async def read_one(conn: Connection, key: Key) -> Purchase | None:
    """Read the purchase that a key made, if it made one. Raises psycopg's errors and NewerVersionError."""
    row = await (await conn.execute(_READ, {"keys": [key]})).fetchone()
    return None if row is None else purchase_from(row)


async def pending(conn: Connection, limit: int) -> list[Purchase]:
    """Read the oldest purchases whose customer has no checkout URL yet. Raises as `read`."""
    cursor = await conn.execute(_OPEN, {"limit": limit, **UNDERSTOOD})
    return await read(conn, [row[0] for row in await cursor.fetchall()])


async def undelivered(
    conn: Connection, namespaces: Sequence[str], older_than_seconds: float, limit: int
) -> list[Purchase]:
    """Take ends that not everybody has been told of; now somebody has looked at them. Raises as `read`."""
    values = {"namespaces": list(namespaces), "seconds": older_than_seconds, "limit": limit, **UNDERSTOOD}
    cursor = await conn.execute(_UNDELIVERED, values)
    return await read(conn, [row[0] for row in await cursor.fetchall()])


async def of_newer_version(conn: Connection, limit: int) -> list[Key]:
    """Return the keys of up to `limit` purchases that wait for something and that only a newer version understands.

    No pass takes them, and none notes that it has looked at them. Raises psycopg's errors.
    """
    cursor = await conn.execute(_NEWER, {"limit": limit, **UNDERSTOOD})
    return [Key(row[0]) for row in await cursor.fetchall()]


async def note_delivered(conn: Connection, ends: Mapping[Key, datetime]) -> None:
    """Remember which ends everybody has been told of, by key and `settled_at`. Raises psycopg's errors."""
    await conn.execute(_DELIVERED, {"keys": list(ends), "ends": list(ends.values())})


async def note_customer(conn: Connection, key: Key, stripe_customer_id: str) -> None:
    """Remember the payment processor's customer. Idempotent. Raises psycopg's errors."""
    await conn.execute(_NOTE_CUSTOMER, {"key": key, "customer": stripe_customer_id})


async def note_session(conn: Connection, key: Key, session_id: str, url: str, expires_at: datetime) -> Purchase:
    """Remember the checkout of a pending purchase, which awaits its payment from then on; another stays as it is.

    Raises as `read`, and RequestRejectedError for a key that bought nothing.
    """
    values = {"key": key, "session": session_id, "url": url, "expires_at": expires_at}
    async with conn.transaction():
        await conn.execute(_NOTE_SESSION, values)
        purchase = await read_one(conn, key)
    if purchase is None:
        raise RequestRejectedError("The ledger has no purchase of this Redemption: nothing can be noted for it.")
    return purchase


async def compensate(conn: Connection, key: Key, reason: Reason) -> Purchase | None:
    """Take a pending purchase back; another stays as it is, and None says that there is none. Raises as `read_one`."""
    async with conn.transaction():
        found = await (await conn.execute(_COMPENSATE_READ, {"key": key})).fetchone()
        if found is not None:
            await _take_back(conn, key, reason, *found)
        return await read_one(conn, key)


async def _take_back(conn: Connection, key: Key, reason: Reason, code: str | None, customer_id: str) -> None:
    await conn.execute(_LOCK_PROMO, {"code": code})
    await conn.execute(_LOCK_CUSTOMER, {"customer": customer_id})
    if await (await conn.execute(_LOCK_ROW, {"key": key})).fetchone() is None:
        return
    await conn.execute(_RELEASE, {"key": key, "reason": reason.value})
    # Each of the two sees what the one before it wrote. An undo that the balance does not cover changes nothing.
    await conn.execute(_UNDO, {"key": key})
    await conn.execute(_ANNOUNCE, {"key": key})
