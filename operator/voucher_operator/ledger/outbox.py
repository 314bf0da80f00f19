"""Events that are written in the transaction that makes them true, and wait here until they have been published.

`seq` is given when an event is written, so it orders what follows from one another: an event that was written after
another one's commit has the greater one. Two transactions at the same time may become visible in either order; neither
follows from the other then. Neighbours: the statements that write events, `voucher_operator.events` publishes them.
"""

from collections.abc import Sequence
from typing import Final

from voucher_operator.ledger.pool import Connection
from voucher_operator.ledger.purchase_types import OutboxBacklog, OutboxEvent
from voucher_operator.ledger.statements import statement

_PENDING: Final = statement("outbox_pending").encode()
_PUBLISHED: Final = statement("outbox_published").encode()
_BACKLOG: Final = statement("outbox_backlog").encode()
_TIDY: Final = statement("tidy").encode()
_AT_ONCE: Final = 2000
"""Rows that are taken out of one table at once."""


async def pending(conn: Connection, limit: int, without: Sequence[str] = ()) -> list[OutboxEvent]:
    """List the first `limit` events that are not published, in order, but none of the tenants `without`.

    Raises psycopg's errors.
    """
    cursor = await conn.execute(_PENDING, {"limit": limit, "without": list(without)})
    return [OutboxEvent(*row) for row in await cursor.fetchall()]


async def published(conn: Connection, ids: Sequence[str]) -> None:
    """Note that these events have been published. Idempotent. Raises psycopg's errors."""
    await conn.execute(_PUBLISHED, {"ids": list(ids)})


async def backlog(conn: Connection) -> OutboxBacklog:
    """Count what waits, and how long the oldest has waited, in seconds. Raises psycopg's errors."""
    row = await (await conn.execute(_BACKLOG)).fetchone()
    return OutboxBacklog(*row) if row else OutboxBacklog(0, 0.0)


async def tidy(conn: Connection) -> None:
    """Take out some of the events, and of what the payment processor told, that are of no use any more.

    Raises psycopg's errors.
    """
    await conn.execute(_TIDY, {"limit": _AT_ONCE})
