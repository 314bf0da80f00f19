"""The ledger's only door. Controllers know `Ledger`, `types` and the errors of `resources.errors`; SQL stays behind it.

See also: `batch` gathers redemptions, `vouchers` and `accounts` do the rest, `pool` keeps the connections.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime

from voucher_operator import telemetry
from voucher_operator.ledger.admin import stale_sessions as stuck
from voucher_operator.ledger.batch import Batcher, Request
from voucher_operator.ledger.credit import accounts
from voucher_operator.ledger.outbox import events as outbox
from voucher_operator.ledger.payment import payments
from voucher_operator.ledger.pool import Pool
from voucher_operator.ledger.purchase import purchases
from voucher_operator.ledger.purchase.batch import MAX_PURCHASES, purchase_batch
from voucher_operator.ledger.purchase.types import (
    OutboxBacklog,
    OutboxEvent,
    PaymentEvent,
    Purchase,
    PurchaseRequest,
    PurchaseResult,
    Received,
)
from voucher_operator.ledger.redemption import redeem
from voucher_operator.ledger.types import (
    AttemptLimit,
    Entry,
    LedgerInfo,
    PutResult,
    RedeemRequest,
    RedeemResult,
    VoucherCounters,
    VoucherOwner,
    VoucherTerms,
)
from voucher_operator.ledger.voucher import vouchers
from voucher_operator.resources.errors import OperatorError
from voucher_operator.resources.keys import Key
from voucher_operator.resources.reasons import Reason


class Ledger:
    """The Sovereign's billing ledger in PostgreSQL. Safe for concurrent use within one event loop.

    `conninfo` gives a libpq URL or keyword string and is called at each new connection. `pool_size` is the most
    connections at once. `sovereign` is the name (FQDN) that our payments carry: one with another name is kept without
    effect; "" takes all for ours. Every method raises LedgerUnavailableError for what may pass, and
    RequestRejectedError for a value that PostgreSQL cannot store. Amounts are minor units of the ledger's currency.
    """

    def __init__(
        self,
        conninfo: Callable[[], str],
        *,
        pool_size: int = 4,
        sovereign: str = "",
        attempts: AttemptLimit = redeem.NO_LIMIT,
    ) -> None:
        self._attempts = attempts
        self._sovereign = sovereign
        self._pool = Pool(conninfo, pool_size)
        self._batcher = Batcher(self._redeem, self._held, isolated_connections=pool_size - 2)
        self._purchaser = Batcher(
            self._purchase, self._held_buying, isolated_connections=1, most=MAX_PURCHASES, one_each=True
        )

    async def open(self) -> None:
        """Start connecting in the background. Neither fails nor waits when PostgreSQL is absent."""
        await self._pool.open()

    async def close(self) -> None:
        """Finish what is under way and close the connections. Later calls raise LedgerUnavailableError.

        Call it before the event loop ends: the pool's tasks do not let themselves be cancelled while they connect.
        """
        await asyncio.gather(self._batcher.close(), self._purchaser.close())
        await self._pool.close()

    async def info(self) -> LedgerInfo:
        """Read the ledger's currency and clock."""
        return await self._pool.run(accounts.info)

    async def redeem(self, request: RedeemRequest) -> RedeemResult:
        """Redeem a code, or read what became of this key before. A refusal is a result, not an error.

        Requests that arrive while a commit is under way travel in one statement, in arrival order. A cancelled call may
        have granted: the same request asked again reads the result.
        """
        return await self._batcher.submit(request)

    async def redemption_of(self, key: Key, request_hash: str, uid: str) -> RedeemResult | None:
        """Read what became of a request before, None when it was not answered. Redeems nothing."""
        return await self._pool.run(lambda conn: redeem.read(conn, key, request_hash, uid))

    async def put(self, terms: VoucherTerms) -> PutResult:
        """Make the ledger row of a Voucher what its spec says. Idempotent.

        Raises CurrencyMismatchError, CodeChangedError (the uid owns another code), CodeConflictError (another Voucher
        owns the code) and CodeReservedError (a deleted one of another namespace did); their messages hold no code.
        """
        return await self._pool.run(lambda conn: vouchers.put(conn, terms))

    async def revoke(self, owner: VoucherOwner) -> bool:
        """Revoke the code that `owner` owns, by uid. True if a live row was revoked. Idempotent."""
        return await self._pool.run(lambda conn: vouchers.revoke(conn, owner))

    async def counters(self, uids: Sequence[str] | None = None) -> list[VoucherCounters]:
        """Count the live vouchers of these owners; None counts all that have an owner. Unknown uids are left out."""
        return await self._pool.run(lambda conn: vouchers.counters(conn, uids))

    async def owners(self) -> list[VoucherOwner]:
        """List the Vouchers that own a live row."""
        return await self._pool.run(vouchers.owners)

    async def undone_elsewhere(
        self, namespaces: Sequence[str], older_than_seconds: float, limit: int
    ) -> dict[Key, datetime]:
        """Take keys in `namespaces` whose redemption another writer has undone, and when, until `note_undo_reported`.

        Each is given at once, and again when nobody has looked at it for so long.
        """
        return await self._pool.run(lambda conn: accounts.undone_elsewhere(conn, namespaces, older_than_seconds, limit))

    async def note_undo_reported(self, keys: Sequence[Key]) -> None:
        """Note that the Redemptions of these keys say that they are undone, or are gone. Idempotent."""
        await self._pool.run(lambda conn: accounts.note_undo_reported(conn, keys))

    async def balance(self, user_id: str) -> int:
        """Sum a customer's entries, in minor units; 0 for an unknown user."""
        return await self._pool.run(lambda conn: accounts.balance(conn, user_id))

    async def entries(self, user_id: str, limit: int = 20) -> list[Entry]:
        """List a customer's newest entries, the newest first."""
        return await self._pool.run(lambda conn: accounts.entries(conn, user_id, limit))

    async def purchase(self, request: PurchaseRequest) -> PurchaseResult:
        """Redeem the code if there is one, place the order and hold the credit; or read what became of this key before.

        All of it is one transaction: a refusal, which is a result and no error, consumes nothing. Requests that arrive
        while a commit is under way travel together, but those of one customer one after the other. A cancelled call may
        have bought: the same request asked again reads the result.
        """
        return await self._purchaser.submit(request)

    async def purchase_of(self, key: Key) -> Purchase | None:
        """Read the purchase that `key` made; None when it made none."""
        return await self._pool.run(lambda conn: purchases.read_one(conn, key))

    async def open_purchases(self, limit: int) -> list[Purchase]:
        """Read up to `limit` purchases that are PENDING, the oldest first."""
        return await self._pool.run(lambda conn: purchases.pending(conn, limit))

    async def undelivered_purchases(
        self, namespaces: Sequence[str], older_than_seconds: float, limit: int
    ) -> list[Purchase]:
        """Take purchases with keys in `namespaces` whose end has not been noted by `note_delivered`.

        Each is given at once when it has ended, and again when nobody has looked at it for so long.
        """
        return await self._pool.run(lambda conn: purchases.undelivered(conn, namespaces, older_than_seconds, limit))

    async def newer_purchases(self, limit: int) -> list[Key]:
        """List the keys of up to `limit` purchases that no pass takes: only a newer version understands them."""
        return await self._pool.run(lambda conn: purchases.of_newer_version(conn, limit))

    async def note_delivered(self, ends: Mapping[Key, datetime]) -> None:
        """Note that everybody has been told how these purchases ended: key and `settled_at` of that end. Idempotent."""
        await self._pool.run(lambda conn: purchases.note_delivered(conn, ends))

    async def note_customer(self, key: Key, stripe_customer_id: str) -> None:
        """Remember the customer that the payment processor made for a purchase. Idempotent."""
        await self._pool.run(lambda conn: purchases.note_customer(conn, key, stripe_customer_id))

    async def note_session(self, key: Key, session_id: str, url: str, expires_at: datetime) -> Purchase:
        """Remember the checkout of a PENDING purchase and return it, AWAITING_PAYMENT; any other as it is. Idempotent.

        Raises RequestRejectedError for a key that bought nothing.
        """
        return await self._pool.run(lambda conn: purchases.note_session(conn, key, session_id, url, expires_at))

    async def compensate(self, key: Key, reason: Reason) -> Purchase | None:
        """Take a PENDING purchase back and return it, ROLLED_BACK; any other as it is; None when there is none.

        The hold is released, the redemption undone and the order failed. Credit that was spent elsewhere meanwhile
        cannot be taken back: that redemption stays. Idempotent.
        """
        return await self._pool.run(lambda conn: purchases.compensate(conn, key, reason))

    async def receive(self, event: PaymentEvent) -> Received:
        """Keep what the payment processor says and do what follows, in one transaction; say what became of it.

        Idempotent by the event's id, in whatever order events come. A DUPLICATE may have been applied by this very
        call: the answer to its first try was lost.
        """
        return await self._pool.run(lambda conn: payments.receive(conn, event, self._sovereign))

    async def note_payment(self, event: PaymentEvent) -> None:
        """Record what a look at a payment found out, when nothing follows from it. Idempotent; keeps no event."""
        await self._pool.run(lambda conn: payments.note_payment(conn, event))

    async def stale_sessions(self, older_than_seconds: float, limit: int) -> list[Purchase]:
        """Take purchases that await a payment and that nobody has looked at for so long; now somebody has.

        And, up to `limit` too, ended ones that are due for a look: what was paid may have been refunded since, seldom
        asked; the subscription of what was cancelled or refunded is to be ended, until `note_ended` says so.
        """
        return await self._pool.run(lambda conn: payments.stale(conn, older_than_seconds, limit))

    async def note_ended(self, key: Key) -> None:
        """Note that nothing of a cancelled or refunded purchase goes on at the payment processor. Idempotent."""
        await self._pool.run(lambda conn: payments.ended(conn, key))

    async def outbox_pending(self, limit: int, without: Sequence[str] = ()) -> list[OutboxEvent]:
        """List the first `limit` events that wait to be published, in order, but none of the tenants `without`."""
        return await self._pool.run(lambda conn: outbox.pending(conn, limit, without))

    async def outbox_published(self, ids: Sequence[str]) -> None:
        """Note that the events with these ids have been published. Idempotent."""
        await self._pool.run(lambda conn: outbox.published(conn, ids))

    async def outbox_backlog(self) -> OutboxBacklog:
        """Count the events that wait to be published, up to 100,000."""
        return await self._pool.run(outbox.backlog)

    async def purge(self, seconds: float = 30.0) -> None:
        """Take out events that were published, and payment events that came, long ago.

        Until nothing old is left, or for so many seconds: the next call goes on. Finding nothing costs two look-ups.
        """
        await outbox.purge(self._pool, seconds)

    async def end_stale_sessions(self) -> None:
        """End the operator's sessions that nobody waits for any more, and with them their row locks.

        Raises LedgerUnavailableError.
        """
        await self._pool.run_unnoted(stuck.end_stale_sessions)

    async def _redeem(self, requests: Sequence[RedeemRequest]) -> list[RedeemResult | OperatorError]:
        telemetry.BATCH_SIZE.observe(len(requests))
        with telemetry.BATCH_SECONDS.time():
            return await self._pool.run(lambda conn: redeem.redeem_batch(conn, requests, self._attempts))

    async def _purchase(self, requests: Sequence[PurchaseRequest]) -> list[PurchaseResult | OperatorError]:
        return await self._pool.run(lambda conn: purchase_batch(conn, requests, self._attempts))

    async def _held(self, requests: Sequence[Request]) -> tuple[set[str], set[str]]:
        return await self._pool.run(lambda conn: redeem.held(conn, requests))

    async def _held_buying(self, requests: Sequence[Request]) -> tuple[set[str], set[str]]:
        return await self._pool.run(lambda conn: redeem.held(conn, requests, buying=True))
