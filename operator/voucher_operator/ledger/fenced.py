"""Runs work on the ledger's connections; writes only while this process may write.

See also: `api` and `payment.api` are the doors that are made of it; `pool` runs the work.
"""

from collections.abc import Awaitable, Callable
from typing import TypeVar

from voucher_operator.ledger.connector import Connection
from voucher_operator.ledger.pool import Pool

T = TypeVar("T")


class FencedLedger:
    """`fence` is called before each write, at each try, when a connection is ready; it raises to prevent it."""

    def __init__(self, pool: Pool, fence: Callable[[], None]) -> None:
        self._pool = pool
        self._fence = fence

    async def _write(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        async def fenced(conn: Connection) -> T:
            self._fence()
            return await work(conn)

        return await self._pool.run(fenced)
