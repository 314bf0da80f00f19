"""Adds up the credit that codes granted before the first migration, on a ledger of any size, while others write.

A statement over all entries would hold its locks for longer than others can wait. So the entries are read by id, one
batch in each transaction, into a table of totals (`backfill_batch.sql`). The totals are then added to the rows of the
codes, some in each transaction, and only to rows that no other session holds (`backfill_apply_totals.sql`). Each commit
also records the progress: a kill costs one batch. `migrations/0005.keep-in-step.sql` explains which entries are
counted, also when another session writes or deletes one meanwhile.

See also: `migrate` calls this after the files; `session` has the sessions; `verify` compares the totals with the
entries, also when the backfill is not finished.
"""

import logging
from functools import partial
from typing import Any, Final

import psycopg
from psycopg import errors
from psycopg.rows import scalar_row

from voucher_operator.ledger.schema.session import TOO_SLOW, MigrationError, Plan, connect, retry_on_lock
from voucher_operator.ledger.statements import statement

log = logging.getLogger(__name__)

_SESSION: Final = statement("backfill_session")
_LOCK: Final = statement("backfill_lock")
_BATCH: Final = statement("backfill_batch")
_LEFT: Final = statement("backfill_left")
_APPLY_TOTALS: Final = statement("backfill_apply_totals")
PORTION: Final = 20_000
"""Entries added up in one transaction: a tenth of a second when they are in memory."""
CODES: Final = 500
"""Codes whose rows are locked in one transaction."""
_LEAST: Final = 100


def backfill(plan: Plan, *, portion: int = PORTION, codes: int = CODES) -> None:
    """Add up the entries that are not counted yet; a few reads when there are none.

    Raises MigrationError, and psycopg's errors.
    """
    with connect(plan) as connection:
        connection.prepare_threshold = None  # a plan for these very values: a generic one does not know the first id
        connection.execute(_SESSION)
        _add_up(plan, connection, portion)
        while retry_on_lock(plan, "adding the totals to the codes", partial(_apply_totals, connection, codes)):
            pass


def _add_up(plan: Plan, connection: psycopg.Connection[Any], size: int) -> None:
    done = 0
    while True:
        try:
            finished = retry_on_lock(plan, "adding up the ledger's entries", partial(add_batch, connection, size))
        except errors.QueryCanceled as error:
            if size <= _LEAST:
                raise MigrationError(f"adding up {size} of the ledger's entries {TOO_SLOW}: migrate again") from error
            size = max(size // 4, _LEAST)
            continue
        if finished:
            return
        done += size
        log.info("%d entries of the ledger are added up", done)


def add_batch(connection: psycopg.Connection[Any], size: int) -> bool:
    """Add up the next `size` entries in one transaction; returns whether none is left. Raises psycopg's errors."""
    with connection.transaction(), connection.cursor(row_factory=scalar_row) as cursor:
        upto = cursor.execute(_LOCK).fetchone()
        if upto is None:
            return True
        return bool(cursor.execute(_BATCH, {"upto": upto, "size": size}).fetchone())


def _apply_totals(connection: psycopg.Connection[Any], size: int) -> bool:
    """Return whether more may be left. Raises LockNotAvailable when other sessions hold all the rows that are left."""
    if apply_totals(connection, size):
        return True
    with connection.cursor(row_factory=scalar_row) as cursor:
        if cursor.execute(_LEFT).fetchone():
            raise errors.LockNotAvailable
    return False


def apply_totals(connection: psycopg.Connection[Any], size: int) -> int:
    """Add the totals of up to `size` codes to their rows; returns how many. Raises psycopg's errors."""
    return connection.execute(_APPLY_TOTALS, {"size": size}).rowcount
