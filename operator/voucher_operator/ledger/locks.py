"""What locks what: the order of the ledger's locks, what each statement locks, and the statements of each use case.

Several sessions write at the same time: the replicas of the operator and the Go billing service, whose statements
cannot be changed. Two transactions that take the same two locks in different orders deadlock. Therefore every use case
takes its locks in the order of `Lock`, and the rows of one table in one order: promo_codes by code, customers and
accounts by the customer's id. A lock is held until the transaction ends, so taking it again is no new lock: only the
first time that a use case takes it has a place in the order. EXCEPTIONS has the cases that differ, each with the reason
why it is safe.

The order begins with what the Go service locks first. It locks the row of a code, and then inserts entries, whose
trigger locks the account. `customers` is between them: the foreign keys of an insert take FOR KEY SHARE on a customer,
which FOR NO KEY UPDATE does not block, so that the Go service and a purchase do not wait for each other there.

What is read after a wait is read by the next statement, under READ COMMITTED, whose snapshot is newer than the lock.

Not here, because nothing waits for it: a row that is inserted with a new random id (credit_ledger, orders, outbox; its
id is known to others after the commit alone). Not here either: the table locks and the session's advisory lock of a
migration, which runs none of these statements while it holds a table.

See also: docs/adr/0002-lock-order.md; docs/architecture.md says why no interleaving exceeds a cap; `statements` finds
the files; tests/unit/test_locks.py compares this module with the SQL, tests/ledger/test_lock_order.py with what runs.
"""

from collections.abc import Mapping
from enum import IntEnum, auto
from types import MappingProxyType
from typing import Final


class Lock(IntEnum):
    """What a statement can wait for, in the order in which it is locked."""

    VOUCHER = auto()
    """Advisory locks of a transaction: of a code in normal form, then of a Voucher's uid. They exist before any row."""
    WEBHOOK_EVENT = auto()
    """One event of the payment processor, by event id."""
    PROMO_CODES = auto()
    """Codes, by code in the collation "C"."""
    CUSTOMERS = auto()
    """Customers, by id; new ones by user id in the collation "C"."""
    ACCOUNT = auto()
    """Balances, by customer."""
    PURCHASE = auto()
    """Purchases, by key."""
    PAYMENT = auto()
    DISPUTE = auto()
    ORDERS = auto()
    REDEMPTION = auto()
    """Requests that were decided, by key."""
    PROMO_REDEMPTIONS = auto()
    """Redemption rows of the Go service, by customer and code."""
    ATTEMPT = auto()
    """Wrong codes, by key and uid."""
    SUBSCRIPTIONS = auto()
    TERMS = auto()
    """What Git wants of a code, by code."""
    SERVED_NAMESPACE = auto()
    """Namespaces, by name in the collation "C"."""
    OUTBOX = auto()
    BACKFILL_PROGRESS = auto()
    BACKFILL_TOTAL = auto()
    ACCOUNT_BACKFILL = auto()


STATEMENTS: Final[Mapping[str, tuple[Lock, ...]]] = MappingProxyType(
    {
        "voucher_put_lock": (Lock.VOUCHER,),
        "voucher_put_retire": (Lock.TERMS,),
        "voucher_put_promo": (Lock.PROMO_CODES,),
        "voucher_put_terms": (Lock.TERMS,),
        "voucher_put_announce": (),
        "voucher_revoke_lock": (Lock.PROMO_CODES,),
        "voucher_revoke": (Lock.TERMS, Lock.PROMO_CODES),
        "voucher_deactivate_lock": (Lock.PROMO_CODES,),
        "voucher_deactivate": (Lock.TERMS, Lock.PROMO_CODES),
        "voucher_release": (Lock.TERMS,),
        "namespace_serve": (Lock.SERVED_NAMESPACE,),
        "namespace_cleared": (Lock.SERVED_NAMESPACE,),
        "lock_promo": (Lock.PROMO_CODES,),
        "redeem": (
            Lock.PROMO_CODES,
            Lock.CUSTOMERS,
            Lock.ACCOUNT,
            Lock.REDEMPTION,
            Lock.PROMO_REDEMPTIONS,
            Lock.ATTEMPT,
        ),
        "probe_promo": (Lock.PROMO_CODES,),
        "probe_customers": (Lock.CUSTOMERS, Lock.ACCOUNT),
        "probe_buyers": (Lock.CUSTOMERS, Lock.ACCOUNT),
        "undo_lock_promo": (Lock.PROMO_CODES,),
        "undo": (Lock.ACCOUNT, Lock.REDEMPTION, Lock.PROMO_REDEMPTIONS, Lock.PROMO_CODES),
        "undo_unreported": (Lock.REDEMPTION,),
        "undo_reported": (Lock.REDEMPTION,),
        "customer_lock": (Lock.CUSTOMERS,),
        "account_lock": (Lock.ACCOUNT,),
        "account_open": (Lock.ACCOUNT,),
        "purchase_add_customers": (Lock.CUSTOMERS, Lock.ACCOUNT),
        "purchase_lock_customers": (Lock.CUSTOMERS,),
        "purchase_place": (Lock.ACCOUNT, Lock.PURCHASE, Lock.REDEMPTION, Lock.SUBSCRIPTIONS),
        "purchase_record_customer": (Lock.PURCHASE,),
        "purchase_record_session": (Lock.PURCHASE, Lock.ORDERS),
        "purchase_lock": (Lock.PURCHASE,),
        "purchase_release": (Lock.PURCHASE, Lock.ACCOUNT, Lock.ORDERS),
        "purchase_announce_rollback": (),
        "purchase_undelivered": (Lock.PURCHASE,),
        "purchase_delivered": (Lock.PURCHASE,),
        "payment_event_insert": (Lock.WEBHOOK_EVENT,),
        "payment_event_lock": (Lock.WEBHOOK_EVENT,),
        "payment_events_resolved": (Lock.WEBHOOK_EVENT,),
        "payment_event_outcome": (Lock.WEBHOOK_EVENT,),
        "payment_lock": (Lock.PURCHASE, Lock.ACCOUNT),
        "payment_record": (Lock.PAYMENT,),
        "payment_dispute": (Lock.DISPUTE,),
        "payment_settle": (Lock.PURCHASE, Lock.ACCOUNT, Lock.PAYMENT, Lock.ORDERS, Lock.SUBSCRIPTIONS),
        "dispute_reported": (Lock.DISPUTE,),
        "payment_stale": (Lock.PURCHASE,),
        "payment_ended": (Lock.PURCHASE,),
        "outbox_published": (Lock.OUTBOX,),
        "outbox_purge": (Lock.OUTBOX,),
        "attempt_purge": (Lock.ATTEMPT,),
        "webhook_event_purge": (Lock.WEBHOOK_EVENT,),
        "backfill_lock": (Lock.BACKFILL_PROGRESS,),
        "backfill_batch": (Lock.BACKFILL_PROGRESS, Lock.BACKFILL_TOTAL),
        "backfill_apply_totals": (Lock.PROMO_CODES, Lock.BACKFILL_TOTAL),
        "account_backfill": (Lock.ACCOUNT, Lock.ACCOUNT_BACKFILL),
    }
)
"""Each statement that locks or writes: what it locks, in the order of its text; () for one that only inserts new ids.

PostgreSQL chooses the order of the writes of one statement, unless one of them reads what another returns.
"""

SKIP_LOCKED: Final = frozenset(
    {
        "probe_promo",
        "probe_customers",
        "probe_buyers",
        "undo_unreported",
        "purchase_undelivered",
        "payment_events_resolved",
        "payment_stale",
        "outbox_purge",
        "webhook_event_purge",
        "backfill_apply_totals",
    }
)
"""Statements that leave out what another session holds, and so wait for no lock of the rows that they read."""

TRIGGERS: Final[Mapping[str, tuple[Lock, ...]]] = MappingProxyType(
    {
        "customers_after_insert": (Lock.ACCOUNT,),
        "credit_ledger_before_insert": (Lock.PROMO_CODES, Lock.ACCOUNT),
        "credit_ledger_after_update": (Lock.ACCOUNT,),
        "credit_ledger_after_delete": (Lock.BACKFILL_PROGRESS, Lock.PROMO_CODES, Lock.ACCOUNT, Lock.REDEMPTION),
    }
)
"""What the triggers lock (migrations/0012 and 0014). The code's row is locked only for entries of the Go service,
whose transaction holds it already; the progress of the backfill only for an entry from before the first migration."""

GO_SERVICE: Final[Mapping[str, tuple[Lock, ...]]] = MappingProxyType(
    {
        "go: lock the code": (Lock.PROMO_CODES,),
        "go: insert the redemption row": (Lock.PROMO_REDEMPTIONS,),
        "go: delete the redemption row": (Lock.PROMO_REDEMPTIONS,),
        "go: count the code": (Lock.PROMO_CODES,),
    }
)
"""Statements of the Go service; those that insert or delete entries are written as the trigger that they fire."""

USE_CASES: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "put a voucher": (
            "voucher_put_lock",
            "lock_promo",
            "voucher_put_retire",
            "voucher_put_promo",
            "voucher_put_terms",
            "voucher_put_announce",
        ),
        "revoke a voucher": ("voucher_revoke_lock", "voucher_revoke"),
        "deactivate a voucher": ("voucher_deactivate_lock", "voucher_deactivate"),
        "release a code": ("voucher_release",),
        "record the namespaces that are served": ("namespace_serve",),
        "record namespaces where nothing is left": ("namespace_cleared",),
        "redeem a batch": ("lock_promo", "redeem"),
        "open accounts that are missing": ("account_open",),
        "find locked codes": ("probe_promo",),
        "find locked customers": ("probe_customers",),
        "find locked buyers": ("probe_buyers",),
        "purchase a batch": (
            "lock_promo",
            "purchase_add_customers",
            "purchase_lock_customers",
            "account_lock",
            "redeem",
            "purchase_place",
        ),
        "compensate a purchase": (
            "undo_lock_promo",
            "customer_lock",
            "purchase_lock",
            "purchase_release",
            "undo",
            "purchase_announce_rollback",
        ),
        "receive a payment event": (
            "payment_event_insert",
            "payment_event_lock",
            "customer_lock",
            "payment_lock",
            "payment_record",
            "payment_dispute",
            "payment_settle",
            "payment_events_resolved",
            "payment_event_outcome",
        ),
        "record a payment": ("customer_lock", "payment_lock", "payment_record", "payment_dispute"),
        "record reported disputes": ("dispute_reported",),
        "record a customer": ("purchase_record_customer",),
        "record a checkout session": ("purchase_record_session",),
        "take purchases to deliver": ("purchase_undelivered",),
        "record deliveries": ("purchase_delivered",),
        "take purchases to check": ("payment_stale",),
        "record that nothing is left to end": ("payment_ended",),
        "take undone redemptions to report": ("undo_unreported",),
        "record reported undos": ("undo_reported",),
        "record published events": ("outbox_published",),
        "purge the outbox": ("outbox_purge",),
        "purge webhook events": ("webhook_event_purge",),
        "purge wrong codes": ("attempt_purge",),
        "backfill, add up entries": ("backfill_lock", "backfill_batch"),
        "backfill, apply totals": ("backfill_apply_totals",),
        "backfill, open accounts": ("account_backfill",),
        "go service: redeem": (
            "go: lock the code",
            "go: insert the redemption row",
            "go: count the code",
            "credit_ledger_before_insert",
        ),
        "go service: spend": ("credit_ledger_before_insert",),
        "go service: undo": ("go: delete the redemption row", "go: count the code", "credit_ledger_after_delete"),
    }
)
"""One transaction each: its statements that lock or write, in order. One that is not needed is left out at run time."""

EXCEPTIONS: Final[Mapping[tuple[str, Lock], str]] = MappingProxyType(
    {
        ("compensate a purchase", Lock.ACCOUNT): (
            "After the purchase. Both are under the lock of the customer's row; what locks a purchase without it "
            "(record a session, deliver, check) never waits for an account."
        ),
        ("receive a payment event", Lock.ACCOUNT): "As for a compensation.",
        ("record a payment", Lock.ACCOUNT): "As for a compensation.",
        ("purchase a batch", Lock.PURCHASE): (
            "After the redemption: its rows are new. Only a replica with the same key can wait for one. With the same "
            "request that replica has waited for the code or the customer before. With another request, the pool "
            "repeats the transaction that PostgreSQL cancels."
        ),
        ("go service: redeem", Lock.ACCOUNT): "After the redemption row, which is new and under the lock of its code.",
        ("go service: undo", Lock.PROMO_CODES): (
            "After the redemption row. A redemption that finds this row refuses and does not wait for it. Only a "
            "compensation of the same redemption waits for it, and may deadlock: the pool repeats a compensation that "
            "PostgreSQL cancels."
        ),
        ("go service: undo", Lock.ACCOUNT): "As for the code, and as for the redemption.",
        ("go service: undo", Lock.REDEMPTION): (
            "After the progress of the backfill, which the trigger reads FOR SHARE while a migration adds up entries: "
            "a batch of the backfill holds it and waits for no row of this use case."
        ),
    }
)
"""Use case and lock: why it is safe that this lock is taken after one that comes later in the order."""


def locks_of(name: str) -> tuple[Lock, ...]:
    """Return what a statement, a trigger or a statement of the Go service locks. Raises KeyError for another name."""
    for group in (STATEMENTS, TRIGGERS, GO_SERVICE):
        if name in group:
            return group[name]
    raise KeyError(name)


def sequence(use_case: str) -> list[Lock]:
    """Return the locks of a use case in the order in which it takes each for the first time."""
    return list(dict.fromkeys(lock for name in USE_CASES[use_case] for lock in locks_of(name)))
