"""Every reason that a condition or an event may carry, in one enum, so that docs and tests can use the list.

See also: `conditions` writes them into a status; `errors` has the exceptions with a reason; docs/voucher.md and
docs/redemption.md explain each.
"""

from enum import StrEnum


class Reason(StrEnum):
    """A CamelCase word for machines; the message beside it is for people."""

    # Voucher: Ready
    ISSUED = "Issued"
    """The ledger row equals the spec."""
    CODE_CONFLICT = "CodeConflict"
    """Another Voucher owns the code."""
    CODE_RESERVED = "CodeReserved"
    """A deleted Voucher of another namespace had the code."""
    CURRENCY_MISMATCH = "CurrencyMismatch"
    """The ledger has another currency."""
    CODE_CHANGED = "CodeChanged"
    """The Secret has another code now than the one that was issued."""
    INVALID_CODE = "InvalidCode"
    """The Secret's value is not a code."""
    CODE_NOT_ALLOWED = "CodeNotAllowed"
    """The settings do not allow the namespace to issue codes with this prefix."""
    NAMESPACE_NOT_SERVED = "NamespaceNotServed"
    """The operator served the namespace before, and does not now."""

    # Voucher: Redeemable
    ACTIVE = "Active"
    """A customer could redeem it now."""
    SCHEDULED = "Scheduled"
    """The time in `validFrom` is not reached yet."""
    INACTIVE = "Inactive"
    """`active: false`."""
    EXHAUSTED = "Exhausted"
    """`maxRedemptions` is reached."""
    EXPIRED = "Expired"
    """`validUntil` has passed."""
    NOT_ISSUED = "NotIssued"
    """The code is not in the ledger for this Voucher."""

    # Both kinds: transient problems
    LEDGER_UNAVAILABLE = "LedgerUnavailable"
    """PostgreSQL cannot be reached, is busy, or has not been migrated yet."""
    SECRET_NOT_FOUND = "SecretNotFound"
    """The Secret, or the key in it, is absent."""
    SECRET_UNREADABLE = "SecretUnreadable"
    """The API server refused or failed to return the Secret."""
    VOUCHER_NOT_READY = "VoucherNotReady"
    """The Voucher exists but is not in the ledger yet."""

    TOO_MANY_ATTEMPTS = "TooManyAttempts"
    """The customer has tried too many wrong codes in this namespace: every code of theirs is tried again later."""

    INVALID_SPEC = "InvalidSpec"
    """The spec has fields or values that this version of the operator does not know: the CRD is newer."""

    REQUEST_REJECTED = "RequestRejected"
    """The ledger cannot store a value of the resource."""

    # Redemption: done
    REDEEMED = "Redeemed"
    """The credit is on the customer's ledger."""
    ROLLED_BACK = "RolledBack"
    """The redemption was undone; the customer may redeem again."""

    NOT_IN_LEDGER = "NotInLedger"
    """The status said that it was granted, and the ledger does not know it: one was restored from a backup."""

    # Redemption: refused, final
    VOUCHER_NOT_FOUND = "VoucherNotFound"
    """The code does not exist or was revoked; the two are not distinguished."""
    VOUCHER_INACTIVE = "VoucherInactive"
    """`active: false`."""
    VOUCHER_NOT_YET_VALID = "VoucherNotYetValid"
    """Before `validFrom`, by the clock of PostgreSQL."""
    VOUCHER_EXPIRED = "VoucherExpired"
    """After `validUntil`, by the clock of PostgreSQL."""
    REDEMPTION_LIMIT_REACHED = "RedemptionLimitReached"
    """`maxRedemptions` is reached."""
    ALREADY_REDEEMED = "AlreadyRedeemed"
    """This customer has redeemed this code before."""
    IDEMPOTENCY_CONFLICT = "IdempotencyConflict"
    """A Redemption of this name was redeemed with another spec."""

    # Redemption with an order
    PLACED = "Placed"
    """The order is placed and the credit is held."""
    AWAITING_PAYMENT = "AwaitingPayment"
    """The customer has a checkout URL and has to pay the rest."""
    COMPLETED = "Completed"
    """The order is paid."""
    CHECKOUT_EXPIRED = "CheckoutExpired"
    """The customer did not pay in time: the order is cancelled, the customer keeps the credit."""
    PAYMENT_FAILED = "PaymentFailed"
    """The payment failed after the checkout: the order is cancelled, the customer keeps the credit."""
    REFUNDED = "Refunded"
    """The payment was refunded in full, and the credit is returned."""
    PAYMENT_LOST = "PaymentLost"
    """The cardholder's bank has taken the payment back: the order has ended."""
    REINSTATED = "Reinstated"
    """The refund failed, or the dispute was won after all: the order counts as paid again."""
    INVALID_ORDER = "InvalidOrder"
    """The order has an item that is not in the catalog, or cannot be paid or provisioned."""
    CUSTOMER_MISMATCH = "CustomerMismatch"
    """The customer belongs to another tenant in the ledger."""
    PAYMENT_PROCESSOR_NOT_CONFIGURED = "PaymentProcessorNotConfigured"
    """The credit does not cover the order, and this Sovereign has no payment processor."""
    PAYMENT_REJECTED = "PaymentRejected"
    """The payment processor refused the checkout."""
    ABANDONED = "Abandoned"
    """The Redemption was deleted before the customer got a checkout URL."""
    PAYMENT_PROCESSOR_UNAVAILABLE = "PaymentProcessorUnavailable"
    """The payment processor cannot be reached or failed, possibly until the deadline."""
    CATALOG_UNAVAILABLE = "CatalogUnavailable"
    """The catalog cannot be reached or failed."""
    ORGANIZATION_CREATED = "OrganizationCreated"
    """The Organization was created for the order, or existed already."""
    ORGANIZATION_NOT_READY = "OrganizationNotReady"
    """The Organization exists and is not ready yet."""
    DELEGATED = "Delegated"
    """The operator creates no Organizations here: the event order.placed delegates that to the platform."""
    ORGANIZATION_REFUSED = "OrganizationRefused"
    """The API server refused the Organization."""

    # Events only
    REVOKED = "Revoked"
    """The Voucher was deleted; its code can no longer be redeemed."""
    DRIFT_CORRECTED = "DriftCorrected"
    """The ledger row was changed outside Git and has been restored."""
    PAYMENT_DISPUTED = "PaymentDisputed"
    """The cardholder disputes the payment of the order."""
    DISPUTE_CLOSED = "DisputeClosed"
    """The dispute of the payment has ended and the money stays here."""
    CODE_CONTESTED = "CodeContested"
    """Another Voucher has the same code and was refused."""
