"""Every way to break a purchase, in SQL, and what `verify` says of it. See also: test_verify_purchases.py."""

from dataclasses import dataclass

from voucher_operator.ledger.admin.verify import Invariant
from voucher_operator.ledger.purchase.types import PurchaseState


@dataclass(frozen=True)
class Break:
    """One way to break a purchase: the SQL that does it, and what `verify` says. "{completed.order}" is filled in."""

    invariant: Invariant
    state: str
    sql: str
    detail: str


OUTBOX = "INSERT INTO vouchers.outbox (type, tenant_id, data) "
PLACED = OUTBOX + "SELECT 'order.placed', '', jsonb_build_object('id', '{STATE.order}') FROM generate_series(1, MORE)"
INBOX = (
    "INSERT INTO vouchers.webhook_event (event_id, type, raw, order_id, outcome) "
    "VALUES ('evt_OUTCOME', 'paid', '', '{STATE.order}', 'OUTCOME')"
)
ENTRY = "INSERT INTO credit_ledger (customer_id, amount_omr, amount_minor, reason, order_id) "


BREAKS = [
    Break(
        Invariant.ORDERS,
        "awaiting_payment",
        "DELETE FROM orders WHERE id = '{awaiting_payment.order}'",
        "order {awaiting_payment.order} is missing",
    ),
    Break(
        Invariant.ORDERS,
        "pending",
        "UPDATE orders SET customer_id = '{completed.customer}' WHERE id = '{pending.order}'",
        "order {pending.order} is another customer's",
    ),
    Break(
        Invariant.ORDERS,
        "completed",
        "UPDATE orders SET amount_baisa = 49999 WHERE id = '{completed.order}'",
        "order {completed.order} amounts to 50 (49999 baisa), the purchase to 50000 minor units",
    ),
    Break(
        Invariant.ORDERS,
        "completed",
        "UPDATE orders SET amount_omr = 51 WHERE id = '{completed.order}'",
        "order {completed.order} amounts to 51 (50000 baisa), the purchase to 50000 minor units",
    ),
    *(
        Break(
            Invariant.ORDERS,
            state,
            f"UPDATE orders SET status = 'lost' WHERE id = '{{{state}.order}}'",
            f"order {{{state}.order}} is lost, the purchase {state}",
        )
        for state in PurchaseState
    ),
    Break(
        Invariant.ORDERS,
        "completed",
        "DELETE FROM credit_ledger WHERE order_id = '{completed.order}'",
        "order {completed.order} has spent 0 minor units of credit instead of 10500",
    ),
    Break(
        Invariant.ORDERS,
        "completed",
        ENTRY + "VALUES ('{completed.customer}', 0, 500, 'order-payment', '{completed.order}')",
        "order {completed.order} has spent 10000 minor units of credit instead of 10500",
    ),
    Break(
        Invariant.ORDERS,
        "completed",
        "UPDATE credit_ledger SET customer_id = '{refunded.customer}' WHERE order_id = '{completed.order}'",
        "order {completed.order} has spent 0 minor units of credit instead of 10500",
    ),
    *(
        Break(
            Invariant.HOLDS,
            state,
            f"DELETE FROM credit_ledger WHERE order_id = '{{{state}.order}}'",
            f"is {state} and holds 0 minor units in 0 entries instead of 10500 in 1",
        )
        for state in ("pending", "awaiting_payment")
    ),
    Break(
        Invariant.HOLDS,
        "pending",
        "UPDATE credit_ledger SET amount_omr = -6, amount_minor = -5250 WHERE order_id = '{pending.order}'; "
        + ENTRY
        + "VALUES ('{pending.customer}', -6, -5250, 'order-payment', '{pending.order}')",
        "is pending and holds 10500 minor units in 2 entries instead of 10500 in 1",
    ),
    *(
        Break(
            Invariant.HOLDS,
            state,
            f"DELETE FROM credit_ledger WHERE order_id = '{{{state}.order}}' AND amount_minor > 0",
            f"is {state} and still holds 10500 minor units",
        )
        for state in ("cancelled", "rolled_back", "refunded")
    ),
    Break(
        Invariant.OUTBOX,
        "completed",
        "DELETE FROM vouchers.outbox WHERE type = 'order.placed'",
        "is completed and has 0 events order.placed",
    ),
    *(
        Break(
            Invariant.OUTBOX,
            state,
            PLACED.replace("STATE", state).replace("MORE", str(more)),
            f"is {state} and has {number} events order.placed",
        )
        for state, more, number in (
            ("completed", 1, 2),
            ("charged_back", 1, 2),
            ("refunded", 2, 2),
            ("pending", 1, 1),
            ("awaiting_payment", 1, 1),
            ("cancelled", 1, 1),
            ("rolled_back", 1, 1),
        )
    ),
    Break(
        Invariant.OUTBOX,
        "rolled_back",
        "DELETE FROM vouchers.outbox WHERE type = 'redemption.rolled_back'",
        "is rolled_back and has 0 events redemption.rolled_back",
    ),
    Break(
        Invariant.OUTBOX,
        "completed",
        OUTBOX + "VALUES ('redemption.rolled_back', '', jsonb_build_object('key', '{completed.key}'))",
        "is completed and has 1 events redemption.rolled_back",
    ),
    Break(
        Invariant.OUTBOX,
        "",
        "UPDATE vouchers.outbox SET at = now() - interval '61 minutes' WHERE type = 'order.placed'",
        "3 events are not published, 2 of them for longer than an hour: is NATS there?",
    ),
    Break(
        Invariant.WEBHOOK_EVENTS,
        "rolled_back",
        INBOX.replace("OUTCOME", "mismatch").replace("STATE", "rolled_back"),
        "event evt_mismatch (paid) says that order {rolled_back.order} was paid, which is rolled_back with 39500 minor "
        "units due: check it, and refund what was not due",
    ),
    Break(
        Invariant.WEBHOOK_EVENTS,
        "awaiting_payment",
        INBOX.replace("OUTCOME", "applied").replace("STATE", "awaiting_payment"),
        "event evt_applied (paid) was applied, but the purchase is awaiting_payment",
    ),
    Break(
        Invariant.WEBHOOK_EVENTS,
        "",
        INBOX.replace("OUTCOME", "applied").replace("{STATE.order}", "42"),
        "event evt_applied (paid) was applied, but the purchase is missing",
    ),
    *(
        Break(
            Invariant.WEBHOOK_EVENTS,
            state,
            INBOX.replace("OUTCOME", outcome).replace("STATE", state),
            f"event evt_{outcome} (paid) was stored as {outcome}, but its purchase is {state}: is the "
            "Sovereign's name right?",
        )
        for state in ("pending", "awaiting_payment")
        for outcome in ("foreign", "unknown")
    ),
]


ENDED = (
    "UPDATE vouchers.purchase SET session_expires_at = now() - interval 'HOURS hours' "
    "WHERE key = '{awaiting_payment.key}'"
)


ON_ITS_WAY = (
    "; INSERT INTO vouchers.webhook_event (event_id, type, raw, session_id, outcome) "
    "VALUES ('evt', 'lookup', '', '{awaiting_payment.session}', 'no_change')"
)


HANGS = (
    "awaits its payment and holds 10500 minor units, though its checkout ended over a day ago: can Stripe be asked for "
    "session {awaiting_payment.session}?"
)


BREAKS += [
    Break(Invariant.CHECKOUTS, "awaiting_payment", ENDED.replace("HOURS", "25"), HANGS),
    Break(Invariant.CHECKOUTS, "awaiting_payment", ENDED.replace("HOURS", "721") + ON_ITS_WAY, HANGS),
    *(
        Break(
            Invariant.CHECKOUTS,
            state,
            "UPDATE vouchers.purchase SET look_at = now(), settled_at = now() - interval '25 hours', "
            f"stripe_customer_id = 'cus_1' WHERE key = '{{{state}.key}}'",
            f"is {state} for over a day, and its subscription may go on: can Stripe be asked to end those of customer "
            "cus_1?",
        )
        for state in ("cancelled", "refunded", "charged_back")
    ),
]


PAYMENT = (
    "INSERT INTO vouchers.payment (session_id, order_id, payment_intent, amount_minor, refunded_minor, refunded, "
    "refunded_at, seen_at) VALUES ('{STATE.session}', '{STATE.order}', 'pi_1', 39500, REFUNDED, now(), now())"
)


DISPUTE = (
    PAYMENT.replace("REFUNDED", "0, false").replace("now(), now()", "NULL, now()")
    + "; INSERT INTO vouchers.dispute (dispute_id, session_id, payment_intent, amount_minor, status, event_at) "
    "VALUES ('du_1', '{STATE.session}', 'pi_1', 39500, 'IS', now())"
)


OUTSTANDING = (
    PAYMENT.replace("REFUNDED", "0, false").replace("now(), now()", "NULL, now()").replace("STATE", "charged_back")
    + "; UPDATE vouchers.payment SET lost_minor = 39500, outstanding_minor = 39000"
)


BREAKS += [
    Break(
        Invariant.ORDERS,
        "charged_back",
        OUTSTANDING,
        "order {charged_back.order} has spent 10500 minor units of credit instead of 11000",
    ),
    Break(
        Invariant.PAYMENTS,
        "charged_back",
        OUTSTANDING,
        "39000 minor units of payment pi_1 (session {charged_back.session}) are outstanding, and the order is "
        "charged_back: collect them or write them off",
    ),
    Break(
        Invariant.PAYMENTS,
        "refunded",
        PAYMENT.replace("STATE", "refunded").replace("REFUNDED", "39501, true"),
        "payment pi_1 of session {refunded.session} was of 39500 minor units, of which 39501 were refunded",
    ),
    Break(
        Invariant.PAYMENTS,
        "cancelled",
        PAYMENT.replace("STATE", "cancelled").replace("REFUNDED", "500, false"),
        "payment pi_1 of session {cancelled.session} was refunded in full, and a refund has failed since: of 39500 "
        "minor units 500 are refunded; give 39000 back in another way",
    ),
    Break(
        Invariant.PAYMENTS,
        "refunded",
        PAYMENT.replace("STATE", "refunded").replace("REFUNDED", "500, false").replace("now(), now()", "NULL, now()"),
        "is refunded, but of its payment pi_1 (session {refunded.session}) only 500 of 39500 minor units are",
    ),
    *(
        Break(
            Invariant.PAYMENTS,
            state,
            PAYMENT.replace("STATE", state).replace("REFUNDED", "39500, true"),
            f"is {state}, but its payment pi_1 (session {{{state}.session}}) is refunded in full",
        )
        for state in ("awaiting_payment", "completed")
    ),
    Break(
        Invariant.PAYMENTS,
        "cancelled",
        PAYMENT.replace("STATE", "cancelled").replace("REFUNDED", "39500, true")
        + "; "
        + INBOX.replace("OUTCOME", "mismatch").replace("STATE", "cancelled")
        + "; UPDATE vouchers.webhook_event SET session_id = '{cancelled.session}'",
        "event evt_mismatch is a mismatch, but its payment pi_1 (session {cancelled.session}) is refunded in full: "
        "set its outcome to no_change",
    ),
    Break(
        Invariant.PAYMENTS,
        "completed",
        DISPUTE.replace("STATE", "completed").replace("IS", "under_review"),
        "dispute du_1 of payment pi_1 is under_review (39500 minor units): answer it at Stripe",
    ),
    Break(
        Invariant.PAYMENTS,
        "completed",
        DISPUTE.replace("STATE", "completed").replace("IS", "lost"),
        "dispute du_1 of payment pi_1 is lost (39500 minor units): decide what becomes of the order, which is "
        "completed",
    ),
]
