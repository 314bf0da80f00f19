"""Ends what a frozen replica, or one on a lost node, has left open in PostgreSQL.

See also: `pool` says how long a replica itself waits for an answer; `process.run` calls it while it leads.
"""

import logging
from typing import Final

from voucher_operator.ledger.pool import ANSWER_SECONDS, Connection
from voucher_operator.ledger.statements import statement

_log = logging.getLogger(__name__)

STALE_SECONDS: Final = ANSWER_SECONDS + 15.0
"""Nobody waits for the answer of a transaction that is older: who gave up has cancelled it, which takes psycopg up to
ten seconds, and has closed its connection."""
_END: Final = statement("end_stale_sessions")


async def end_stale_sessions(conn: Connection, *, seconds: float = STALE_SECONDS) -> int:
    """End the operator's sessions whose transaction is older than `seconds`; returns how many. Raises psycopg's errors.

    What they had not committed is rolled back, as at any crash: their replica finds it so when it goes on.
    """
    row = await (await conn.execute(_END, {"seconds": seconds})).fetchone()
    ended = int(row[0]) if row is not None else 0
    if ended:
        _log.warning(
            "ended sessions of the operator that had been in a transaction for over %g s: %d; "
            "look whether a replica or its node is frozen or lost, or whether PostgreSQL stood still",
            seconds,
            ended,
        )
    return ended
