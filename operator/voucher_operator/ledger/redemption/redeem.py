"""One batch of redemptions: lock, judge and write in one round trip.

The two statements travel in one pipeline without BEGIN: PostgreSQL runs everything up to the pipeline's end as one
transaction, commits at its end, and rolls all of it back when a statement fails. Behind a connection pooler BEGIN and
COMMIT are round trips of their own. See also: `batch` makes the batches.
"""

from collections.abc import Sequence
from datetime import datetime
from functools import partial
from typing import Any, Final

import psycopg
from psycopg.rows import class_row, kwargs_row, scalar_row

from voucher_operator.ledger.arrays import text_array
from voucher_operator.ledger.batch import Request
from voucher_operator.ledger.connector import Connection
from voucher_operator.ledger.fetch import fetch_all, fetch_one
from voucher_operator.ledger.statements import statement
from voucher_operator.ledger.transactions import next_unit
from voucher_operator.ledger.types import AttemptLimit, KeyState, Outcome, RedeemRequest, RedeemResult
from voucher_operator.resources.errors import LedgerUnavailableError, OperatorError
from voucher_operator.resources.keys import Key
from voucher_operator.resources.reasons import Reason

_LOCK: Final = statement("lock_promo")
_REDEEM: Final = statement("redeem")
_READ: Final = statement("redemption_read")
_STATES: Final = statement("redemption_states")
_OPEN_ACCOUNTS: Final = statement("account_open")
_PROBE_PROMO: Final = statement("probe_promo")
_PROBE_CUSTOMERS: Final = statement("probe_customers")
_PROBE_BUYERS: Final = statement("probe_buyers")
_OUTCOMES: Final = {outcome.value: outcome for outcome in Outcome}
REASONS: Final[dict[str | None, Reason | None]] = {None: None, **{reason.value: reason for reason in Reason}}


NO_LIMIT: Final = AttemptLimit()


async def redeem_batch(
    conn: Connection, requests: Sequence[RedeemRequest], limit: AttemptLimit = NO_LIMIT
) -> list[RedeemResult | OperatorError]:
    """Redeem `requests`, no two of which have the same key; one result each, in their order.

    An answer that a newer version gave to a key before is a LedgerUnavailableError in its place; the others are not
    affected. Raises psycopg's errors; nothing is written then.
    """
    codes = text_array({request.code for request in requests})
    values = parameters(requests, limit)
    cursor = conn.cursor(binary=True)
    try:
        async with conn.pipeline():
            await conn.execute(_LOCK, {"codes": codes}, prepare=True)
            await cursor.execute(_REDEEM, values, prepare=True)
    except psycopg.errors.CheckViolation:
        # The pool repeats the batch; a customer's account that was missing exists then.
        async with next_unit(conn):
            await conn.execute(_OPEN_ACCOUNTS, {"users": values["users"]})
        raise
    results: list[Any] = [None] * len(requests)
    # By position: this runs thousands of times a second, and a row by name takes almost twice as long (3.6 us, not 2).
    for n, *answer in await cursor.fetchall():
        results[n - 1] = result(requests[n - 1].key, *answer)
    return results


async def read(conn: Connection, key: Key, request_hash: str, uid: str) -> RedeemResult | None:
    """Return the result that a request got before, None when it has none yet. Redeems nothing.

    Raises psycopg's errors, and LedgerUnavailableError for what a newer version answered.
    """
    values = {"key": key, "hash": request_hash, "uid": uid}
    found = await fetch_one(conn, _READ, values, rows=kwargs_row(partial(result, key)))
    if isinstance(found, OperatorError):
        raise found
    return found


async def states(conn: Connection, keys: Sequence[str]) -> dict[str, KeyState]:
    """Return what the ledger has of some keys; a key of which it has nothing is left out. Raises psycopg's errors."""
    found = await fetch_all(conn, _STATES, {"keys": text_array(keys)}, rows=class_row(KeyState))
    return {state.key: state for state in found}


def result(
    key: Key,
    outcome: str,
    reason: str | None,
    code: str | None,
    credit_minor: int,
    decided_at: datetime,
    replayed: bool,
    retry_at: datetime | None = None,
) -> RedeemResult | OperatorError:
    """Make a result of a row of `redeem.sql`; one that only a newer version knows is an error."""
    if outcome not in _OUTCOMES or reason not in REASONS:
        return LedgerUnavailableError("A newer version of the operator has answered this Redemption: upgrade this one.")
    return RedeemResult(key, _OUTCOMES[outcome], decided_at, REASONS[reason], code, credit_minor, replayed, retry_at)


async def held(conn: Connection, requests: Sequence[Request], *, buying: bool = False) -> tuple[set[str], set[str]]:
    """Return the codes (in normal form) and users of `requests` whose rows another session has locked at this moment.

    `buying`: counts every lock that a purchase waits for; a redemption waits for fewer. Raises psycopg's errors.
    """
    probe = _PROBE_BUYERS if buying else _PROBE_CUSTOMERS
    codes = await fetch_all(
        conn, _PROBE_PROMO, {"codes": text_array({r.code for r in requests} - {""})}, rows=scalar_row
    )
    users = await fetch_all(conn, probe, {"users": text_array({r.user_id for r in requests})}, rows=scalar_row)
    return set(codes), set(users)


def parameters(requests: Sequence[RedeemRequest], limit: AttemptLimit) -> dict[str, str | int | float]:
    """Return `requests` as the arrays of `redeem.sql`, and the limit. Raises psycopg.DataError."""
    return {
        "keys": text_array([r.key for r in requests]),
        "hashes": text_array([r.request_hash for r in requests]),
        "uids": text_array([r.uid for r in requests]),
        "codes": text_array([r.code for r in requests]),
        "users": text_array([r.user_id for r in requests]),
        "tenants": text_array([r.tenant_id for r in requests]),
        "emails": text_array([r.email for r in requests]),
        "attempts": limit.attempts,
        "attempt_seconds": limit.seconds,
        "provisional": "{" + ",".join(["t" if r.provisional else "f" for r in requests]) + "}",
    }
