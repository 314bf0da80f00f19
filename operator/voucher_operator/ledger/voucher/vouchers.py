"""Issue, change, revoke and count vouchers: these write what Git decides, and never a counter.

See also: `ownership` decides what a put writes; `locks` has the order in which it locks.
"""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Final

from psycopg.rows import class_row, dict_row, kwargs_row, scalar_row, tuple_row

from voucher_operator.ledger.arrays import text_array
from voucher_operator.ledger.connector import Connection
from voucher_operator.ledger.errors import schema_missing
from voucher_operator.ledger.fetch import fetch_all, fetch_one
from voucher_operator.ledger.statements import statement
from voucher_operator.ledger.types import (
    LedgerMark,
    PutOutcome,
    PutResult,
    VoucherCounters,
    VoucherOwner,
    VoucherState,
    VoucherTerms,
)
from voucher_operator.ledger.voucher.ownership import Decision, decide, found_from

_PUT_LOCK: Final = statement("voucher_put_lock")
_LOCK_PROMO: Final = statement("lock_promo")
_PUT_READ: Final = statement("voucher_put_read")
_PUT_RETIRE: Final = statement("voucher_put_retire")
_PUT_TERMS: Final = statement("voucher_put_terms")
_PUT_PROMO: Final = statement("voucher_put_promo")
_PUT_ANNOUNCE: Final = statement("voucher_put_announce")
_REVOKE_LOCK: Final = statement("voucher_revoke_lock")
_REVOKE: Final = statement("voucher_revoke")
_DEACTIVATE_LOCK: Final = statement("voucher_deactivate_lock")
_DEACTIVATE: Final = statement("voucher_deactivate")
_RELEASE: Final = statement("voucher_release")
_COUNTERS: Final = statement("voucher_counters")
_OWNERS: Final = statement("voucher_owners")
_NAMED: Final = statement("voucher_named")
_MOVED: Final = statement("voucher_moved")
_UIDS: Final = statement("voucher_uids")
_XIDS: Final = 1 << 32
"""A row has the last 32 bits of a transaction's number."""


async def put(conn: Connection, terms: VoucherTerms) -> PutResult:
    """Write `terms` to the ledger. Raises psycopg's errors and those of `ownership.decide`."""
    values: dict[str, Any] = asdict(terms)
    async with conn.transaction():
        await conn.execute(_PUT_LOCK, values)
        await conn.execute(_LOCK_PROMO, {"codes": text_array([terms.code])})
        row = await fetch_one(conn, _PUT_READ, values, rows=dict_row)
        if row is None:
            raise schema_missing()
        decision = decide(terms, found_from(row))
        if decision.outcome is not PutOutcome.UNCHANGED:
            await _write(conn, values, decision)
        (counted,) = await counters(conn, [terms.uid])
    return PutResult(decision.outcome, counted, decision.corrected, decision.displaced)


async def _write(conn: Connection, values: dict[str, Any], decision: Decision) -> None:
    values = values | {"code": decision.code}
    await conn.execute(_PUT_RETIRE, values)
    await conn.execute(_PUT_PROMO, values)
    await conn.execute(_PUT_TERMS, values)
    if decision.outcome is PutOutcome.ISSUED:
        await conn.execute(_PUT_ANNOUNCE, values)


async def revoke(conn: Connection, owner: VoucherOwner, *, absent: bool = False) -> bool:
    """Revoke what `owner` (by uid) owns; False if it owns nothing. Raises psycopg's errors.

    `absent`: the Voucher is gone, and nobody has seen its deletion. Its code is kept for its name for an hour.
    """
    async with conn.transaction():
        await conn.execute(_REVOKE_LOCK, {"uid": owner.uid})
        return bool(await fetch_one(conn, _REVOKE, {"uid": owner.uid, "absent": absent}, rows=scalar_row))


async def deactivate(conn: Connection, owner: VoucherOwner) -> bool:
    """Set what `owner` has, by uid or by name, to inactive; False if nothing was active. Raises psycopg's errors."""
    values = {"uid": owner.uid, "namespace": owner.namespace, "name": owner.name}
    async with conn.transaction():
        await conn.execute(_DEACTIVATE_LOCK, values)
        return bool(await fetch_one(conn, _DEACTIVATE, values, rows=scalar_row))


async def release(conn: Connection, namespace: str, name: str, to: str) -> int:
    """Let namespace `to` issue the code of the last deleted Voucher of this name; 0 or 1. Raises psycopg's errors."""
    cursor = await conn.execute(_RELEASE, {"namespace": namespace, "name": name, "to": to})
    return cursor.rowcount


async def counters(conn: Connection, uids: Sequence[str] | None) -> list[VoucherCounters]:
    """Count the live vouchers of these owners, or of all. Raises psycopg's errors."""
    values = {"uids": None if uids is None else text_array(uids)}
    return await fetch_all(conn, _COUNTERS, values, rows=kwargs_row(_counters), binary=True)


async def moved(conn: Connection, since: LedgerMark | None, limit: int) -> tuple[LedgerMark, list[str] | None]:
    """Return the mark of now, and the uids of live vouchers that may have changed since `since`.

    None instead of uids when nothing is known about what changed: without `since`, for another server or a clock that
    was set back, and for more than `limit`. A row that was deleted is not found. Raises psycopg's errors.
    """
    values = {"xid": since and str(since.xid % _XIDS), "at": since and since.at, "limit": limit + 1}
    ((server, xid, at, uids),) = await fetch_all(conn, _MOVED, values, rows=tuple_row)
    mark = LedgerMark(server, xid, at)
    if since is None or mark.server != since.server or mark.at < since.at or mark.xid < since.xid or len(uids) > limit:
        return mark, None
    return mark, uids


async def page(conn: Connection, after: str, limit: int) -> list[VoucherCounters]:
    """Count up to `limit` live vouchers whose owners' uids follow `after`, in order. Raises psycopg's errors."""
    uids = await fetch_all(conn, _UIDS, {"after": after, "limit": limit}, rows=scalar_row)
    return sorted(await counters(conn, uids), key=lambda one: one.uid) if uids else []


async def owners(conn: Connection) -> list[VoucherOwner]:
    """List the owners of live vouchers. Raises psycopg's errors."""
    return await fetch_all(conn, _OWNERS, rows=class_row(VoucherOwner))


async def named(conn: Connection, namespace: str, name: str) -> list[VoucherOwner]:
    """List the owners of live vouchers that have this name, whatever their uid. Raises psycopg's errors."""
    return await fetch_all(conn, _NAMED, {"namespace": namespace, "name": name}, rows=class_row(VoucherOwner))


def _counters(*, state: str, **values: Any) -> VoucherCounters:
    return VoucherCounters(state=VoucherState(state), **values)
