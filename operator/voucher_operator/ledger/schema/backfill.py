"""Sums up what the codes granted before the migration, on a ledger of any size, while everybody goes on writing.

A statement over all entries would hold its locks for longer than others can wait. So the entries are read by id, one
batch and one commit at a time, into a table of totals (`backfill_batch.sql`); the totals are then added to the codes'
rows, some and one commit at a time, always to rows that nobody holds (`backfill_apply_totals.sql`). Each commit also
records the progress: a kill costs one batch. Which entries are counted, and what those do who write or delete
one meanwhile, is explained in `migrations/0005.keep-in-step.sql`.

See also: `migrate` calls this after the files; `migrate_session` has the sessions; `verify` holds the sums to the
entries, also half-way.
"""

import logging
from functools import partial
from typing import Any, Final

import psycopg
from psycopg import errors

from voucher_operator.ledger.schema.session import TOO_SLOW, MigrationError, Plan, connect, retry_on_lock
from voucher_operator.ledger.statements import statement

log = logging.getLogger(__name__)

_SESSION: Final = statement("backfill_session")
_LOCK: Final = statement("backfill_lock")
_BATCH: Final = statement("backfill_batch")
_LEFT: Final = statement("backfill_left")
_APPLY_TOTALS: Final = statement("backfill_apply_totals")
PORTION: Final = 20_000
"""Entries summed in one transaction: a tenth of a second where they are in memory."""
CODES: Final = 500
"""Codes whose rows are held in one transaction."""
_LEAST: Final = 100


def backfill(plan: Plan, *, portion: int = PORTION, codes: int = CODES) -> None:
    """Sum up what is not summed up yet; a few reads when there is nothing.

    Raises MigrationError, and psycopg's errors.
    """
    with connect(plan) as connection:
        connection.prepare_threshold = None  # a plan for these very values: a generic one does not know the first id
        connection.execute(_SESSION)
        _add_up(plan, connection, portion)
        while retry_on_lock(plan, "adding the sums of the ledger's entries", partial(_apply_totals, connection, codes)):
            pass


def _add_up(plan: Plan, connection: psycopg.Connection[Any], size: int) -> None:
    done = 0
    while True:
        try:
            finished = retry_on_lock(plan, "summing up the ledger's entries", partial(add_batch, connection, size))
        except errors.QueryCanceled as error:
            if size <= _LEAST:
                raise MigrationError(f"summing up {size} of the ledger's entries {TOO_SLOW}: migrate again") from error
            size = max(size // 4, _LEAST)
            continue
        if finished:
            return
        done += size
        log.info("%d entries of the ledger are summed up", done)


def add_batch(connection: psycopg.Connection[Any], size: int) -> bool:
    """Sum up the next `size` entries in one transaction; returns whether none is left. Raises psycopg's errors."""
    with connection.transaction():
        row = connection.execute(_LOCK).fetchone()
        if row is None:
            return True
        cursor = connection.execute(_BATCH, {"upto": row[0], "size": size})
        return cursor.fetchone() == (True,)


def _apply_totals(connection: psycopg.Connection[Any], size: int) -> bool:
    """Return whether more may be left. Raises LockNotAvailable when somebody holds all the rows that are left."""
    if apply_totals(connection, size):
        return True
    if connection.execute(_LEFT).fetchone() == (True,):
        raise errors.LockNotAvailable
    return False


def apply_totals(connection: psycopg.Connection[Any], size: int) -> int:
    """Add the sums of up to `size` codes to their rows; returns how many. Raises psycopg's errors."""
    return connection.execute(_APPLY_TOTALS, {"size": size}).rowcount
