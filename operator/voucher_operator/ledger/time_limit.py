"""Ends work on a connection whose server does not answer.

TCP does not notice a frozen server: its kernel still acknowledges. And psycopg answers a cancelled call with a cancel
request to the same server and waits up to ten seconds for the result. So the connection is shut down here instead,
after a short try to cancel the statement: a server that answers would otherwise keep a session that waits for a
synchronous standby for ever.

See also: `pool` repeats what lost its connection.
"""

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Final, TypeVar

import psycopg
from psycopg.pq import TransactionStatus

from voucher_operator.ledger.connector import Connection

T = TypeVar("T")

_CANCEL_SECONDS: Final = 1.0
"""How long a cancel request may take."""


def disconnect(conn: Connection) -> None:
    """Shut the connection's socket down: whoever waits for the server gets psycopg.OperationalError now."""
    with suppress(OSError, psycopg.Error), socket.socket(fileno=os.dup(conn.fileno())) as duplicate:
        duplicate.shutdown(socket.SHUT_RDWR)


async def within(deadline: float, conn: Connection, work: Callable[[Connection], Awaitable[T]]) -> T:
    """Run `work` on the connection until the deadline, in seconds of the event loop's clock.

    Raises TimeoutError at the deadline. Then, and after a cancellation, the connection is closed.
    """
    task = asyncio.ensure_future(work(conn))
    try:
        finished, _ = await asyncio.wait((task,), timeout=max(0.0, deadline - asyncio.get_running_loop().time()))
    except asyncio.CancelledError:
        await _end(conn, task)
        raise
    if finished:
        return task.result()
    await _end(conn, task)
    raise TimeoutError


async def _end(conn: Connection, task: "asyncio.Future[Any]") -> None:
    """Disconnect and wait for the work's end; work that is not in a call to the server is cancelled."""
    try:
        if conn.info.transaction_status is TransactionStatus.ACTIVE:
            with suppress(psycopg.Error):
                await conn.cancel_safe(timeout=_CANCEL_SECONDS)
        else:
            # It must not begin a statement now.
            task.cancel()
    finally:
        # Also when this is cancelled again.
        disconnect(conn)
    await asyncio.sleep(0)
    while not task.done():
        await asyncio.wait((task,), timeout=1.0)
        task.cancel()
    if not task.cancelled():
        # Whatever it raised is the consequence.
        task.exception()
    await conn.close()
