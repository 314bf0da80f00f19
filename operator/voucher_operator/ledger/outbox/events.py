"""Events that are written in the transaction that makes them true, and wait here until they have been published.

`seq` is given when an event is written, so it orders what follows from one another: an event that was written after
another one's commit has the greater one. Two transactions at the same time may become visible in either order; neither
follows from the other then.

See also: the statements that write events; `voucher_operator.events`, which publishes them; `payments`, which keeps
what the payment processor told.
"""

import time
from collections.abc import Sequence
from datetime import datetime
from functools import partial
from typing import Final

from voucher_operator.ledger.pool import Connection, Pool
from voucher_operator.ledger.purchase.types import OutboxBacklog, OutboxEvent
from voucher_operator.ledger.statements import statement

_PENDING: Final = statement("outbox_pending")
_PUBLISHED: Final = statement("outbox_published")
_BACKLOG: Final = statement("outbox_backlog")
_PURGE: Final = (statement("outbox_purge"), statement("webhook_event_purge"), statement("attempt_purge"))
_AT_ONCE: Final = 2000
"""Rows that are taken out of one table in one transaction."""


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


async def purge(pool: Pool, seconds: float) -> None:
    """Take out the events, what the payment processor told, and the wrong codes, that are of no use any more.

    In small transactions, until nothing old is left; after so many seconds no other one is begun. Raises as `Pool.run`.
    """
    end = time.monotonic() + seconds
    left: dict[bytes, datetime | None] = dict.fromkeys(_PURGE)
    while left:
        for table, after in list(left.items()):
            number, last = await pool.run(partial(_take_out, table, after))
            if number < _AT_ONCE:
                del left[table]
            else:
                left[table] = last
        if time.monotonic() >= end:
            return


async def _take_out(table: bytes, after: datetime | None, conn: Connection) -> tuple[int, datetime | None]:
    """Take the oldest rows out of a table, none of before `after`; return how many, and the last one's time."""
    row = await (await conn.execute(table, {"after": after, "limit": _AT_ONCE})).fetchone()
    return (row[0], row[1]) if row else (0, None)
