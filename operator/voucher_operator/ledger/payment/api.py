"""What payments do to purchases, as a part of `Ledger`: events, look-ups, disputes.

See also: `payments` decides, `records` stores what the payment processor reports.
"""

from collections.abc import Callable, Mapping, Sequence

from voucher_operator.ledger.fenced import FencedLedger
from voucher_operator.ledger.payment import payments, records
from voucher_operator.ledger.payment.records import ReportedDispute
from voucher_operator.ledger.pool import Pool
from voucher_operator.ledger.purchase.types import PaymentEvent, Purchase, Received
from voucher_operator.resources.keys import Key


class PaymentLedger(FencedLedger):
    """The part of the ledger that the payment processor moves. Errors are those of `Ledger`."""

    def __init__(self, pool: Pool, fence: Callable[[], None], sovereign: str) -> None:
        super().__init__(pool, fence)
        self._sovereign = sovereign

    async def receive(self, event: PaymentEvent) -> Received:
        """Store a payment event and apply it, in one transaction; return the outcome.

        Idempotent by the event's id, in any order of events. A DUPLICATE may have been applied by this call, when the
        acknowledgement of its first try was lost.
        """
        return await self._pool.run(lambda conn: payments.receive(conn, event, self._sovereign))

    async def record_payment(self, event: PaymentEvent) -> None:
        """Record what a lookup found about a payment, without a change of its purchase or an event. Idempotent."""
        await self._pool.run(lambda conn: payments.record_payment(conn, event))

    async def purchases_to_check(self, older_than_seconds: float, limit: int) -> list[Purchase]:
        """Take purchases that must be checked at the payment processor; each counts as checked now.

        Up to `limit` that await a payment and were not checked for `older_than_seconds`. And up to `limit` that have
        ended: a paid one may have been refunded since (checked less and less often); the subscription of one that
        ended without its payment must be ended, until `record_ended`.
        """
        return await self._write(lambda conn: payments.stale(conn, older_than_seconds, limit))

    async def record_ended(self, key: Key) -> None:
        """Record that nothing of a purchase without its payment continues at the payment processor. Idempotent."""
        await self._write(lambda conn: payments.ended(conn, key))

    async def unreported_disputes(self, namespaces: Sequence[str], limit: int) -> list[ReportedDispute]:
        """Return up to `limit` disputes of orders with keys in `namespaces` whose status no Event reports."""
        return await self._pool.run(lambda conn: records.unreported_disputes(conn, namespaces, limit))

    async def record_disputes_reported(self, reported: Mapping[str, str]) -> None:
        """Record the status of each dispute, by its id, that an Event reports. Idempotent."""
        await self._write(lambda conn: records.record_reported(conn, reported))

    async def unsettled_payments(self) -> Mapping[str, int]:
        """Count the payments that need a person, by kind: mismatch, dispute, refund and outstanding."""
        return await self._pool.run(records.unsettled)
