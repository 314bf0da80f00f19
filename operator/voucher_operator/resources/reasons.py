"""Every reason that a condition or an event may carry, in one enum, so that docs and tests can hold the list.

See also: `conditions` puts them into a status, `errors` carries them, the pages docs/voucher.md and
docs/redemption.md explain each one to people.
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
    """The ledger counts in another currency."""
    CODE_CHANGED = "CodeChanged"
    """The Secret now holds another code than the one that was issued."""
    INVALID_CODE = "InvalidCode"
    """What the Secret holds is no code."""

    # Voucher: Redeemable
    ACTIVE = "Active"
    """A customer could redeem it now."""
    SCHEDULED = "Scheduled"
    """`validFrom` is still to come."""
    INACTIVE = "Inactive"
    """`active: false`."""
    EXHAUSTED = "Exhausted"
    """As many redemptions as the cap allows, or more."""
    EXPIRED = "Expired"
    """`validUntil` has passed."""
    NOT_ISSUED = "NotIssued"
    """The code is not in the ledger for this Voucher."""

    # Both kinds: something that may pass
    LEDGER_UNAVAILABLE = "LedgerUnavailable"
    """PostgreSQL cannot be reached, is busy, or has not been migrated yet."""
    SECRET_NOT_FOUND = "SecretNotFound"
    """The Secret, or the key in it, is absent."""
    SECRET_UNREADABLE = "SecretUnreadable"
    """The API server refused to show the Secret or could not."""
    VOUCHER_NOT_READY = "VoucherNotReady"
    """The Voucher exists but is not in the ledger yet."""

    TOO_MANY_ATTEMPTS = "TooManyAttempts"
    """The customer has tried too many wrong codes: every code of theirs is tried again later."""

    INVALID_SPEC = "InvalidSpec"
    """The spec has something in it that this version of the operator does not know: its CRD is newer."""

    REQUEST_REJECTED = "RequestRejected"
    """The ledger cannot store a value of the resource."""

    # Redemption: done
    REDEEMED = "Redeemed"
    """The credit is on the customer's ledger."""
    ROLLED_BACK = "RolledBack"
    """The redemption was undone; the customer may redeem again."""

    # Redemption: refused for good (design section 3)
    VOUCHER_NOT_FOUND = "VoucherNotFound"
    """No such code, or it was revoked: the two are never told apart."""
    VOUCHER_INACTIVE = "VoucherInactive"
    """`active: false`."""
    VOUCHER_NOT_YET_VALID = "VoucherNotYetValid"
    """Before `validFrom`, by the clock of PostgreSQL."""
    VOUCHER_EXPIRED = "VoucherExpired"
    """After `validUntil`, by the clock of PostgreSQL."""
    REDEMPTION_LIMIT_REACHED = "RedemptionLimitReached"
    """The cap is used up."""
    ALREADY_REDEEMED = "AlreadyRedeemed"
    """This customer has redeemed this code before."""
    IDEMPOTENCY_CONFLICT = "IdempotencyConflict"
    """A Redemption of this name was redeemed with another spec."""

    # Redemption with an order
    PLACED = "Placed"
    """The order is written and the credit held."""
    AWAITING_PAYMENT = "AwaitingPayment"
    """The customer has a checkout URL and has to pay the rest."""
    COMPLETED = "Completed"
    """The order is paid."""
    CHECKOUT_EXPIRED = "CheckoutExpired"
    """The customer did not pay in time: the order is cancelled, the credit stays."""
    PAYMENT_FAILED = "PaymentFailed"
    """The payment failed after the checkout: the order is cancelled, the credit stays."""
    REFUNDED = "Refunded"
    """The payment was refunded in full, and the credit given back."""
    INVALID_ORDER = "InvalidOrder"
    """The order names what the catalog does not sell, or what cannot be paid or provisioned."""
    CUSTOMER_MISMATCH = "CustomerMismatch"
    """The credit is that of another tenant's customer."""
    PAYMENT_PROCESSOR_NOT_CONFIGURED = "PaymentProcessorNotConfigured"
    """The credit does not cover all, and this Sovereign has no payment processor."""
    PAYMENT_REJECTED = "PaymentRejected"
    """The payment processor refused the checkout."""
    ABANDONED = "Abandoned"
    """The Redemption was deleted before the customer got a checkout URL."""
    PAYMENT_PROCESSOR_UNAVAILABLE = "PaymentProcessorUnavailable"
    """The payment processor cannot be reached or failed; or did so for longer than the deadline."""
    CATALOG_UNAVAILABLE = "CatalogUnavailable"
    """The catalog cannot be reached or failed."""
    ORGANIZATION_CREATED = "OrganizationCreated"
    """The Organization was made from the order, or was there and has been adopted."""
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
    """The ledger row was edited outside Git and has been put back."""
    CODE_CONTESTED = "CodeContested"
    """Another Voucher has the same code, and was refused."""
