"""Opens the accounts of customers from before the first migration, on a ledger of any size, while others write.

An account that is missing is opened by the first statement that needs it, which reads that customer's whole history
once. This opens it beforehand: some customers in each transaction, so that no session waits long for a row that is
locked here. A kill costs one portion. Why no entry is missed: `migrations/0009.accounts.sql` and
`0012.entries-in-balance.sql`.

See also: `migrate` calls this after the files; `backfill` does the same for the totals of codes.
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
_OPEN_BATCH: Final = statement("account_backfill")
PORTION: Final = 1000
"""Customers whose accounts are opened in one transaction."""


def open_accounts(plan: Plan, *, portion: int = PORTION) -> None:
    """Open the accounts that are missing; one read when none is. Raises MigrationError, and psycopg's errors."""
    size = portion
    with connect(plan) as connection:
        connection.prepare_threshold = None  # a plan for these very values, as in `backfill`
        connection.execute(_SESSION)
        while True:
            try:
                attempt = partial(open_batch, connection, size)
                if retry_on_lock(plan, "opening the customers' accounts", attempt):
                    return
            except errors.QueryCanceled as error:
                if size == 1:
                    raise MigrationError(f"opening one customer's account {TOO_SLOW}: migrate again") from error
                size = max(size // 8, 1)


def open_batch(connection: psycopg.Connection[Any], size: int) -> bool:
    """Open the next `size` accounts in one transaction; returns whether none is left. Raises psycopg's errors."""
    with connection.cursor(row_factory=scalar_row) as cursor:
        finished = cursor.execute(_OPEN_BATCH, {"size": size}).fetchone()
    return finished is None or bool(finished)
