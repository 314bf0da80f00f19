"""A result is reported only when it is replicated, where the database replicates synchronously.

PostgreSQL commits first and then waits for the standby, without a time limit. A wait that is cut short (by a cancel
request, an end of the session, a crash of the primary) leaves a commit that other sessions see and that a failover may
lose. PostgreSQL reports the cut only by a warning, and says nothing to the session that reads the row later, when the
request is repeated. So after everything that may have left such a commit, the next result is followed by a commit of
its own that waits: WAL is replicated in order. Without synchronous standbys that commit is local and takes no longer
than any other.

Source: PostgreSQL's documentation, "Synchronous Replication", and SyncRepWaitForLSN in syncrep.c.
See also: `pool` runs all work; docs/operations.md recommends synchronous replication.
"""

import asyncio
from typing import Final

import psycopg

from voucher_operator.ledger.connector import Connection
from voucher_operator.ledger.errors import not_replicated
from voucher_operator.ledger.statements import statement
from voucher_operator.ledger.transactions import unit

_COMMIT: Final = statement("replication_commit")
_CUT_SHORT: Final = "SyncRepWaitForLSN"
"""The function in PostgreSQL that warns. Its message is translated, and its SQLSTATE is that of every warning."""


class ReplicationCheck:
    """Whether commits of this process may wait for a standby that has not confirmed them; one for each pool."""

    def __init__(self) -> None:
        # A process that was killed before may have left one.
        self._possible = 1
        self._confirmed = 0
        self._cut_short: set[int] = set()
        self._turn = asyncio.Lock()

    def note_possible_commit(self) -> None:
        """Record that a commit may exist that no standby has."""
        self._possible += 1

    def observe(self, conn: Connection) -> None:
        """Record the warnings of a new connection."""
        conn.add_notice_handler(lambda notice: self._record(id(conn), notice))

    async def confirm(self, conn: Connection) -> None:
        """Return when all commits so far are replicated; at once when none is in doubt. One connection at a time waits.

        Raises LedgerUnavailableError when this wait was cut short, too, and psycopg.Error.
        """
        possible = self._possible
        async with self._turn:
            if self._confirmed < possible:
                await self._commit(conn, self._possible)

    async def _commit(self, conn: Connection, possible: int) -> None:
        self._cut_short.discard(id(conn))
        # Behind a pooler the commit is the end of the unit, so that the warning is known only after it.
        async with unit(conn):
            await conn.execute(_COMMIT)
        if id(conn) in self._cut_short:
            raise not_replicated()
        self._confirmed = max(self._confirmed, possible)

    def _record(self, connection: int, notice: psycopg.errors.Diagnostic) -> None:
        if notice.source_function == _CUT_SHORT:
            self._cut_short.add(connection)
            self.note_possible_commit()
