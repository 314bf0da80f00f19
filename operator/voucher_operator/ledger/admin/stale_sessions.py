"""Ends the transactions that a frozen replica, or one on a lost node, has left open in PostgreSQL.

See also: `pool` has how long a replica waits for an answer; `process.run` calls this in the leader.
"""

import logging
from typing import Final

from psycopg.rows import scalar_row

from voucher_operator.ledger.connector import Connection
from voucher_operator.ledger.fetch import fetch_one
from voucher_operator.ledger.pool import ANSWER_SECONDS
from voucher_operator.ledger.statements import statement

_log = logging.getLogger(__name__)

STALE_SECONDS: Final = ANSWER_SECONDS + 15.0
"""No replica waits for the answer of an older transaction: after ANSWER_SECONDS it has tried to cancel it, and closed
the connection."""
_END: Final = statement("end_stale_sessions")


async def end_stale_sessions(conn: Connection, *, seconds: float = STALE_SECONDS) -> int:
    """End the operator's sessions whose transaction is older than `seconds`; returns how many. Raises psycopg's errors.

    Their transactions are rolled back, as after a crash.
    """
    ended = int(await fetch_one(conn, _END, {"seconds": seconds}, rows=scalar_row) or 0)
    if ended:
        _log.warning(
            "ended sessions of the operator that had been in a transaction for over %g s: %d; "
            "check whether a replica or its node is frozen or lost, or whether PostgreSQL was blocked",
            seconds,
            ended,
        )
    return ended
