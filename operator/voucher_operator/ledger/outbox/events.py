"""The outbox: events are written in the transaction that makes them true, and stay until they have been published.

`seq` is assigned when an event is written. So an event that was written after the commit of another one has the greater
`seq`. Two concurrent transactions may become visible in either order; then neither event depends on the other.

See also: `messaging.outbox_relay` publishes the events; `payment.payments` writes the webhook events that `purge`
deletes.
"""

import time
from collections.abc import Sequence
from datetime import datetime
from functools import partial
from typing import Final

from psycopg.rows import class_row, dict_row

from voucher_operator.ledger.connector import Connection
from voucher_operator.ledger.fetch import fetch_all, fetch_one
from voucher_operator.ledger.outbox.types import OutboxBacklog, OutboxEvent
from voucher_operator.ledger.pool import Pool
from voucher_operator.ledger.statements import statement

_PENDING: Final = statement("outbox_pending")
_PUBLISHED: Final = statement("outbox_published")
_BACKLOG: Final = statement("outbox_backlog")
_PURGE: Final = (statement("outbox_purge"), statement("webhook_event_purge"), statement("attempt_purge"))
_AT_ONCE: Final = 2000
"""Rows that are deleted from one table in one transaction."""


async def pending(conn: Connection, limit: int, without: Sequence[str] = ()) -> list[OutboxEvent]:
    """List the first `limit` events that are not published, in order, but none of the tenants `without`.

    Raises psycopg's errors.
    """
    values = {"limit": limit, "without": list(without)}
    return await fetch_all(conn, _PENDING, values, rows=class_row(OutboxEvent))


async def published(conn: Connection, ids: Sequence[str]) -> None:
    """Record that these events have been published. Idempotent. Raises psycopg's errors."""
    await conn.execute(_PUBLISHED, {"ids": list(ids)})


async def backlog(conn: Connection) -> OutboxBacklog:
    """Count the events that are not published, and the age of the oldest. Raises psycopg's errors."""
    return await fetch_one(conn, _BACKLOG, rows=class_row(OutboxBacklog)) or OutboxBacklog(0, 0.0)


async def purge(pool: Pool, seconds: float) -> None:
    """Delete published events, webhook events and wrong codes that are older than their retention.

    In small transactions, until nothing old is left; none is begun after `seconds`. Raises as `Pool.run`.
    """
    end = time.monotonic() + seconds
    left: dict[bytes, datetime | None] = dict.fromkeys(_PURGE)
    while left:
        for query, after in list(left.items()):
            number, last = await pool.run(partial(_purge_batch, query, after))
            if number < _AT_ONCE:
                del left[query]
            else:
                left[query] = last
        if time.monotonic() >= end:
            return


async def _purge_batch(query: bytes, after: datetime | None, conn: Connection) -> tuple[int, datetime | None]:
    """Delete the oldest rows of a table, none older than `after`; return how many, and the time of the last one."""
    row = await fetch_one(conn, query, {"after": after, "limit": _AT_ONCE}, rows=dict_row)
    return (row["number"], row["last"]) if row else (0, None)
