"""Events of the payment of a purchase's own checkout: paid, refunded, disputed. See also: `purchase_rows` places it."""

from datetime import UTC, datetime, timedelta
from typing import Any

from testbed.postgres import Database
from tests.ledger.helpers import rows
from tests.ledger.purchase_rows import PlacedPurchase
from voucher_operator.ledger.purchase.types import Dispute, Payment, PaymentEffect, PaymentEvent

HELD, DUE = 10_500, 39_500
NOON = datetime(2026, 11, 1, 12, tzinfo=UTC)


def first(placed: PlacedPurchase, effect: PaymentEffect = PaymentEffect.PAID, **changes: Any) -> PaymentEvent:
    """Make an event of the payment of the purchase's own checkout."""
    return placed.event(effect, **{"payment": Payment(f"pi_{placed.order}", f"ch_{placed.order}"), **changes})


def partly(placed: PlacedPurchase, refunded: int, minutes: int | None = None, **changes: Any) -> PaymentEvent:
    """Make an event of a refund of the first payment that was asked about so many minutes after noon."""
    seen_at = None if minutes is None else NOON + timedelta(minutes=minutes)
    payment = Payment(f"pi_{placed.order}", f"ch_{placed.order}", None, DUE, refunded, seen_at)
    effect = PaymentEffect.REFUNDED if refunded == DUE else PaymentEffect.PARTLY_REFUNDED
    return placed.event(effect, payment=payment, **changes)


def dispute(
    placed: PlacedPurchase, status: str, minutes: int, amount: int | None = 5_000, **changes: Any
) -> PaymentEvent:
    """Make an event of the one dispute of the first payment, created so many minutes after noon."""
    said = Dispute(f"du_{placed.order}", status, NOON + timedelta(minutes=minutes), amount, "fraudulent", "ch_1")
    return first(placed, PaymentEffect.DISPUTED, dispute=said, **changes)


async def outstanding(database: Database, placed: PlacedPurchase) -> tuple[int, int]:
    """Return what was lost of the purchase's payments and what is outstanding, in minor units."""
    sums = "coalesce(sum(lost_minor), 0)::int, coalesce(sum(outstanding_minor), 0)::int"
    (found,) = await rows(database, f"SELECT {sums} FROM vouchers.payment WHERE order_id = %s", placed.order)
    return found[0], found[1]


async def mark_settled(database: Database) -> None:
    """Do what a person does who has settled what is outstanding, and the money of a failed refund."""
    await rows(database, "UPDATE vouchers.payment SET settled_minor = outstanding_minor")
    failed = "refunded_at IS NOT NULL AND NOT refunded"
    await rows(database, f"UPDATE vouchers.payment SET refund_settled_minor = refunded_minor WHERE {failed}")
