"""The ledger's only public interface: services and controllers use `Ledger`, its types and `resources.errors`.

See also: `batch` runs redemptions and purchases in batches; each subject's package has the rest; `pool` has the
connections; `locks` has what each use case locks.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TypeVar

from voucher_operator import telemetry
from voucher_operator.ledger.admin import stale_sessions
from voucher_operator.ledger.batch import Batcher, Request
from voucher_operator.ledger.credit import accounts
from voucher_operator.ledger.namespace import namespaces as served
from voucher_operator.ledger.outbox import events as outbox
from voucher_operator.ledger.outbox.types import OutboxBacklog, OutboxEvent
from voucher_operator.ledger.payment.api import PaymentLedger
from voucher_operator.ledger.pool import CHECK_SECONDS, Pool
from voucher_operator.ledger.purchase import purchases
from voucher_operator.ledger.purchase.batch import MAX_PURCHASES, purchase_batch
from voucher_operator.ledger.purchase.types import Purchase, PurchaseRequest, PurchaseResult
from voucher_operator.ledger.redemption import redeem
from voucher_operator.ledger.session import Pooler
from voucher_operator.ledger.types import (
    AttemptLimit,
    Entry,
    KeyState,
    LedgerInfo,
    LedgerMark,
    PutResult,
    RedeemRequest,
    RedeemResult,
    UnservedNamespace,
    VoucherCounters,
    VoucherOwner,
    VoucherTerms,
)
from voucher_operator.ledger.voucher import vouchers
from voucher_operator.resources.errors import OperatorError
from voucher_operator.resources.keys import Key
from voucher_operator.resources.reasons import Reason

T = TypeVar("T")


class Ledger(PaymentLedger):
    """The Sovereign's billing ledger in PostgreSQL. Safe for concurrent use within one event loop.

    `conninfo` returns a libpq URL or keyword string and is called at each new connection. `pool_size` is the largest
    number of connections; one more is reserved for `check` and `counters`. `sovereign` is the name (FQDN) in the
    metadata of our payments: an event with another name is stored without effect; with "" every event is ours. `pooler`
    is described at its type.

    `fence` is called before each write of the leader's work, at each try, when a connection is ready; it raises when
    this process no longer leads. Any replica may receive Stripe's events, without it.

    Every method raises LedgerUnavailableError for a transient error, and RequestRejectedError for a value that
    PostgreSQL cannot store. Amounts are minor units of the ledger's currency, times are aware datetimes.
    """

    def __init__(
        self,
        conninfo: Callable[[], str],
        *,
        pool_size: int = 4,
        sovereign: str = "",
        attempts: AttemptLimit = redeem.NO_LIMIT,
        fence: Callable[[], None] = lambda: None,
        pooler: Pooler = "auto",
    ) -> None:
        super().__init__(Pool(conninfo, pool_size, pooler), fence, sovereign)
        self._attempts = attempts
        self.clock_offset = timedelta()
        """PostgreSQL's clock minus this machine's, at the last `check`."""
        self._batcher = Batcher(self._redeem, self._held, isolated_connections=pool_size - 2)
        self._purchaser = Batcher(
            self._purchase, self._held_by_purchase, isolated_connections=1, most=MAX_PURCHASES, one_each=True
        )

    async def open(self) -> None:
        """Start connecting in the background. Neither fails nor waits when PostgreSQL cannot be reached."""
        await self._pool.open()

    async def close(self) -> None:
        """Finish the calls under way and close the connections. Later calls raise LedgerUnavailableError.

        Call it before the event loop ends: the pool's tasks cannot be cancelled while they connect.
        """
        await asyncio.gather(self._batcher.close(), self._purchaser.close())
        await self._pool.close()

    async def info(self) -> LedgerInfo:
        """Read the ledger's currency and clock."""
        return await self._pool.run(accounts.info)

    async def check(self) -> LedgerInfo:
        """Read the same, and whether writes are taken, within CHECK_SECONDS and whoever uses the connections."""
        info = await self._pool.run(accounts.check, reserved=True, seconds=CHECK_SECONDS)
        self.clock_offset = info.clock_offset
        telemetry.CLOCK_OFFSET.set(info.clock_offset.total_seconds())
        return info

    async def redeem(self, request: RedeemRequest) -> RedeemResult:
        """Redeem a code, or return the earlier result of this key. A refusal is a result, not an error.

        Requests that arrive while a commit is under way are redeemed in one statement, in arrival order. A cancelled
        call may have granted: the same request then returns that result.
        """
        return await self._batcher.submit(request)

    async def redemption_of(self, key: Key, request_hash: str, uid: str) -> RedeemResult | None:
        """Return the earlier result of a request, None when it has none. Redeems nothing."""
        return await self._pool.run(lambda conn: redeem.read(conn, key, request_hash, uid))

    async def states(self, keys: Sequence[str]) -> dict[str, KeyState]:
        """Return what the ledger has of some keys, by key; one of which it has nothing is left out."""
        return await self._pool.run(lambda conn: redeem.states(conn, keys))

    async def put(self, terms: VoucherTerms) -> PutResult:
        """Write the terms of a Voucher to the ledger: issue, update, or correct drift. Idempotent.

        Raises CurrencyMismatchError, CodeChangedError (the uid owns another code), CodeConflictError (another Voucher
        owns the code) and CodeReservedError (a deleted one of another namespace owned it); their messages have no code.
        """
        return await self._write(lambda conn: vouchers.put(conn, terms))

    async def revoke(self, owner: VoucherOwner, *, absent: bool = False) -> bool:
        """Revoke the code of `owner`, by uid; True if it was live. Idempotent. `absent`: see `vouchers.revoke`."""
        return await self._write(lambda conn: vouchers.revoke(conn, owner, absent=absent))

    async def counters(self, uids: Sequence[str] | None = None) -> list[VoucherCounters]:
        """Return the counters of the live vouchers of these owners, or of all with None. Unknown uids are left out."""
        return await self._pool.run(lambda conn: vouchers.counters(conn, uids), reserved=True)

    async def moved(self, since: LedgerMark | None, limit: int) -> tuple[LedgerMark, list[str] | None]:
        """Return the mark of now, and which live vouchers may have changed since `since`; None: read all."""
        return await self._pool.run(lambda conn: vouchers.moved(conn, since, limit), reserved=True)

    async def counters_page(self, after: str, limit: int) -> list[VoucherCounters]:
        """Return the counters of up to `limit` live vouchers, by uid, those after `after`."""
        return await self._pool.run(lambda conn: vouchers.page(conn, after, limit), reserved=True)

    async def owners(self) -> list[VoucherOwner]:
        """List the Vouchers that own a live row."""
        return await self._pool.run(vouchers.owners)

    async def owners_named(self, namespace: str, name: str) -> list[VoucherOwner]:
        """List the Vouchers of this name that own a live row: more than one only after a restore."""
        return await self._pool.run(lambda conn: vouchers.named(conn, namespace, name))

    async def report_namespaces(self, operator: str, namespaces: Sequence[str]) -> list[UnservedNamespace]:
        """Record that `operator` (a release) serves exactly `namespaces`; list what it must handle beside them."""
        return await self._write(lambda conn: served.report(conn, operator, namespaces))

    async def record_cleared(self, namespaces: Sequence[str]) -> None:
        """Record that dropped namespaces have no Voucher left with a code or a finalizer. Idempotent."""
        await self._write(lambda conn: served.cleared(conn, namespaces))

    async def deactivate(self, owner: VoucherOwner) -> bool:
        """Set a Voucher, or the one whose name it has, to inactive. True if it was live and active. Idempotent."""
        return await self._write(lambda conn: vouchers.deactivate(conn, owner))

    async def undone_elsewhere(
        self, namespaces: Sequence[str], older_than_seconds: float, limit: int
    ) -> dict[Key, datetime]:
        """Take up to `limit` keys in `namespaces` whose redemption another writer has undone, and when.

        Each is returned at once, and again after every `older_than_seconds` until `record_undo_reported`.
        """
        return await self._write(lambda conn: accounts.undone_elsewhere(conn, namespaces, older_than_seconds, limit))

    async def record_undo_reported(self, keys: Sequence[Key]) -> None:
        """Record that the Redemptions of these keys are deleted or have the undo in their status. Idempotent."""
        await self._write(lambda conn: accounts.record_undo_reported(conn, keys))

    async def balance(self, user_id: str) -> int:
        """Return the sum of a customer's entries, in minor units; 0 for an unknown user."""
        return await self._pool.run(lambda conn: accounts.balance(conn, user_id))

    async def entries(self, user_id: str, limit: int = 20) -> list[Entry]:
        """List a customer's newest entries, the newest first."""
        return await self._pool.run(lambda conn: accounts.entries(conn, user_id, limit))

    async def purchase(self, request: PurchaseRequest) -> PurchaseResult:
        """Redeem the code if there is one, place the order and hold the credit; or return the key's earlier result.

        All of it is one transaction. A refusal is a result, not an error, and consumes nothing. Requests that arrive
        while a commit is under way run in one batch, but those of one customer one after the other. A cancelled call
        may have bought: the same request then returns that result.
        """
        return await self._purchaser.submit(request)

    async def purchase_of(self, key: Key) -> Purchase | None:
        """Return the purchase of a key; None when it has none."""
        return await self._pool.run(lambda conn: purchases.read_one(conn, key))

    async def open_purchases(self, limit: int) -> list[Purchase]:
        """Return up to `limit` purchases that are PENDING, the oldest first."""
        return await self._pool.run(lambda conn: purchases.pending(conn, limit))

    async def undelivered_purchases(
        self, namespaces: Sequence[str], older_than_seconds: float, limit: int
    ) -> list[Purchase]:
        """Take up to `limit` ended purchases with keys in `namespaces` whose end is not recorded as delivered.

        Each is returned at once when it has ended, and again after every `older_than_seconds` until `record_delivered`.
        """
        return await self._write(lambda conn: purchases.undelivered(conn, namespaces, older_than_seconds, limit))

    async def newer_purchases(self, limit: int) -> list[Key]:
        """Return the keys of up to `limit` unfinished purchases that only a newer version understands."""
        return await self._pool.run(lambda conn: purchases.of_newer_version(conn, limit))

    async def record_delivered(self, ends: Mapping[Key, datetime]) -> None:
        """Record that the ends of these purchases are delivered: key and `settled_at` of that end. Idempotent."""
        await self._write(lambda conn: purchases.record_delivered(conn, ends))

    async def record_customer(self, key: Key, stripe_customer_id: str) -> None:
        """Record the customer that the payment processor created for a purchase. Idempotent."""
        await self._write(lambda conn: purchases.record_customer(conn, key, stripe_customer_id))

    async def record_session(self, key: Key, session_id: str, url: str, expires_at: datetime) -> Purchase:
        """Record the checkout of a PENDING purchase and return it, AWAITING_PAYMENT; any other as it is. Idempotent.

        Raises RequestRejectedError for a key without a purchase.
        """
        return await self._write(lambda conn: purchases.record_session(conn, key, session_id, url, expires_at))

    async def compensate(self, key: Key, reason: Reason) -> Purchase | None:
        """Compensate a PENDING purchase and return it, ROLLED_BACK; any other as it is; None when there is none.

        The hold is released, the redemption undone and the order failed. A redemption stays when its credit was spent
        elsewhere meanwhile. Idempotent.
        """
        return await self._write(lambda conn: purchases.compensate(conn, key, reason))

    async def outbox_pending(self, limit: int, without: Sequence[str] = ()) -> list[OutboxEvent]:
        """Return the first `limit` events that are not published, in order, but none of the tenants `without`."""
        return await self._pool.run(lambda conn: outbox.pending(conn, limit, without))

    async def outbox_published(self, ids: Sequence[str]) -> None:
        """Record that the events with these ids are published. Idempotent."""
        await self._write(lambda conn: outbox.published(conn, ids))

    async def outbox_backlog(self) -> OutboxBacklog:
        """Count the events that are not published, up to 100,000."""
        return await self._pool.run(outbox.backlog)

    async def purge(self, seconds: float = 30.0) -> None:
        """Delete events that were published, and webhook events that were received, long ago.

        Until nothing old is left, or for `seconds`: the next call continues. It costs two lookups when nothing is old.
        """
        self._fence()
        await outbox.purge(self._pool, seconds)

    async def end_stale_sessions(self) -> None:
        """End the operator's sessions whose replica no longer waits for an answer, and with them their row locks.

        Raises LedgerUnavailableError.
        """
        self._fence()
        await self._pool.run_unmonitored(stale_sessions.end_stale_sessions)

    async def _redeem(self, requests: Sequence[RedeemRequest]) -> list[RedeemResult | OperatorError]:
        telemetry.BATCH_SIZE.observe(len(requests))
        with telemetry.BATCH_SECONDS.time():
            return await self._write(lambda conn: redeem.redeem_batch(conn, requests, self._attempts))

    async def _purchase(self, requests: Sequence[PurchaseRequest]) -> list[PurchaseResult | OperatorError]:
        return await self._write(lambda conn: purchase_batch(conn, requests, self._attempts))

    async def _held(self, requests: Sequence[Request]) -> tuple[set[str], set[str]]:
        return await self._pool.run(lambda conn: redeem.held(conn, requests))

    async def _held_by_purchase(self, requests: Sequence[Request]) -> tuple[set[str], set[str]]:
        return await self._pool.run(lambda conn: redeem.held(conn, requests, buying=True))
